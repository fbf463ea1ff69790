"""The activation functions of `activations` and their derivatives for Triton kernels, on tiles of float32.

No libdevice, and nothing that subtracts nearly equal numbers: all is exact to a few units in the last place near 0 as
well as far out. exp(-|u|) never overflows.
"""

from __future__ import annotations

import triton
import triton.language as tl

SELU_SCALE: tl.constexpr = tl.constexpr(1.0507009873554804934193349852946)
SELU_ALPHA: tl.constexpr = tl.constexpr(1.6732632423543772848170429916717)


@triton.jit
def activation(u, alpha, ACT: tl.constexpr):
    """act(u); u itself if it is linear."""
    if ACT == "relu":
        u = tl.where(u <= 0, 0.0, u)
    elif ACT == "lrelu":
        u = tl.where(u > 0, u, u * alpha)
    elif ACT == "tanh":
        u = _tanh(u)
    elif ACT == "sigmoid":
        u = tl.sigmoid(u)
    elif ACT == "elu":
        u = tl.where(u > 0, u, _expm1_of_negative(u))
    elif ACT == "selu":
        u = SELU_SCALE * tl.where(u > 0, u, SELU_ALPHA * _expm1_of_negative(u))
    elif ACT == "softplus":
        u = tl.where(u > 0, u, 0.0) + _log1p_of_exp(-tl.abs(u))
    elif ACT == "swish":
        u = u * tl.sigmoid(u)
    return u


@triton.jit
def derivative(u, ACT: tl.constexpr):
    """act'(u) of the smooth ones."""
    if ACT == "tanh":
        d = 4 * _bell(2 * u)
    elif ACT == "sigmoid":
        d = _bell(u)
    elif ACT == "elu":
        d = tl.where(u <= 0, tl.exp(u), 1.0)
    elif ACT == "selu":
        d = SELU_SCALE * tl.where(u <= 0, SELU_ALPHA * tl.exp(u), 1.0)
    elif ACT == "softplus":
        d = tl.sigmoid(u)
    elif ACT == "swish":
        d = tl.sigmoid(u) + u * _bell(u)
    return d


@triton.jit
def second_derivative(u, ACT: tl.constexpr):
    """act''(u) of the smooth ones."""
    if ACT == "tanh":
        d = -8 * _tanh(u) * _bell(2 * u)
    elif ACT == "sigmoid":
        d = -_tanh(u / 2) * _bell(u)
    elif ACT == "elu":
        d = tl.where(u < 0, tl.exp(u), 0.0)
    elif ACT == "selu":
        d = tl.where(u < 0, SELU_SCALE * SELU_ALPHA * tl.exp(u), 0.0)
    elif ACT == "softplus":
        d = _bell(u)
    elif ACT == "swish":
        d = _bell(u) * (2 - u * _tanh(u / 2))
    return d


@triton.jit
def _bell(u):
    """sigmoid(u) * (1 - sigmoid(u))"""
    e = tl.exp(-tl.abs(u))
    return e / ((1 + e) * (1 + e))


@triton.jit
def _expm1_of_negative(u):
    """exp(u) - 1 for u <= 0, and 0 above: Taylor's series of degree 8 where the two are close."""
    u = tl.where(u > 0, 0.0, u)
    series = 1 + u / 8
    series = 1 + u / 7 * series
    series = 1 + u / 6 * series
    series = 1 + u / 5 * series
    series = 1 + u / 4 * series
    series = 1 + u / 3 * series
    series = 1 + u / 2 * series
    return tl.where(u > -0.4, u * series, tl.exp(u) - 1)


@triton.jit
def _tanh(u):
    m = _expm1_of_negative(-2 * tl.abs(u))
    magnitude = -m / (2 + m)
    return tl.where(u < 0, -magnitude, magnitude)


@triton.jit
def _log1p_of_exp(u):
    """log(1 + exp(u)) for u <= 0, as 2 artanh(s) with s = z / (2 + z) <= 1/3."""
    z = tl.exp(u)
    s = z / (2 + z)
    q = s * s
    series = 1.0 / 13 + q / 15
    series = 1.0 / 11 + q * series
    series = 1.0 / 9 + q * series
    series = 1.0 / 7 + q * series
    series = 1.0 / 5 + q * series
    series = 1.0 / 3 + q * series
    return 2 * s * (1 + q * series)
