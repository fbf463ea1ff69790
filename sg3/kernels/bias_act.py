"""bias_act: add a bias per channel, apply an activation, scale, clamp.

    y = clamp(gain * act(x + b), -clamp, +clamp)

Nine activations; the default gain keeps the variance of a unit normal input roughly constant.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import sqrt

import torch
import torch.nn.functional as F

from sg3.kernels.arguments import check_bias
from sg3.kernels.dispatch import resolve


@dataclass(frozen=True)
class Activation:
    """An activation function, its default slope parameter and its default gain."""

    function: Callable[[torch.Tensor, float], torch.Tensor]
    alpha: float
    gain: float


ACTIVATIONS: dict[str, Activation] = {
    "linear": Activation(lambda x, _: x, 0.0, 1.0),
    "relu": Activation(lambda x, _: F.relu(x), 0.0, sqrt(2)),
    "lrelu": Activation(lambda x, alpha: F.leaky_relu(x, alpha), 0.2, sqrt(2)),
    "tanh": Activation(lambda x, _: torch.tanh(x), 0.0, 1.0),
    "sigmoid": Activation(lambda x, _: torch.sigmoid(x), 0.0, 1.0),
    "elu": Activation(lambda x, _: F.elu(x), 0.0, 1.0),
    "selu": Activation(lambda x, _: F.selu(x), 0.0, 1.0),
    "softplus": Activation(lambda x, _: F.softplus(x), 0.0, 1.0),
    "swish": Activation(lambda x, _: torch.sigmoid(x) * x, 0.0, sqrt(2)),
}


def bias_act(
    x: torch.Tensor,
    b: torch.Tensor | None = None,
    dim: int = 1,
    act: str = "linear",
    alpha: float | None = None,
    gain: float | None = None,
    clamp: float | None = None,
    impl: str = "auto",
) -> torch.Tensor:
    """clamp(gain * act(x + b)).

    `x` is a floating-point tensor of any shape with at least one dimension; `b`, if given, is [x.shape[dim]] of the
    same dtype and device, broadcast along `dim`. `alpha` (the slope of lrelu) and `gain` default to the activation's
    own values (see `ACTIVATIONS`); `clamp` is off if None. First- and second-order gradients for x and b.

    Returns a tensor of x's shape and dtype. Raises TypeError or ValueError naming the argument that does not fit.
    """
    if not isinstance(x, torch.Tensor) or not x.is_floating_point():
        got = f"dtype {x.dtype}" if isinstance(x, torch.Tensor) else type(x).__name__
        raise TypeError(f"x: got {got}, expected a floating-point tensor")
    if not 0 <= dim < x.ndim:
        raise ValueError(f"dim: got {dim}, expected 0 <= dim < {x.ndim} for x of shape {list(x.shape)}")
    if act not in ACTIVATIONS:
        raise ValueError(f"act: got {act!r}, expected one of {', '.join(ACTIVATIONS)}")
    if b is not None:
        check_bias(b, x.shape[dim], like=x)
    if clamp is not None and not clamp >= 0:
        raise ValueError(f"clamp: got {clamp}, expected None or a number >= 0")

    resolve("bias_act", impl, x.device)
    spec = ACTIVATIONS[act]
    return bias_act_ref(
        x, b, dim, act, spec.alpha if alpha is None else alpha, spec.gain if gain is None else gain, clamp
    )


def bias_act_ref(
    x: torch.Tensor,
    b: torch.Tensor | None,
    dim: int,
    act: str,
    alpha: float,
    gain: float,
    clamp: float | None,
) -> torch.Tensor:
    """The formula, one step per line."""
    if b is not None:
        x = x + b.reshape([-1 if i == dim else 1 for i in range(x.ndim)])
    x = ACTIVATIONS[act].function(x, alpha)
    if gain != 1:
        x = x * gain
    if clamp is not None:
        x = x.clamp(-clamp, clamp)
    return x
