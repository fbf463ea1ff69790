"""From a state to a picture, by the functions of `sg3 generate`."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from math import cos, floor, radians, sin
from typing import Any

import torch
import torch.nn.functional as F

from sg3.canvas import Size, size_of
from sg3.errors import UsageError
from sg3.models import Generator, StyleGenerator, stylegan3
from sg3.models.repeated import Repeated
from sg3.sampling import class_labels, seed_latents, set_transform, to_uint8
from sg3.tools.directions import Directions, principal_components, sefa
from sg3.tools.files import Pixels, without_bars
from sg3.tools.interpolation import Interpolation
from sg3.tools.latent_as_w import LatentAsW
from sg3.tools.latents import layer_names, sample_w
from sg3.viewer.preview import Preview
from sg3.viewer.shelf import Shelf
from sg3.viewer.state import MOVE, State
from sg3.viewer.stepwise import Noise, Stepwise

SEEDS = 2**32
ROW = 100  # seeds from one row of the plane to the next, as in the original's visualizer
KEPT_LATENTS = 256
MOST_DIRECTIONS = 16  # that are found
KEPT_DIRECTIONS = 16  # sets: PCA has one for each label, and labels can be blended


class Painter:
    """A network, and what is kept from one picture to the next. For the network's thread alone."""

    def __init__(self, G: Generator, shelf: Shelf | None = None, visible: Size | None = None) -> None:
        self.G = G
        self.visible = visible  # height and width of what lies between the black bars of its images
        self.shelf = shelf or Shelf()
        self.features: tuple[Hashable, torch.Tensor] | None = None  # of a layer, and of which
        self._directions: OrderedDict[Hashable, Directions] = OrderedDict()
        self.device = next(G.parameters()).device
        self.walkable: StyleGenerator | LatentAsW
        self.walkable = G if isinstance(G, StyleGenerator) else LatentAsW(G).eval().to(self.device)
        self.stepwise = Stepwise(self.walkable.synthesis)
        is_recorded = self.device.type == "cuda" and not isinstance(self.walkable, LatentAsW)
        self.graphs = Repeated(self.walkable.synthesis) if is_recorded else None
        self.preview = Preview(self.walkable.synthesis)
        self._last: torch.Tensor | None = None
        self._latents: OrderedDict[Hashable, torch.Tensor] = OrderedDict()

    def picture(self, state: State, check: Callable[[], None] = lambda: None) -> Pixels:
        """uint8 [R, R, C], without black bars. `check` is called between layers and may raise. Raises UsageError where
        state and network do not go together."""
        return without_bars(to_uint8(self.image(state, check))[0], self.visible)

    @torch.no_grad()
    def image(
        self, state: State, check: Callable[[], None] = lambda: None, by_layers: bool = False
    ) -> torch.Tensor:
        """The same before rounding: [1, C, R, R] in -1..1, on the network's device.

        On a GPU, a frame is a CUDA graph that is replayed, unless `by_layers`: where somebody looks at the layers.
        """
        ws, noise, fp32 = self._prepared(state)
        if self.graphs is not None and not by_layers and noise == Noise(noise.mode) and noise.mode != "random":
            check()
            image = self.graphs(ws, noise_mode=noise.mode, force_fp32=fp32)
        else:
            image = self.stepwise.run(ws, noise, fp32, check, self._maps(state))
        self._last = image
        return untransformed(image, state) if state.untransform else image

    @torch.no_grad()
    def learn(self, state: State) -> None:
        """Have the small pictures learn from the last whole one, which is that of `state`."""
        step = self.preview.step
        if self._last is None or step is None or not self.preview.is_learning():
            return
        # The early layers of this very picture: kept, unless a graph was replayed.
        carry = self.stepwise.run_to(step, *self._prepared(state), lambda: None, self._maps(state))
        self.preview.learn(self._last, carry)

    @torch.no_grad()
    def small(self, state: State, check: Callable[[], None] = lambda: None) -> Pixels | None:
        """A small picture, uint8 [S, S, C], from an early layer, or None if there is none yet; see `Preview`."""
        if not self.preview.is_ready() or state.untransform or self.preview.step is None:
            return None
        carry = self.stepwise.run_to(self.preview.step, *self._prepared(state), check, self._maps(state))
        small = self.preview.picture(carry)
        if self.visible is None:
            return small
        parts = (round(part * side / all_of_it)
                 for part, side, all_of_it in zip(self.visible, small.shape[:2], size_of(self.G), strict=True))
        height, width = (max(part, 1) for part in parts)
        return without_bars(small, (height, width))

    def _prepared(self, state: State) -> tuple[torch.Tensor, Noise, bool]:
        """What the synthesis network is to be run with; its transform is set."""
        ws = self.ws(state)
        set_transform(self.G, state.translate, state.rotate, state.scale)
        seed = state.noise_seed if state.noise_mode == "random" else 0
        noise = Noise(state.noise_mode, seed, state.noise_strength, state.latent if self._maps(state) else "")
        return ws, noise, state.fp32

    def _maps(self, state: State) -> dict[str, torch.Tensor]:
        """Noise that belongs to a latent."""
        maps = self.shelf.noise(state.latent) if state.latent else {}
        return {name: values.to(self.device) for name, values in maps.items()}

    @torch.no_grad()
    def ws(self, state: State) -> torch.Tensor:
        """[1, num_ws, w_dim] on the network's device: blended, mixed and truncated."""
        labels = self.labels(state if state.seed_b is None else replace(state, class_mix=0.0))
        ws = self._stored(state.latent) if state.latent else self._blend(state, labels)
        if state.latent_b:
            ends = torch.cat([ws, self._stored(state.latent_b)])
            ws = Interpolation(ends, "linear", loop=False)([state.seed_mix]).to(ws)  # the path of `sg3 video`
        elif state.seed_b is not None and state.seed_mix > 0:
            there = state if state.class_b is None else replace(state, class_idx=state.class_b)
            to = self.labels(replace(there, class_mix=0.0))
            ws = ws.lerp(self._mapped(state.seed_b, to), state.seed_mix)
        if state.mix_seed is not None and state.mix_layers:
            layers = list(state.mix_layers)
            self._check_layers(layers)
            ws = ws.clone()
            ws[:, layers] = self._mapped(state.mix_seed, labels)[:, layers]
        return self._moved(self._truncated(ws, state), state, labels)

    def _truncated(self, ws: torch.Tensor, state: State) -> torch.Tensor:
        if state.trunc == 1 or isinstance(self.walkable, LatentAsW):
            return ws
        cutoff = self.walkable.num_ws if state.cutoff is None else state.cutoff
        near = self.walkable.mapping.w_avg.lerp(ws[:, :cutoff], state.trunc)
        return torch.cat([near, ws[:, cutoff:]], dim=1)

    def _moved(self, ws: torch.Tensor, state: State, labels: torch.Tensor) -> torch.Tensor:
        """Steps along directions."""
        if not state.directions:
            return ws
        if isinstance(self.walkable, LatentAsW):
            raise UsageError("directions: this network has no w to move in")
        ws = ws.clone()
        for word in state.directions:
            move = parse_move(word, self.walkable.num_ws)
            found = self.directions(move.kind, labels)
            if move.index >= len(found.directions):
                raise UsageError(f"directions={word}: {move.kind} has directions 0 to {len(found.directions) - 1}")
            length = move.degrees * float(found.scale[move.index])
            ws[:, move.layers] += (length * found.directions[move.index]).to(ws)
        return ws

    def directions(self, kind: str, labels: torch.Tensor) -> Directions:
        """SeFa's, PCA's, or those of a file that was loaded. Raises UsageError."""
        assert not isinstance(self.walkable, LatentAsW)
        if kind not in ("sefa", "pca"):
            return self.shelf.directions(kind, self.walkable.w_dim)
        key = kind, labels.numpy().tobytes() if kind == "pca" else b""
        if key not in self._directions:
            count = min(MOST_DIRECTIONS, self.walkable.w_dim)
            if kind == "sefa":
                self._directions[key] = sefa(self.walkable, count, range(self.walkable.num_ws))
            else:
                self._directions[key] = principal_components(sample_w(self.walkable, labels), count)
            if len(self._directions) > KEPT_DIRECTIONS:
                self._directions.popitem(last=False)
        self._directions.move_to_end(key)
        return self._directions[key]

    def _stored(self, name: str) -> torch.Tensor:
        return self.shelf.latent(name, self.walkable.num_ws, self.walkable.w_dim).to(self.device)

    def facts(self) -> dict[str, Any]:
        """What a page has to know of the network."""
        G = self.walkable
        names = layer_names(G) if isinstance(G, StyleGenerator) else ["latent"]
        return {
            "family": type(self.G).__module__.rpartition(".")[2], "resolution": G.img_resolution,
            "size": list(self.visible or size_of(self.G)), "whole": list(size_of(self.G)),
            "channels": G.img_channels, "classes": G.c_dim, "z_dim": G.z_dim, "w_dim": G.w_dim, "layers": names,
            "can_truncate": isinstance(G, StyleGenerator), "can_move": isinstance(G, stylegan3.Generator),
            "has_noise": any("noise" in name for name, _ in self.G.named_parameters()),
            "device": str(self.device),
        }  # fmt: skip

    def forget(self) -> None:
        """Free what is kept."""
        self.stepwise.forget()
        self._latents.clear()
        self._directions.clear()
        self.features = self._last = None

    def _check_layers(self, layers: list[int]) -> None:
        if layers[-1] >= self.walkable.num_ws:
            most = self.walkable.num_ws - 1
            raise UsageError(f"mix_layers={layers[-1]}: out of range, this network has layers 0 to {most}")

    def labels(self, state: State) -> torch.Tensor:
        """[1, c_dim]"""
        labels = class_labels(self.G, state.class_idx, 1)
        if state.class_b is None or state.class_mix == 0 or self.G.c_dim == 0:
            return labels
        return labels.lerp(class_labels(self.G, state.class_b, 1), state.class_mix)

    def _blend(self, state: State, labels: torch.Tensor) -> torch.Tensor:
        """The w of a place on the plane of seeds: a bilinear blend of the four corners around it."""
        parts = [(weight, self._mapped(seed, labels)) for seed, weight in corners(state)]
        if len(parts) == 1:
            return parts[0][1]
        blend = torch.stack([weight * ws for weight, ws in parts]).sum(dim=0)
        if isinstance(self.walkable, LatentAsW):  # what is expected there is normal: a blend keeps its deviation
            blend[..., : self.G.z_dim] /= sum(weight**2 for weight, _ in parts) ** 0.5
        return blend

    def _mapped(self, seed: int, labels: torch.Tensor) -> torch.Tensor:
        """[1, num_ws, w_dim] of one seed, not truncated; not to be written to."""
        key = seed, labels.numpy().tobytes()
        if key not in self._latents:
            z = seed_latents([seed], self.walkable.z_dim).to(self.device)
            self._latents[key] = self.walkable.mapping(z, labels.to(self.device))
            if len(self._latents) > KEPT_LATENTS:
                self._latents.popitem(last=False)
        self._latents.move_to_end(key)
        return self._latents[key]


@dataclass(frozen=True)
class Move:
    """A step along a direction."""

    kind: str
    index: int
    degrees: float
    layers: list[int]


def parse_move(word: str, num_ws: int) -> Move:
    """One word of the setting `directions`. Raises UsageError for layers that are not there."""
    found = re.fullmatch(MOVE, word)
    assert found is not None
    kind, index, degrees, first, last = found.groups()
    layers = list(range(num_ws)) if first is None else list(range(int(first), int(last) + 1))
    if not layers or layers[-1] >= num_ws:
        raise UsageError(f"directions={word}: this network has layers 0 to {num_ws - 1}")
    return Move(kind, int(index), float(degrees), layers)


def corners(state: State) -> list[tuple[int, float]]:
    """Seeds of the corners around a place on the plane, and their weights, which are above 0 and add up to 1."""
    column, row = floor(state.x), floor(state.y)
    fx, fy = state.x - column, state.y - row
    found = []
    for dy, wy in ((0, 1 - fy), (1, fy)):
        for dx, wx in ((0, 1 - fx), (1, fx)):
            if wx * wy > 0:
                found.append(((state.seed + column + dx + ROW * (row + dy)) % SEEDS, wx * wy))
    return found


def untransformed(image: torch.Tensor, state: State) -> torch.Tensor:
    """The moved picture [1, C, R, R] warped back, by bilinear interpolation; black where nothing is known."""
    c, s = state.scale * cos(radians(state.rotate)), state.scale * sin(radians(state.rotate))
    x, y = state.translate
    # For each place of the result, where it has gone; the grid's unit is half a picture.
    theta = torch.tensor([[[c, s, 2 * x], [-s, c, 2 * y]]], dtype=image.dtype, device=image.device)
    grid = F.affine_grid(theta, list(image.shape), align_corners=False)
    return F.grid_sample(image + 1, grid, mode="bilinear", padding_mode="zeros", align_corners=False) - 1
