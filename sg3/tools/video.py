"""Videos of a walk through latent space: keyframes -> path -> w at each moment -> frames, one at a time.

    keys = map_keyframes(G, make_keyframes(G, "z", seed_latents(range(8), G.z_dim), tiles=4))
    walk = make_walk(G, keys, tiles=4, kind="cubic", loop=True)
    for frame in render(G, walk, frame_times(2, 120, loop=True), grid=(2, 2)):
        ...                                                     # uint8 [H, W, 3]

Keyframes are numbered tile by tile: with K for each tile, the first K belong to the first tile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass, replace
from math import isqrt

import numpy as np
import torch

from sg3.canvas import Size
from sg3.errors import DataError, UsageError
from sg3.models.repeated import Repeated
from sg3.sampling import class_labels, pieces_of, to_uint8
from sg3.side_by_side import side_by_side
from sg3.tools.files import without_bars
from sg3.tools.interpolation import Interpolation
from sg3.tools.latent_as_w import Walkable
from sg3.transparency import Colour, has_alpha, over, possible

Walk = Callable[[torch.Tensor], torch.Tensor]  # times [T] -> ws [T, tiles, num_ws, w_dim], float32, on G's device


@dataclass(frozen=True)
class Keyframes:
    """N points in 'z' [N, z_dim] or 'w' [N, w_dim] or [N, num_ws, w_dim], and labels [N, c_dim] for those in z."""

    space: str
    points: torch.Tensor
    labels: torch.Tensor


def arrange_seeds(
    seeds: Sequence[int], tiles: int, keyframes: int | None = None, shuffle_seed: int | None = None
) -> list[int]:
    """The seeds of all keyframes, tile by tile; as the original's video tool, each tile gets an equal share.

    `keyframes` for each tile can be more than its share, which then repeats, or less. `shuffle_seed` shuffles the
    seeds first. Raises UsageError if the tiles cannot share them equally.
    """
    seeds = list(seeds)
    if len(seeds) == 0 or len(seeds) % tiles != 0:
        raise UsageError(f"--grid: {len(seeds)} seeds cannot be shared equally by {tiles} tiles")
    if shuffle_seed is not None:
        np.random.RandomState(shuffle_seed).shuffle(seeds)
    share = len(seeds) // tiles
    count = keyframes or share
    return [seeds[tile * share + k % share] for tile in range(tiles) for k in range(count)]


def make_keyframes(
    G: Walkable, space: str, points: torch.Tensor, tiles: int = 1, classes: Sequence[int] = ()
) -> Keyframes:
    """Keyframes from points in `space`; in z, each tile's keyframes take the classes in turn.

    Raises UsageError if the tiles cannot share the points equally, for classes that the network does not have, and for
    points in z without a class if it is conditional.
    """
    if len(points) % tiles != 0:
        raise UsageError(f"--grid: {len(points)} keyframes cannot be shared equally by {tiles} tiles")
    share = len(points) // tiles
    if space == "w":
        return Keyframes(space, points, torch.zeros(len(points), G.c_dim))
    chosen: list[int | None] = [classes[k % share % len(classes)] if classes else None for k in range(len(points))]
    return Keyframes(space, points, torch.cat([class_labels(G, index, 1) for index in chosen]))


@torch.no_grad()
def map_keyframes(G: Walkable, keys: Keyframes) -> Keyframes:
    """The same keyframes in w, each of its own class."""
    if keys.space == "w":
        return keys
    device = next(G.parameters()).device
    w = G.mapping(keys.points.to(device, torch.float32), keys.labels.to(device))[:, 0]  # one w for all layers
    return replace(keys, space="w", points=w.cpu())


def make_walk(
    G: Walkable,
    keys: Keyframes,
    tiles: int = 1,
    *,
    kind: str = "cubic",
    loop: bool = True,
    ease: bool = False,
    truncation_psi: float = 1.0,
) -> Walk:
    """The path of each tile through its share of the keyframes, in the space that they are in.

    `truncation_psi` pulls every w towards the mean. In z, labels change linearly from keyframe to keyframe.
    """
    count = len(keys.points) // tiles
    points = keys.points.unflatten(0, (tiles, count)).transpose(0, 1)  # [K, tiles, ...]
    path = Interpolation(points, kind, loop=loop, ease=ease)
    device = next(G.parameters()).device

    if keys.space == "w":

        def through_w(times: torch.Tensor) -> torch.Tensor:
            w = path(times).to(torch.float32).to(device)  # [T, tiles, w_dim] or [T, tiles, num_ws, w_dim]
            if truncation_psi != 1:
                w = G.mapping.w_avg.lerp(w, truncation_psi)
            return w if w.ndim == 4 else w[:, :, None].expand(-1, -1, G.num_ws, -1)

        return through_w

    labels = keys.labels.unflatten(0, (tiles, count)).transpose(0, 1)  # [K, tiles, c_dim]
    label_path = Interpolation(labels, "linear", loop=loop, ease=ease)

    def through_z(times: torch.Tensor) -> torch.Tensor:
        z = path(times).to(torch.float32).to(device).flatten(0, 1)
        c = label_path(times).to(torch.float32).to(device).flatten(0, 1)
        ws: torch.Tensor = G.mapping(z, c, truncation_psi=truncation_psi)
        return ws.unflatten(0, (len(times), tiles))

    return through_z


def near_square(tiles: int) -> tuple[int, int]:
    """Columns and rows of a grid of this many tiles, as square as can be and not higher than wide."""
    rows = next(r for r in range(isqrt(tiles), 0, -1) if tiles % r == 0)
    return tiles // rows, rows


def frame_times(keyframes: int, frames_between: int, loop: bool) -> torch.Tensor:
    """Times of all frames, float64: a loop ends just before its first frame, otherwise the last keyframe is the end.

    Raises UsageError for more than ten million frames.
    """
    count = keyframes * frames_between if loop else (keyframes - 1) * frames_between + 1
    if count > 10**7:
        words = f"{keyframes} keyframes make {count} frames, more than ten million"
        raise UsageError(f"--w-frames={frames_between}: {words}")
    return torch.arange(count, dtype=torch.float64) / frames_between


@torch.no_grad()
def render(
    G: Walkable,
    walk: Walk,
    times: torch.Tensor,
    grid: tuple[int, int] = (1, 1),
    *,
    noise_mode: str = "const",
    batch: int = 4,
    graphs: bool = True,
    background: Colour | None = None,
    visible: Size | None = None,
) -> Iterator[np.ndarray]:
    """Yield a frame, uint8 [rows * R, columns * R, 3], for each time; grid = (columns, rows). Nothing is kept. Images
    with alpha are laid on `background`, or with None give frames [.., 4] with straight alpha. `visible`: height and
    width of the middle of each image that is shown.

    G makes `batch` images at a time, across frames, on a CPU side by side (see `pieces_of`); another batch size may
    change the rounding of pixels. Random noise is drawn image by image from a seed of its own, so that it does not
    depend on the batch either. `graphs`: by CUDA graphs on a GPU, see `Repeated`.
    """
    synthesis = Repeated(G.synthesis, graphs)
    columns, rows = grid
    tiles = columns * rows
    total = len(times) * tiles
    device = next(G.parameters()).device
    piece, most = (1, 1) if noise_mode == "random" else pieces_of(G, batch, device)  # torch's generator is everybody's
    starts = range(0, total, piece)

    def make(start: int) -> np.ndarray:
        stop = min(start + piece, total)
        first, last = start // tiles, (stop - 1) // tiles
        ws = walk(times[first : last + 1]).flatten(0, 1)[start - first * tiles : stop - first * tiles]
        with _noise_of_image(start, ws.device) if noise_mode == "random" else nullcontext():
            return to_frames(synthesis(ws, noise_mode=noise_mode), background)

    frame = np.empty(0, dtype=np.uint8)
    with closing(side_by_side(make, starts, len(starts), device, most)) as made:
        for index, image in enumerate(image for images in made for image in images):
            image = without_bars(image, visible)
            h, w, channels = image.shape
            row, column = divmod(index % tiles, columns)
            if index % tiles == 0:
                frame = np.empty((rows * h, columns * w, channels), dtype=np.uint8)
            frame[row * h : (row + 1) * h, column * w : (column + 1) * w] = image
            if index % tiles == tiles - 1:
                yield frame


def to_frames(images: torch.Tensor, background: Colour | None = None) -> np.ndarray:
    """[N, C, H, W] in -1..1 -> uint8 [N, H, W, 3]; images with alpha are laid on `background`, or with None give
    [N, H, W, 4] with straight alpha. Gray is repeated.

    Raises DataError for other numbers of channels.
    """
    channels = images.shape[1]
    if not 1 <= channels <= 4:
        raise DataError(f"the network makes images of {channels} channels; videos show 1 to 4")
    if has_alpha(channels) and background is not None:
        images = over(possible(images), background)
    pixels = to_uint8(images)
    if pixels.shape[3] <= 2:  # gray
        pixels = np.concatenate([pixels[..., :1].repeat(3, axis=3), pixels[..., 1:]], axis=3)
    return pixels


@contextmanager
def _noise_of_image(index: int, device: torch.device) -> Iterator[None]:
    """Inside, torch's random numbers are those of this image; afterwards they go on as if nothing had happened."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(index)
        yield
