"""Working with w: samples of it, the layers that its copies go to, and pictures of it.

A generator takes ws [N, num_ws, w_dim], one copy of w for each layer. Tools address the copies by index (`0-6`), by the
name of the layer that takes them (`L5_148_512`, `b8.conv0`), or by how fine the details are that the layer can draw
(`coarse`, `middle`, `fine`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np
import torch

from sg3.errors import UsageError
from sg3.models import StyleGenerator, stylegan2
from sg3.sampling import to_uint8
from sg3.tools.files import Pixels

# Largest band limit of a group, in cycles per image: StyleGAN's resolutions up to 8, up to 32, and above (Karras et
# al. 2019, Section 3.1), which are band limits of 4 and 16, carried over to StyleGAN3's layers.
GROUPS = {"coarse": (0.0, 4.0), "middle": (4.0, 16.0), "fine": (16.0, float("inf"))}


def layer_names(G: StyleGenerator) -> list[str]:
    """Name of the layer that takes each of the num_ws copies of w.

    StyleGAN2's ToRGB layers share the copy of the next layer; only the last has one of its own.
    """
    if not isinstance(G, stylegan2.Generator):
        return ["input", *G.synthesis.layer_names]
    names = []
    for res in G.synthesis.block_resolutions:
        names += [f"b{res}.conv{i}" for i in range(2) if hasattr(getattr(G.synthesis, f"b{res}"), f"conv{i}")]
    return [*names, f"b{G.img_resolution}.torgb"]


def band_limits(G: StyleGenerator) -> list[float]:
    """Finest frequency that each of these layers can draw, in cycles per image."""
    if isinstance(G, stylegan2.Generator):
        return [int(name[1:].split(".")[0]) / 2 for name in layer_names(G)]
    layers = [getattr(G.synthesis, name) for name in G.synthesis.layer_names]
    return [G.synthesis.input.bandwidth, *(layer.spec.out_cutoff for layer in layers)]


def choose_layers(G: StyleGenerator, text: str, option: str = "--styles") -> list[int]:
    """Indices, ascending, of the copies of w that `text` names.

    It is a list such as `0-3,5`, `L5_148_512` or `L5` for short, `b8.conv0`, `coarse` or `all`. Raises
    UsageError, starting with `option`, for what this network does not have.
    """
    names = layer_names(G)
    chosen: set[int] = set()
    for part in (part.strip() for part in text.split(",")):
        by_name = [i for i, name in enumerate(names) if part in (name, name.split("_")[0])]
        if match := re.fullmatch(r"(\d{1,9})(?:-(\d{1,9}))?", part):
            first, last = int(match[1]), int(match[2] or match[1])
            if not first <= last < len(names):
                raise UsageError(f"{option}={text}: {part} is not within this network's layers, 0 to {len(names) - 1}")
            chosen.update(range(first, last + 1))
        elif part == "all":
            chosen.update(range(len(names)))
        elif part in GROUPS:
            low, high = GROUPS[part]
            group = [i for i, limit in enumerate(band_limits(G)) if low < limit <= high]
            if not group:
                raise UsageError(f"{option}={text}: this network of {G.img_resolution} pixels has no {part} layers")
            chosen.update(group)
        elif by_name:
            chosen.update(by_name)
        else:
            raise UsageError(f"{option}={text}: {part!r} is no layer of this network; choose from 0-{len(names) - 1}, "
                             f"coarse, middle, fine, all, {', '.join(names)}")
    return sorted(chosen)


@torch.no_grad()
def sample_w(G: StyleGenerator, label: torch.Tensor, count: int = 10_000, seed: int = 123) -> torch.Tensor:
    """Random w [count, w_dim], float32 on G's device, for one label [1, c_dim]; from the same z on every device."""
    device = next(G.parameters()).device
    rng = np.random.RandomState(seed)
    parts = []
    for start in range(0, count, 1000):
        z = torch.from_numpy(rng.randn(min(1000, count - start), G.z_dim))
        c = label.expand(len(z), -1)
        parts.append(G.mapping(z.to(device), c.to(device))[:, 0])
    return torch.cat(parts)


@torch.no_grad()
def render(G: StyleGenerator, ws: torch.Tensor, *, noise_mode: str = "const", batch: int = 4) -> Iterator[Pixels]:
    """Yield the uint8 picture [H, W, C] of each of ws [N, num_ws, w_dim], `batch` at a time, on G's device."""
    device = next(G.parameters()).device
    for part in ws.split(batch):
        yield from to_uint8(G.synthesis(part.to(device), noise_mode=noise_mode))
