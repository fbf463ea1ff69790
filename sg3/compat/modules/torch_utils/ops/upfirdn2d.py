"""`torch_utils.ops.upfirdn2d` on `sg3.kernels.upfirdn2d`.

Differences: bfloat16 and numpy integers are fine, a separable filter takes no negative gain, wrong arguments raise
ValueError or TypeError instead of AssertionError.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from sg3 import kernels
from sg3.kernels import setup_filter as setup_filter
from sg3.kernels.arguments import Padding, Scaling, parse_padding, parse_scaling
from sg3.kernels.arguments import filter_size as _get_filter_size  # noqa: F401 - (width, height)

_plugin = None  # never loaded: see torch_utils.custom_ops


def upfirdn2d(
    x: torch.Tensor,
    f: torch.Tensor | None,
    up: Scaling = 1,
    down: Scaling = 1,
    padding: Padding = 0,
    flip_filter: bool = False,
    gain: float = 1,
    impl: str = "cuda",
) -> torch.Tensor:
    """Upsample, pad, filter, downsample; see `sg3.kernels.upfirdn2d`. `impl`: 'cuda' is sg3's best, 'ref' the
    plain formula."""
    return kernels.upfirdn2d(x, f, up, down, padding, flip_filter, gain, impl=impl)


def filter2d(
    x: torch.Tensor,
    f: torch.Tensor | None,
    padding: Padding = 0,
    flip_filter: bool = False,
    gain: float = 1,
    impl: str = "cuda",
) -> torch.Tensor:
    """Filter, keeping the size."""
    return kernels.filter2d(x, f, padding, flip_filter, gain, impl=impl)


def upsample2d(
    x: torch.Tensor,
    f: torch.Tensor | None,
    up: Scaling = 2,
    padding: Padding = 0,
    flip_filter: bool = False,
    gain: float = 1,
    impl: str = "cuda",
) -> torch.Tensor:
    """Upsample by whole factors."""
    return kernels.upsample2d(x, f, up, padding, flip_filter, gain, impl=impl)


def downsample2d(
    x: torch.Tensor,
    f: torch.Tensor | None,
    down: Scaling = 2,
    padding: Padding = 0,
    flip_filter: bool = False,
    gain: float = 1,
    impl: str = "cuda",
) -> torch.Tensor:
    """Downsample by whole factors."""
    return kernels.downsample2d(x, f, down, padding, flip_filter, gain, impl=impl)


def _init() -> bool:
    """Whether a plugin was loaded: never, and none is needed."""
    return False


def _parse_scaling(scaling: Scaling) -> tuple[int, int]:
    return parse_scaling("scaling", scaling)


def _parse_padding(padding: Padding) -> tuple[int, int, int, int]:
    return parse_padding(padding)


def _upfirdn2d_ref(
    x: torch.Tensor,
    f: torch.Tensor | None,
    up: Scaling = 1,
    down: Scaling = 1,
    padding: Padding = 0,
    flip_filter: bool = False,
    gain: float = 1,
) -> torch.Tensor:
    return kernels.upfirdn2d(x, f, up, down, padding, flip_filter, gain, impl="ref")


@dataclass(frozen=True)
class _upfirdn2d_cuda:
    """The op with its settings; `apply` takes the tensors."""

    up: Scaling = 1
    down: Scaling = 1
    padding: Padding = 0
    flip_filter: bool = False
    gain: float = 1

    def apply(self, x: torch.Tensor, f: torch.Tensor | None) -> torch.Tensor:
        return kernels.upfirdn2d(x, f, self.up, self.down, self.padding, self.flip_filter, self.gain)
