"""`torch_utils.ops.filtered_lrelu` on `sg3.kernels.filtered_lrelu`.

Differences: bfloat16 is fine, no combination of factors and filters falls back to a slow path with a warning, neither
strides nor streams matter, wrong arguments raise ValueError or TypeError instead of AssertionError.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

import torch

from sg3 import kernels
from sg3.kernels.arguments import Padding

_plugin = None  # never loaded: see torch_utils.custom_ops


def filtered_lrelu(
    x: torch.Tensor,
    fu: torch.Tensor | None = None,
    fd: torch.Tensor | None = None,
    b: torch.Tensor | None = None,
    up: int = 1,
    down: int = 1,
    padding: Padding = 0,
    gain: float = sqrt(2),
    slope: float = 0.2,
    clamp: float | None = None,
    flip_filter: bool = False,
    impl: str = "cuda",
) -> torch.Tensor:
    """Upsample, leaky ReLU, downsample; see `sg3.kernels.filtered_lrelu`. `impl`: 'cuda' is sg3's best, 'ref' the
    plain formula."""
    return kernels.filtered_lrelu(x, fu, fd, b, up, down, padding, gain, slope, clamp, flip_filter, impl=impl)


def _init() -> bool:
    """Whether a plugin was loaded: never, and none is needed."""
    return False


def _filtered_lrelu_ref(
    x: torch.Tensor,
    fu: torch.Tensor | None = None,
    fd: torch.Tensor | None = None,
    b: torch.Tensor | None = None,
    up: int = 1,
    down: int = 1,
    padding: Padding = 0,
    gain: float = sqrt(2),
    slope: float = 0.2,
    clamp: float | None = None,
    flip_filter: bool = False,
) -> torch.Tensor:
    return kernels.filtered_lrelu(x, fu, fd, b, up, down, padding, gain, slope, clamp, flip_filter, impl="ref")


@dataclass(frozen=True)
class _filtered_lrelu_cuda:
    """The op with its settings; `apply` takes the tensors. The sign plane that it could be given, to run as its own
    backward pass, is private to sg3's kernels."""

    up: int = 1
    down: int = 1
    padding: Padding = 0
    gain: float = sqrt(2)
    slope: float = 0.2
    clamp: float | None = None
    flip_filter: bool = False

    def apply(
        self,
        x: torch.Tensor,
        fu: torch.Tensor | None,
        fd: torch.Tensor | None,
        b: torch.Tensor | None,
        si: torch.Tensor | None = None,
        sx: int = 0,
        sy: int = 0,
    ) -> torch.Tensor:
        """Raises NotImplementedError for a sign plane `si`."""
        if si is not None and si.numel():
            raise NotImplementedError("filtered_lrelu: sg3 takes no sign plane; differentiate the op with autograd")
        return kernels.filtered_lrelu(x, fu, fd, b, self.up, self.down, self.padding, self.gain, self.slope,
                                      self.clamp, self.flip_filter)  # fmt: skip
