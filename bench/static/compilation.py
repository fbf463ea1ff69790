"""Compiles the kernels that a piece of production code launches, for a GPU that is not there.

The code runs as it would on a GPU, on CPU tensors, under `recorded`: launches are written down and not carried out.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from triton.runtime import driver
from triton.runtime.jit import JITFunction

from sg3.kernels.triton_aot import Target
from sg3.kernels.triton_launch import INTERPRETING

_run = JITFunction.run


@dataclass(frozen=True)
class Launch:
    """One launch of a Triton kernel."""

    kernel: Any
    arguments: tuple[Any, ...]
    options: dict[str, Any]
    grid: tuple[int, ...]

    @property
    def programs(self) -> int:
        return prod(self.grid)

    @property
    def bytes(self) -> int:
        """Size of all tensors that it reads or writes, each once."""
        tensors = {t.data_ptr(): t for t in self.arguments if isinstance(t, torch.Tensor)}
        return sum(t.numel() * t.element_size() for t in tensors.values())

    def compile(self, arch: int) -> Any:
        """Triton's compiled kernel: `.asm['cubin']`, `.metadata.num_warps`, `.metadata.shared`."""
        driver.set_active(Target(arch))
        return _run(self.kernel, *self.arguments, grid=self.grid, warmup=True, **self.options)


@contextmanager
def recorded(arch: int) -> Iterator[list[Launch]]:
    """Launches inside are appended to the list instead of carried out; `arch` is what production code sees.

    Raises RuntimeError in the interpreter, which has taken the kernels' place.
    """
    if INTERPRETING:
        raise RuntimeError("TRITON_INTERPRET is set: kernels are interpreted and cannot be compiled; unset it")
    launches: list[Launch] = []

    def note(self: Any, *args: Any, grid: Any, warmup: bool, **options: Any) -> None:
        launches.append(Launch(self, args, options, grid))

    driver.set_active(Target(arch))
    JITFunction.run = note
    try:
        yield launches
    finally:
        JITFunction.run = _run
