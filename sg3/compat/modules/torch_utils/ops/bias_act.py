"""`torch_utils.ops.bias_act` on `sg3.kernels.bias_act`.

Differences: bfloat16 is fine, second-order gradients exist for every activation's x and b, wrong arguments raise
ValueError or TypeError instead of AssertionError.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from sg3 import kernels
from sg3.compat.modules.dnnlib.util import EasyDict
from sg3.kernels.bias_act.activations import ACTIVATIONS

_plugin = None  # never loaded: see torch_utils.custom_ops


def _entry(name: str, number: int, saved: str, second_order: bool) -> EasyDict:
    activation = ACTIVATIONS[name]

    def func(x: torch.Tensor, alpha: float = activation.alpha, **_: Any) -> torch.Tensor:
        return activation.function(x, alpha)

    return EasyDict(func=func, def_alpha=activation.alpha, def_gain=activation.gain, cuda_idx=number, ref=saved,
                    has_2nd_grad=second_order)  # fmt: skip


# `cuda_idx` counted the original's activations, `ref` told which tensor its backward pass kept.
activation_funcs = {
    name: _entry(name, number, saved, second_order)
    for number, (name, saved, second_order) in enumerate(
        [("linear", "", False), ("relu", "y", False), ("lrelu", "y", False), ("tanh", "y", True),
         ("sigmoid", "y", True), ("elu", "y", True), ("selu", "y", True), ("softplus", "y", True),
         ("swish", "x", True)], start=1,
    )
}  # fmt: skip


def bias_act(
    x: torch.Tensor,
    b: torch.Tensor | None = None,
    dim: int = 1,
    act: str = "linear",
    alpha: float | None = None,
    gain: float | None = None,
    clamp: float | None = None,
    impl: str = "cuda",
) -> torch.Tensor:
    """clamp(gain * act(x + b)); see `sg3.kernels.bias_act`. `impl`: 'cuda' is sg3's best, 'ref' the plain formula."""
    return kernels.bias_act(x, b, dim, act, alpha, gain, clamp, impl=impl)


def _init() -> bool:
    """Whether a plugin was loaded: never, and none is needed."""
    return False


def _bias_act_ref(
    x: torch.Tensor,
    b: torch.Tensor | None = None,
    dim: int = 1,
    act: str = "linear",
    alpha: float | None = None,
    gain: float | None = None,
    clamp: float | None = None,
) -> torch.Tensor:
    return kernels.bias_act(x, b, dim, act, alpha, gain, clamp, impl="ref")


@dataclass(frozen=True)
class _bias_act_cuda:
    """The op with its settings; `apply` takes the tensors."""

    dim: int = 1
    act: str = "linear"
    alpha: float | None = None
    gain: float | None = None
    clamp: float | None = None

    def apply(self, x: torch.Tensor, b: torch.Tensor | None = None) -> torch.Tensor:
        if b is not None and b.numel() == 0:  # stands for no bias where a tensor is expected
            b = None
        return kernels.bias_act(x, b, self.dim, self.act, self.alpha, self.gain, self.clamp)
