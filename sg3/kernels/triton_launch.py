"""What all launchers share: the launch itself, the device's architecture, the types of products."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
import triton
import triton.language as tl

from sg3.kernels.toolchain import prepare_c_compiler

INTERPRETING = bool(triton.knobs.runtime.interpret)

if not INTERPRETING:
    prepare_c_compiler(Path(os.environ.get("SG3_CACHE") or Path.home() / ".cache" / "sg3"))


def launch(kernel: Any, grid: tuple[int, ...], *args: Any, like: torch.Tensor, **options: Any) -> None:
    """Run `kernel` on `like`'s device and that device's current stream. `options` are constexpr arguments, num_warps,
    num_stages and maxnreg. An empty grid is no launch."""
    if 0 in grid:
        return
    with torch.cuda.device_of(like):
        kernel[grid](*args, enable_fp_fusion=True, **options)  # said aloud: the default changes with Triton 3.10


def architecture(x: torch.Tensor) -> int:
    """Compute capability as 80, 90, ...; the interpreter counts as 90."""
    if x.device.type == "cuda":
        major, minor = torch.cuda.get_device_capability(x.device)
        return 10 * major + minor
    if INTERPRETING:
        return 90
    return int(triton.runtime.driver.active.get_current_target().arch)  # ahead-of-time compilation: the target


def operand(dtype: torch.dtype) -> tl.dtype:
    """The type in which products of x's dtype are taken; sums are float32 in any case.

    The interpreter has no bfloat16 arithmetic, so there they are float32.
    """
    if dtype == torch.bfloat16:
        return tl.float32 if INTERPRETING else tl.bfloat16
    return tl.float16 if dtype == torch.float16 else tl.float32


def dot_precision(dtype: torch.dtype) -> str:
    """How tensor cores may treat float32 products; PyTorch's own switch decides.

    `torch.set_float32_matmul_precision`: 'highest' (the default) means exact products without tensor cores, 'high'
    three bfloat16 products (error up to 3e-5), 'medium' tf32 (2e-3).
    """
    if dtype != torch.float32:
        return "ieee"
    return {"highest": "ieee", "high": "bf16x3", "medium": "tf32"}[torch.get_float32_matmul_precision()]
