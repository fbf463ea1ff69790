"""filtered_lrelu in one kernel, one of four: programs that march down a plane, of two kinds, tiles, and pointwise.

StyleGAN3's layers march (`marching.py`, and, where that has no room, `symmetric.py`), but the last one, which has no
filters (`pointwise.py`); tiles (`tiles.py`) take what is left, any filters up to 32 taps. Which it is depends on
factors, filters, paddings, dtype and the kind of GPU alone, and not on which of the two filters comes first, so that a
call and its gradients agree on how signs are kept.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch

from sg3.kernels.filtered_lrelu import marching, pointwise, symmetric, tiles
from sg3.kernels.filtered_lrelu.geometry import MARCHING, Resampling, middle_size
from sg3.kernels.filtered_lrelu.marching_plan import Pointwise
from sg3.kernels.fir import design_lowpass_filter
from sg3.kernels.triton_launch import exact_float32


def forward(
    x: torch.Tensor,
    b: torch.Tensor | None,
    y: torch.Tensor,
    signs: torch.Tensor | None,
    fu: torch.Tensor | None,
    fd: torch.Tensor | None,
    resampling: Resampling,
    gain: float,
    slope: float,
    clamp: float | None,
) -> None:
    """Fill y [N, C, OH, OW] from x [N, C, H, W], both of any strides.

    `signs`, uint8, of the size that geometry.py says, are written, if they are not None.
    """
    _run(x, b, y, signs, middle_size(y.shape[2:], fd, resampling.down), False, fu, fd, resampling, gain, slope, clamp)


def grad(
    g: torch.Tensor,
    y: torch.Tensor,
    signs: torch.Tensor,
    x: None,
    b: None,
    fu: torch.Tensor | None,
    fd: torch.Tensor | None,
    resampling: Resampling,
    gain: float,
    slope: float,
    clamp: float | None,
    transposed: bool,
) -> None:
    """Fill y from g; the signs are read instead of bending the signal."""
    kept_of, f, factor = (g, fu, resampling.up) if transposed else (y, fd, resampling.down)
    middle = middle_size(kept_of.shape[2:], f, factor)
    _run(g, None, y, signs.contiguous(), middle, True, fu, fd, resampling.balanced(), gain, slope, clamp)


def _run(
    x: torch.Tensor, b: torch.Tensor | None, y: torch.Tensor, signs: torch.Tensor | None, middle: tuple[int, int],
    read: bool, fu: torch.Tensor | None, fd: torch.Tensor | None, resampling: Resampling, gain: float, slope: float,
    clamp: float | None,
) -> None:  # fmt: skip
    if max(x.stride()[2:]) >= 2**23:  # offsets within a strip or a tile are 32 bit
        x = x.contiguous()
    if pointwise.applies(x, y, fu, fd, resampling):
        pointwise.POINTWISE(x, b, y, signs, read, resampling, gain, slope, clamp)
        return
    if x.dtype != torch.float32 or not exact_float32():
        between = Pointwise(gain, slope, signs is not None and not read, read)
        rest = y, signs, middle, clamp, fu, fd, resampling, between
        plan = marching.plans.get(fu, fd, resampling, between, x.dtype, x.device)
        if plan is not None:
            marching.MARCH(x, plan, b, *rest)
            return
        symmetric_plan = symmetric.plans.get(fu, fd, resampling, between, x.dtype, x.device)
        if symmetric_plan is not None:
            symmetric.SYMMETRIC(x, symmetric_plan, b, *rest)
            return
    tiles.TILES(x, b, y, signs, middle, read, fu, fd, resampling, gain, slope, clamp)


# The classes of StyleGAN3's layers and of their gradients: up, its taps, down, its taps (0: none, negative: radial);
# then one for each row of the table that these do not reach.
LAYERS = {
    "1->1": (1, 0, 1, 0), "2->2": (2, 12, 2, 12), "4->2": (4, 24, 2, 12),
    "2->2 radial": (2, 12, 2, -12), "4->2 radial": (4, 24, 2, -12),
}  # fmt: skip
GRADIENTS = {"2->4": (2, 12, 4, 24), "2 radial->2": (2, -12, 2, 12), "2 radial->4": (2, -12, 4, 24)}
OTHERS = {"3->3": (3, 18, 3, 18), "1->1 long": (1, 32, 1, 32), "1->1 padded": (1, 0, 1, 0)}


def compile_cases() -> Iterator[tuple[str, Callable[[], None]]]:
    """Names and launches of every class in every type and mode, for ahead-of-time compilation."""
    for dtype in (torch.float16, torch.bfloat16, torch.float32):
        for precision in ("highest", "ieee", "high", "medium") if dtype == torch.float32 else ("highest",):
            kind = str(dtype).removeprefix("torch.")
            if precision != "highest":
                kind += {"ieee": " ieee", "high": " bf16x3", "medium": " tf32"}[precision]
            for name, (up, up_taps, down, down_taps) in {**LAYERS, **GRADIENTS, **OTHERS}.items():
                if precision == "ieee" and (up, down) not in MARCHING:  # those are the same without it
                    continue
                fu, fd = (_test_filter(taps) for taps in (up_taps, down_taps))
                padding = (0, 0) if name == "1->1" else (9, 9)  # without it, samples are taken one by one
                resampling = Resampling(up, down, padding, (0, 0), (up**2, 1), False)
                for mode in ("grad",) if name in GRADIENTS else ("plain", "with signs", "grad"):
                    run = partial(_compile, dtype, precision, mode, fu, fd, resampling)
                    yield f"filtered_lrelu/{name}/{kind}/{mode}", run


def _compile(
    dtype: torch.dtype, precision: str, mode: str, fu: torch.Tensor | None, fd: torch.Tensor | None,
    resampling: Resampling,
) -> None:  # fmt: skip
    x, y = torch.empty(1, 2, 36, 36, dtype=dtype), torch.empty(1, 2, 36, 36, dtype=dtype)
    signs = None if mode == "plain" else torch.empty(1, 2, 150, 600, dtype=torch.uint8)
    with _precision(precision):
        if signs is not None and mode == "grad":
            grad(x, y, signs, None, None, fu, fd, resampling, 1.0, 0.2, 256.0, transposed=True)
        else:
            forward(x, torch.empty(2, dtype=dtype), y, signs, fu, fd, resampling, 1.0, 0.2, 256.0)


@contextmanager
def _precision(name: str) -> Iterator[None]:
    """PyTorch's switch for float32 products, or 'ieee', which is ours."""
    before, ours = torch.get_float32_matmul_precision(), os.environ.pop("SG3_FLOAT32", None)
    if name == "ieee":
        os.environ["SG3_FLOAT32"] = name
    else:
        torch.set_float32_matmul_precision(name)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
        os.environ.pop("SG3_FLOAT32", None)
        if ours is not None:
            os.environ["SG3_FLOAT32"] = ours


def _test_filter(taps: int) -> torch.Tensor | None:
    if taps == 0:
        return None
    return design_lowpass_filter(abs(taps), cutoff=8, width=16, fs=64, radial=taps < 0)
