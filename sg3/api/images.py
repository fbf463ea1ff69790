"""`sg3.generate`: pictures from seeds or saved latents."""

from __future__ import annotations

import os
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from sg3.api.checks import number, pair, path_of, refuse, seeds_of, switch, whole
from sg3.api.networks import Network, framed
from sg3.canvas import size_of
from sg3.device import device_for_work
from sg3.errors import UsageError
from sg3.named_paths import Kind, to_read
from sg3.progress import track
from sg3.sampling import class_labels, seed_latents, transformed
from sg3.sampling import generate as pictures_of_latents
from sg3.terminal import say
from sg3.tools.files import without_bars
from sg3.tools.latent_files import pictures_of_files

NOISE_MODES = ("const", "random", "none")


def generate(
    network: Network,
    seeds: Iterable[int] | int | None = None,
    *,
    latents: str | os.PathLike[str] | None = None,
    trunc: float = 1.0,
    class_idx: int | None = None,
    noise_mode: str = "const",
    translate: tuple[float, float] = (0.0, 0.0),
    rotate: float = 0.0,
    bars: bool = False,
    batch: int = 4,
    device: str = "auto",
    graphs: bool = True,
) -> NDArray[np.uint8]:
    """Pictures [N, H, W, C], the pixels that `sg3 generate` writes with the same settings.

    `network`: a run, a file, an address, a published network's name, or what is in memory. `seeds`: one or several; or
    instead `latents`, a file of them (.npz, .npy, .pt). `trunc` is psi of truncation, `translate` in fractions of the
    picture, `rotate` in degrees (StyleGAN3). Black bars that a network was trained between are cut off, unless `bars`.
    `batch` pictures are made at a time, by CUDA graphs on a GPU (`graphs`).

    Raises UsageError for settings that the network does not have, and what `sg3.load` raises.
    """
    if (seeds is None) == (latents is None):
        raise UsageError("generate: give either seeds or latents, the pictures come from them")
    numbers = [] if seeds is None else seeds_of(seeds)
    file = None if latents is None else path_of("latents", latents, "a file: .npz, .npy or .pt", to_read, Kind.FILE)
    trunc, translate, rotate = number("trunc", trunc), pair("translate", translate), number("rotate", rotate)
    class_idx = None if class_idx is None else whole("class_idx", class_idx)
    batch, graphs, bars = whole("batch", batch, least=1), switch("graphs", graphs), switch("bars", bars)
    if noise_mode not in NOISE_MODES:
        refuse("noise_mode", noise_mode, ", ".join(NOISE_MODES))
    G, between = framed(network, device_for_work(device))
    visible = None if bars else between
    with transformed(G, translate, rotate):
        if file is not None:
            moved = translate != (0.0, 0.0) or rotate != 0.0
            ((_, count),), pictures = pictures_of_files(
                G, [file], class_idx=class_idx, truncation_psi=trunc, noise_mode=noise_mode, batch=batch,
                keep_transform=moved, note=lambda note: say(f"note: {note}"),
            )  # fmt: skip
        else:
            count = len(numbers)
            labels = class_labels(G, class_idx, count)
            if not numbers:
                return without_bars(np.empty((*size_of(G), G.img_channels), np.uint8), visible)[np.newaxis][:0]
            pictures = pictures_of_latents(
                G, seed_latents(numbers, G.z_dim), labels, truncation_psi=trunc, noise_mode=noise_mode, batch=batch,
                graphs=graphs,
            )  # fmt: skip
        return np.stack([without_bars(picture, visible) for picture in track(pictures, "images", count)])
