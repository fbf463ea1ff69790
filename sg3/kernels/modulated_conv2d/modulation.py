"""What the forms of modulated_conv2d are made of: weights for each sample, or scales of channels before and after.

Modulating the weights of an input channel equals scaling that channel, and demodulation scales output channels:

    y = demodulation * conv(s * x, w)

The second form takes weights of unit norm, which depend on the parameters alone, and scales, which depend on the styles
too. `modulation` gives both: by the formulas below, or by two registered ops that are a kernel each.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

from sg3.kernels.bias_act.activations import clamped
from sg3.kernels.kept import Kept
from sg3.kernels.registration import register


def modulated_weights(
    w: torch.Tensor, s: torch.Tensor, demodulate: bool, input_gain: torch.Tensor | None
) -> torch.Tensor:
    """The weights of each sample, demodulated and times the input gain, [N, O, I, kh, kw]."""
    if demodulate:
        w = w * w.square().mean([1, 2, 3], keepdim=True).rsqrt()
        s = s * s.square().mean().rsqrt()

    weights = w[None] * s[:, None, :, None, None]
    if demodulate:
        weights = weights * (weights.square().sum([2, 3, 4], keepdim=True) + 1e-8).rsqrt()
    if input_gain is not None:
        weights = weights * input_gain.expand(s.shape)[:, None, :, None, None]
    return weights


def conv2d_per_sample(x: torch.Tensor, weights: torch.Tensor, padding: tuple[int, int]) -> torch.Tensor:
    """x [N, I, H, W] with weights [N, O, I, kh, kw], as one convolution with N groups. padding = (y, x)."""
    n, o, i, kh, kw = weights.shape
    x = x.contiguous().reshape(1, n * i, *x.shape[2:])
    x = F.conv2d(x, weights.reshape(n * o, i, kh, kw).to(x.dtype), padding=padding, groups=n)
    return x.reshape(n, o, *x.shape[2:])


def modulation(
    w: torch.Tensor,
    s: torch.Tensor,
    demodulate: bool,
    input_gain: torch.Tensor | None,
    types: tuple[torch.dtype, torch.dtype],
    fused: bool,
    kept: Kept | None,
) -> tuple[torch.Tensor, torch.Tensor, Callable[[], torch.Tensor] | None]:
    """Weights [O, I, kh, kw], and what to scale channels by before [N, I] and after [N, O] the convolution.

    The latter is a function to be called after the convolution: gradients add up in the order of operations, and so
    have a fixed one. `types` are those of the weights and of the scales, which are clamped to what float16 can hold.
    `fused` chooses the ops over the formulas. What depends on w alone is left in `kept`, if given.
    """
    kept = Kept() if kept is None else kept
    if fused:
        return _fused(w, s, demodulate, input_gain, types, kept)
    how = torch.promote_types(w.dtype, s.dtype), types[0], demodulate
    unit, weights = kept.get("weights", (w,), how, lambda: _normalized(w, *how))
    s = s.to(how[0])
    if demodulate:
        s = s * s.square().mean().rsqrt()

    def after() -> torch.Tensor:
        squares = kept.get("squares", (w,), how, lambda: unit.square().sum([2, 3]))
        return fitting((s.square() @ squares.t() + 1e-8 / w[0].numel()).rsqrt(), types[1])

    return weights, fitting(s if input_gain is None else s * input_gain, types[1]), after if demodulate else None


def _normalized(
    w: torch.Tensor, common: torch.dtype, dtype: torch.dtype, demodulate: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights in the styles' type and in `dtype`; where demodulation cancels the factors, of a size that sums cannot
    overflow: half precision must also hold what is not demodulated yet, hence the 1 / fan_in."""
    w = w.to(common)
    if demodulate:
        w = w * (w.square().mean([1, 2, 3], keepdim=True) * w[0].numel()).rsqrt()
    return w, w.to(dtype)


def fitting(scale: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """A scale in `dtype`."""
    if dtype == torch.float16:  # demodulating a style of zeros: 0 * large is 0, 0 * inf is not
        scale = clamped(scale, high=torch.finfo(dtype).max)
    return scale.to(dtype)


def scaled(x: torch.Tensor, scale: torch.Tensor | None) -> torch.Tensor:
    """x [N, C, H, W] times scale [N, C], in x's dtype."""
    return x if scale is None else x * fitting(scale, x.dtype)[:, :, None, None]


# ---- the same as two ops ----
#
#     u = w / |w|                        |w| over an output channel
#     q = sum_k u^2                                                        normalized_weights
#     t = s / sqrt(mean s^2)
#     before = gain * t,  after = (t^2 q^T + eps)^-1/2                     modulation_scales
#
# Their gradients are plain PyTorch, and so have gradients of their own:
#
#     dw = (v - u <u, v>) / |w|          with v = du + 2 u dq
#     dt = gain * dbefore + 2 t * (r q), dq = r^T t^2, dgain = t * dbefore,   r = -after^3 dafter / 2
#     ds = (dt - t mean(t dt)) / sqrt(mean s^2)


def _fused(
    w: torch.Tensor,
    s: torch.Tensor,
    demodulate: bool,
    input_gain: torch.Tensor | None,
    types: tuple[torch.dtype, torch.dtype],
    kept: Kept,
) -> tuple[torch.Tensor, torch.Tensor, Callable[[], torch.Tensor] | None]:
    eps = 1e-8 / w[0].numel()
    if not demodulate:
        weights = kept.get("weights", (w,), types[0], lambda: w.to(types[0]))
        return weights, modulation_scales(s, input_gain, None, types[1], eps)[0], None
    weights, squares = kept.get("weights", (w,), types[0], lambda: normalized_weights(w, types[0]))
    before, after = modulation_scales(s, input_gain, squares, types[1], eps)
    return weights, before, lambda: after


def _normalized_weights(w: torch.Tensor, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    from sg3.kernels.modulated_conv2d import modulation_triton as kernels

    normalized, squares = _normalized_weights_fake(w, dtype)
    kernels.normalize_weights(w, normalized, squares)
    return normalized, squares


def _normalized_weights_fake(w: torch.Tensor, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    return w.new_empty(w.shape, dtype=dtype), w.new_empty(w.shape[:2], dtype=torch.float32)


def _normalized_weights_save(ctx: Any, inputs: tuple[Any, ...], output: object) -> None:
    ctx.save_for_backward(inputs[0])


def _normalized_weights_backward(ctx: Any, du: torch.Tensor, dq: torch.Tensor) -> tuple[torch.Tensor, None]:
    return normalized_weights_gradient(ctx.saved_tensors[0], du, dq), None


def normalized_weights_gradient(w: torch.Tensor, du: torch.Tensor, dq: torch.Tensor) -> torch.Tensor:
    """dw of the formulas above, in float32 or wider, then w's dtype. Differentiable."""
    dtype = torch.promote_types(w.dtype, torch.float32)
    wide = w.to(dtype)
    inverse = wide.square().sum([1, 2, 3], keepdim=True).rsqrt()
    u = wide * inverse
    v = du.to(dtype) + 2 * u * dq[:, :, None, None]
    return ((v - u * (u * v).sum([1, 2, 3], keepdim=True)) * inverse).to(w.dtype)


def _modulation_scales(
    s: torch.Tensor, input_gain: torch.Tensor | None, squares: torch.Tensor | None, dtype: torch.dtype, eps: float
) -> tuple[torch.Tensor, torch.Tensor]:
    from sg3.kernels.modulated_conv2d import modulation_triton as kernels

    before, after = _modulation_scales_fake(s, input_gain, squares, dtype, eps)
    gain = None if input_gain is None else input_gain.expand(s.shape)
    kernels.modulation_scales(s, gain, squares, before, None if squares is None else after, eps)
    return before, after


def _modulation_scales_fake(
    s: torch.Tensor, input_gain: torch.Tensor | None, squares: torch.Tensor | None, dtype: torch.dtype, eps: float
) -> tuple[torch.Tensor, torch.Tensor]:
    after = s.new_empty([0] if squares is None else [s.shape[0], squares.shape[0]], dtype=dtype)
    return s.new_empty(s.shape, dtype=dtype), after


def _modulation_scales_save(ctx: Any, inputs: tuple[Any, ...], output: object) -> None:
    *tensors, ctx.dtype, ctx.eps = inputs
    ctx.save_for_backward(*tensors)


def _modulation_scales_backward(
    ctx: Any, dbefore: torch.Tensor, dafter: torch.Tensor
) -> tuple[torch.Tensor | None, ...]:
    s, gain, squares = ctx.saved_tensors
    need_s, need_gain, need_squares, *_ = ctx.needs_input_grad
    ds, dgain, dq = modulation_scales_gradient(s, gain, squares, dbefore, dafter, ctx.dtype, ctx.eps)
    return ds if need_s else None, dgain if need_gain else None, dq if need_squares else None, None, None


def modulation_scales_gradient(
    s: torch.Tensor,
    gain: torch.Tensor | None,
    squares: torch.Tensor | None,
    dbefore: torch.Tensor,
    dafter: torch.Tensor,
    dtype: torch.dtype,
    eps: float,
) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
    """ds, dgain and dq of the formulas above, in float32 or wider. Differentiable."""
    t = s.to(torch.promote_types(s.dtype, torch.float32))
    dbefore = dbefore.to(t.dtype)
    inverse = None
    if squares is not None:
        inverse = t.square().mean().rsqrt()
        t = t * inverse
    before = t if gain is None else t * gain
    largest = torch.finfo(dtype).max
    dbefore = torch.where(before > largest, 0, dbefore)
    dt = dbefore if gain is None else dbefore * gain
    dgain = None if gain is None else (t * dbefore).sum_to_size(gain.shape).to(gain.dtype)
    if squares is None or inverse is None:
        return dt.to(s.dtype), dgain, None
    after = (t.square() @ squares.t() + eps).rsqrt()
    r = torch.where(after > largest, 0, dafter.to(t.dtype)) * after.pow(3) * -0.5
    dt = dt + 2 * t * (r @ squares)
    return ((dt - t * (t * dt).mean()) * inverse).to(s.dtype), dgain, r.t() @ t.square()


normalized_weights = register(
    "normalized_weights_triton(Tensor w, ScalarType dtype) -> (Tensor, Tensor)",
    _normalized_weights, _normalized_weights_fake, _normalized_weights_save, _normalized_weights_backward,
)  # fmt: skip
modulation_scales = register(
    "modulation_scales_triton(Tensor s, Tensor? input_gain, Tensor? squares, ScalarType dtype, float eps) "
    "-> (Tensor, Tensor)",
    _modulation_scales, _modulation_scales_fake, _modulation_scales_save, _modulation_scales_backward,
)  # fmt: skip
