"""How often drag editing gets where it should: `python -m bench.drag --network=NET`.

For each seed a handle at a place with structure is dragged by a twentieth of the picture's width. A step of the same
length in a random direction of the same copies of w is what there is to beat.
"""

from __future__ import annotations

import argparse
import json
import time
from math import cos, pi, sin
from typing import Any

import numpy as np
import torch

import sg3
from sg3.device import choose_device
from sg3.formats import style_generator
from sg3.sampling import class_labels, seed_latents
from sg3.terminal import show
from sg3.tools import drag

DISTANCE = 0.05  # of the width
REGION = 0.2  # of the width: half the side of the square that may move


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", required=True)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--trunc", type=float, default=0.7)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--iterations", type=int, default=150)
    parser.add_argument("--layer")
    parser.add_argument("--class", dest="class_idx", type=int)
    parser.add_argument("--mask", action="store_true", help="only a square around the handle may move")
    parser.add_argument("--mask-weight", type=float, default=drag.Settings.mask_weight)
    options = parser.parse_args()
    G = style_generator(sg3.load(options.network, choose_device("auto")), options.network)
    settings = drag.Settings(lr=options.lr, iterations=options.iterations, layer=options.layer,
                             mask_weight=options.mask_weight)  # fmt: skip
    rows = [one(G, seed, options, settings) for seed in range(options.seeds)]

    def mean(name: str) -> float:
        return round(float(np.mean([row[name] for row in rows])), 3)

    show(json.dumps({
        "network": options.network.rpartition("/")[2], "layer": drag.feature_layer(G, options.layer).name,
        "seeds": options.seeds, "pixels": round(DISTANCE * G.img_resolution, 2), "mask": options.mask, "lr": options.lr,
        "mask_weight": options.mask_weight,
        "reached": mean("reached"), "distance": mean("distance"), "iterations": mean("iterations"),
        "ms_per_iteration": mean("ms"), "change_outside": mean("outside"), "random_distance": mean("random"),
    }, indent=2))  # fmt: skip


def one(G: Any, seed: int, options: argparse.Namespace, settings: drag.Settings) -> dict[str, float]:
    """One seed."""
    device = next(G.parameters()).device
    size = G.img_resolution
    rng = np.random.RandomState(seed)
    with torch.no_grad():
        labels = class_labels(G, options.class_idx, 1).to(device)
        ws = G.mapping(seed_latents([seed], G.z_dim).to(device), labels, truncation_psi=options.trunc)
        before = G.synthesis(ws, noise_mode="const", force_fp32=True)
    handle = structured(before[0])
    angle = rng.uniform(0, 2 * pi)
    target = tuple(float(np.clip(c + DISTANCE * size * d, 0, size - 1))
                   for c, d in zip(handle, (cos(angle), sin(angle)), strict=True))  # fmt: skip
    inside = np.zeros((size, size), bool)
    x, y, reach = *handle, round(REGION * size)
    inside[max(y - reach, 0) : y + reach, max(x - reach, 0) : x + reach] = True
    edit = drag.start(G, ws, [handle], [target], inside if options.mask else None, settings)
    far = edit.distances()[0]
    began = time.perf_counter()
    while edit.step():
        pass
    seconds = time.perf_counter() - began
    with torch.no_grad():
        after = G.synthesis(edit.ws, noise_mode="const", force_fp32=True)
        step = torch.randn(ws.shape, generator=torch.Generator().manual_seed(seed)).to(device)
        step *= (edit.ws != ws).any(dim=2, keepdim=True)
        step *= (edit.ws - ws).norm() / step.norm().clamp(min=1e-9)
        other = drag.start(G, ws, [handle], [target], None, settings)
        other.handles = other._track(other.layer.run(ws + step))
    outside = torch.from_numpy(~inside).to(device)
    return {
        "reached": float(edit.distances()[0] <= edit.stop), "distance": edit.distances()[0] / far,
        "iterations": edit.iteration, "ms": 1e3 * seconds / max(edit.iteration, 1),
        "outside": float((after - before).abs().mean(dim=(0, 1))[outside].mean()),
        "random": other.distances()[0] / far,
    }  # fmt: skip


def structured(image: torch.Tensor) -> tuple[int, int]:
    """The place, a quarter from the borders at least, around which a picture [C, R, R] varies most."""
    size = image.shape[1]
    side = max(3, size // 16) | 1
    mean = torch.nn.functional.avg_pool2d(image, side, 1, side // 2)
    spread = (torch.nn.functional.avg_pool2d(image**2, side, 1, side // 2) - mean**2).sum(dim=0)
    quarter = size // 4
    inner = spread[quarter:-quarter, quarter:-quarter]
    y, x = divmod(int(inner.argmax()), inner.shape[1])
    return x + quarter, y + quarter


if __name__ == "__main__":
    main()
