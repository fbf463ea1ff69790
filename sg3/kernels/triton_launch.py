"""What all launchers share: the launch itself, the device's architecture, the types of products."""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import triton
import triton.language as tl

from sg3.kernels.repeats import Start
from sg3.kernels.toolchain import library_builder

INTERPRETING = bool(triton.knobs.runtime.interpret)

if not INTERPRETING and triton.knobs.build.impl is None:
    triton.knobs.build.impl = library_builder()


class _Notes(threading.local):
    """The list that this thread's launches are also written to, if there is one."""

    starts: list[Start] | None = None


_notes = _Notes()


def launch(
    kernel: Any, grid: tuple[int, ...], *args: Any, like: torch.Tensor, fixed: tuple[torch.Tensor, ...] = (),
    room: tuple[torch.Tensor, ...] = (), **options: Any,
) -> None:  # fmt: skip
    """Run `kernel` on `like`'s device and that device's current stream. `options` are constexpr arguments, num_warps,
    num_stages and maxnreg. An empty grid is no launch. `fixed` are those of the arguments that are the same tensors in
    every call of this kind, `room` those that this launch fills for others of the same call (see repeats.py)."""
    if 0 in grid:
        return
    options["enable_fp_fusion"] = True  # said aloud: the default changes with Triton 3.10
    with torch.cuda.device_of(like):
        kernel[grid](*args, **options)
    if _notes.starts is not None:
        _notes.starts.append(Start(kernel, grid, args, options, fixed, room))


@contextmanager
def noted() -> Iterator[list[Start]]:
    """The launches that this thread makes inside, in order."""
    before, _notes.starts = _notes.starts, []
    try:
        yield _notes.starts
    finally:
        _notes.starts = before


def architecture(device: torch.device) -> int:
    """Compute capability as 80, 90, ...; the interpreter counts as 90."""
    if device.type == "cuda":
        return _capability(device)
    if INTERPRETING:
        return 90
    return int(triton.runtime.driver.active.get_current_target().arch)  # ahead-of-time compilation: the target


@functools.cache
def _capability(device: torch.device) -> int:
    major, minor = torch.cuda.get_device_capability(device)
    return 10 * major + minor


def operand(dtype: torch.dtype) -> tl.dtype:
    """The type in which products of x's dtype are taken; sums are float32 in any case.

    The interpreter has no bfloat16 arithmetic, so there they are float32.
    """
    if dtype == torch.bfloat16:
        return tl.float32 if INTERPRETING else tl.bfloat16
    return tl.float16 if dtype == torch.float16 else tl.float32


def exact_float32() -> bool:
    """Whether SG3_FLOAT32=ieee asks for float32 products one by one, without tensor cores, where they are exact enough
    in half-precision parts. Not to be changed between a call and its gradient."""
    return os.environ.get("SG3_FLOAT32") == "ieee"


def dot_precision(dtype: torch.dtype) -> str:
    """How tensor cores may treat float32 products; PyTorch's own switches decide, as for its matrix products.

    Exact products without tensor cores, unless `torch.backends.cuda.matmul.fp32_precision` says 'tf32', which the older
    switches set as well: then tf32 (error up to 2e-3), or three bfloat16 products (3e-5) after
    `torch.set_float32_matmul_precision('high')`.
    """
    if dtype != torch.float32 or torch.backends.cuda.matmul.fp32_precision != "tf32":
        return "ieee"
    try:
        return "bf16x3" if torch.get_float32_matmul_precision() == "high" else "tf32"
    except RuntimeError:  # it is not to be asked after the newer switch was used
        return "tf32"
