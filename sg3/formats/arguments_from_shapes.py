"""Constructor arguments from the shapes of weights, for files that hold weights and nothing else.

Tensors come under sg3's names. What shapes cannot tell is left at the constructors' defaults, and `networks.build`
checks the result against every shape.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from math import ceil, floor
from typing import Any

import torch

from sg3 import limits

Tensors = Mapping[str, torch.Tensor]
LAYER = re.compile(r"synthesis\.L(\d+)_(\d+)_(\d+)\.")
FIRST_CUTOFF, FIRST_RATE = 2, 16  # StyleGAN3's first layer, by default


def stylegan2_generator(tensors: Tensors) -> dict[str, Any]:
    """Arguments of `stylegan2.Generator` for an image summed over all resolutions ("skip")."""
    resolutions = _resolutions(tensors, r"synthesis\.b(\d+)\.")
    channels = {r: tensors[f"synthesis.b{r}.conv1.weight"].shape[0] for r in resolutions}
    resolution = max(channels)
    return {
        **_mapping(tensors),
        "img_resolution": resolution,
        "img_channels": tensors[f"synthesis.b{resolution}.torgb.weight"].shape[0],
        **_channel_limits(channels),
    }


def stylegan2_discriminator(tensors: Tensors) -> dict[str, Any]:
    """Arguments of the unconditional residual `stylegan2.Discriminator`."""
    resolutions = _resolutions(tensors, r"b(\d+)\.")
    channels = {r // 2: tensors[f"b{r}.conv1.weight"].shape[0] for r in resolutions if r > 4}
    top = max(resolutions)
    channels[top] = tensors[f"b{top}.fromrgb.weight"].shape[0]
    return {
        "c_dim": 0,
        "img_resolution": top,
        "img_channels": tensors[f"b{top}.fromrgb.weight"].shape[1],
        "epilogue_kwargs": {"mbstd_num_channels": tensors["b4.conv.weight"].shape[1] - channels[4]},
        **_channel_limits(channels),
    }


def stylegan3_generator(tensors: Tensors) -> dict[str, Any]:
    """Arguments of `stylegan3.Generator`, configuration T or R, from its weights and layer names.

    Raises ValueError if layers are missing or do not fit together; KeyError and others if weights are missing.
    """
    layers = sorted({tuple(map(int, found.groups())) for name in tensors if (found := LAYER.match(name))})
    if len(layers) < 4 or [index for index, *_ in layers] != list(range(len(layers))):
        raise ValueError("layers are missing")
    num_layers = len(layers) - 1
    resolution = layers[-1][1]
    prefixes = [f"synthesis.L{i}_{size}_{channels}" for i, size, channels in layers]
    cutoffs = [
        FIRST_CUTOFF * (resolution / 2 / FIRST_CUTOFF) ** min(i / (num_layers - 2), 1.0) for i in range(num_layers)
    ]
    widths = [channels for _, _, channels in layers[:-1]]
    taps = [tensors[f"{p}.up_filter"].shape[0] for p in prefixes if f"{p}.up_filter" in tensors]
    down = [tensors[f"{p}.down_filter"] for p in prefixes if f"{p}.down_filter" in tensors]
    # Each layer narrows down what base can be.
    most = max(widths)

    def expected(base: int) -> list[int]:
        return [round(min(base / 2 / cutoff, most)) for cutoff in cutoffs]

    low = max((width - 0.5) * 2 * cutoff for width, cutoff in zip(widths, cutoffs, strict=True))
    high = min([(w + 0.5) * 2 * c for w, c in zip(widths, cutoffs, strict=True) if w < most], default=2 * low)
    base = next((base for base in _round_numbers(low, high) if widths == expected(base)), None)
    if base is None:
        raise ValueError("no channel_base gives these numbers of channels")
    return {
        **_mapping(tensors),
        "img_resolution": resolution,
        "img_channels": layers[-1][2],
        "channel_base": base,
        "channel_max": most,
        "num_layers": num_layers,
        "margin_size": (layers[0][1] - FIRST_RATE) // 2,
        "conv_kernel": tensors[f"{prefixes[0]}.weight"].shape[2],
        "filter_size": min(taps) // 2,  # taps per factor of upsampling, which is 2 at least
        "use_radial_filters": any(f.ndim == 2 for f in down),
    }


def blur_taps(kernel: torch.Tensor) -> list[float] | None:
    """The 1-D filter [n] whose outer product a blur kernel [n, n] is, as `resample_filter`; None for the usual one.

    Kernels are kept multiplied by a power of two (the gain of upsampling), which is left out. Raises ValueError if it
    is no such kernel.
    """
    if kernel.ndim < 2 or kernel.numel() > limits.TAPS**2:
        raise ValueError(f"a blur kernel of shape {list(kernel.shape)}")
    row = kernel.double().reshape(-1, kernel.shape[-1]).sum(dim=0)
    row = row / row.sum()
    usual = torch.tensor([1.0, 3.0, 3.0, 1.0], dtype=torch.float64) / 8
    if row.shape == usual.shape and torch.allclose(row, usual, atol=1e-6):
        return None
    return [round(value, 7) for value in row.tolist()]


def _mapping(tensors: Tensors) -> dict[str, Any]:
    depth = len({name.split(".")[1] for name in tensors if re.match(r"mapping\.fc\d+\.", name)})
    w_dim = tensors[f"mapping.fc{depth - 1}.weight"].shape[0]
    embed = tensors.get("mapping.embed.weight")
    z_dim = tensors["mapping.fc0.weight"].shape[1] - (0 if embed is None else embed.shape[0])
    c_dim = 0 if embed is None else embed.shape[1]
    return {"z_dim": z_dim, "c_dim": c_dim, "w_dim": w_dim, "mapping_kwargs": {"num_layers": depth}}


def _resolutions(tensors: Tensors, pattern: str) -> list[int]:
    return sorted({int(found[1]) for name in tensors if (found := re.match(pattern, name))})


def _channel_limits(channels: Mapping[int, int]) -> dict[str, Any]:
    """channel_base and channel_max such that channels = min(channel_base // resolution, channel_max)."""
    most = max(channels.values())
    low = max(count * resolution for resolution, count in channels.items())
    high = min((count * res + res - 1 for res, count in channels.items() if count < most), default=2 * low)
    return {"channel_base": next(_round_numbers(low, high)), "channel_max": most}


def _round_numbers(low: float, high: float) -> Iterator[int]:
    """Integers from low to high, those that many powers of two divide first; four at most for each power."""
    first, last = ceil(low), floor(high)
    step = 1 << max(last, 1).bit_length()
    while step:
        start = -(-first // step) * step
        yield from range(start, min(last, start + 3 * step) + 1, step)
        step //= 2
