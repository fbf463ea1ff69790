"""modulated_conv2d: convolution whose input channels are scaled per sample by a style (Karras et al. 2020, Eq. 1-3).

    w'[n,o,i] = s[n,i] * w[o,i]                            modulate
    w"[n,o]   = w'[n,o] / sqrt(sum_i,k w'[n,o,i,k]^2 + eps)  demodulate: unit gain for unit-variance input
    y[n,o]    = sum_i conv(x[n,i], input_gain[i] * w"[n,o,i])

This is StyleGAN3's form, in which weights and styles are also normalised beforehand, so that nothing overflows in
half precision; demodulation cancels both factors (up to eps). The style's factor spans the whole batch.

docs/memory-formats.md compares the two fast forms, and NCHW with channels_last. No GPU has timed Triton's yet, so
`auto` takes cuDNN's convolution between two scales.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch.nn.grad import conv2d_weight

from sg3.kernels.arguments import Padding, check_floating, check_image, no_autocast, parse_padding
from sg3.kernels.dispatch import resolve
from sg3.kernels.kept import Kept
from sg3.kernels.memory_format import new_image
from sg3.kernels.modulated_conv2d.impl_torch import modulated_conv2d_torch
from sg3.kernels.modulated_conv2d.modulation import conv2d_per_sample, modulated_weights, modulation, scaled
from sg3.kernels.registration import register


def modulated_conv2d(
    x: torch.Tensor,
    w: torch.Tensor,
    s: torch.Tensor,
    demodulate: bool = True,
    padding: Padding = 0,
    input_gain: torch.Tensor | None = None,
    impl: str = "auto",
    kept: Kept | None = None,
) -> torch.Tensor:
    """Convolve each image with its own modulated weights.

    `x` [N, I, H, W]; `w` [O, I, kh, kw] and `s` [N, I] in any floating-point dtype on x's device; `input_gain`, applied
    after demodulation, is a scalar, [I] or [N, I]; `padding` is an integer or [x, y] of zeros. In `kept` the owner of w
    keeps what follows from it between calls without gradients.

    Returns [N, O, H + 2 py - kh + 1, W + 2 px - kw + 1] of x's dtype. Gradients of any order for x, w, s and
    input_gain. Raises TypeError or ValueError naming the argument that does not fit.
    """
    check_image("x", x)
    n, i = x.shape[:2]
    if w.ndim != 4 or w.shape[1] != i:
        raise ValueError(f"w: got shape {list(w.shape)}, expected [O, {i}, kh, kw] for x of shape {list(x.shape)}")
    if s.shape != (n, i):
        raise ValueError(f"s: got shape {list(s.shape)}, expected [{n}, {i}] for x of shape {list(x.shape)}")
    for name, tensor in (("w", w), ("s", s), ("input_gain", input_gain)):
        if tensor is not None:
            check_floating(name, tensor, like=x)
    if input_gain is not None and input_gain.shape not in ((), (1,), (i,), (1, i), (n, 1), (n, i)):
        raise ValueError(f"input_gain: got shape {list(input_gain.shape)}, expected [], [{i}] or [{n}, {i}]")
    x0, x1, y0, y1 = parse_padding(padding)
    if x0 != x1 or y0 != y1 or x0 < 0 or y0 < 0:
        raise ValueError(f"padding: got {padding!r}, expected non-negative symmetric padding, an integer or [x, y]")
    out_h, out_w = x.shape[2] + 2 * y0 - w.shape[2] + 1, x.shape[3] + 2 * x0 - w.shape[3] + 1
    if out_h < 1 or out_w < 1:
        raise ValueError(
            f"padding: got {padding!r}, which leaves an output of {out_h} x {out_w} pixels; expected at least 1 x 1"
        )

    chosen = resolve("modulated_conv2d", impl, x.device, x.dtype)
    if chosen == "ref" and n == 0:
        chosen = "torch"  # there are no convolutions in 0 groups
    with no_autocast(x):  # the op follows x's dtype, the coefficients their own
        if chosen == "ref":
            return modulated_conv2d_ref(x, w, s, demodulate, (y0, x0), input_gain)
        function = modulated_conv2d_triton if chosen == "triton" else modulated_conv2d_torch
        doubles = any(t is not None and t.dtype == torch.float64 for t in (x, w, s, input_gain))
        fused = not doubles and resolve("modulation", impl if chosen == "torch" else chosen, x.device) == "triton"
        return function(x, w, s, demodulate, (y0, x0), input_gain, fused, kept)


def modulated_conv2d_ref(
    x: torch.Tensor,
    w: torch.Tensor,
    s: torch.Tensor,
    demodulate: bool,
    padding: tuple[int, int],
    input_gain: torch.Tensor | None,
) -> torch.Tensor:
    """The formula with one set of weights per sample, as a convolution with N groups. padding = (y, x)."""
    return conv2d_per_sample(x, modulated_weights(w, s, demodulate, input_gain), padding)


def modulated_conv2d_triton(
    x: torch.Tensor,
    w: torch.Tensor,
    s: torch.Tensor,
    demodulate: bool,
    padding: tuple[int, int],
    input_gain: torch.Tensor | None,
    fused: bool,
    kept: Kept | None,
) -> torch.Tensor:
    """Both scales inside of the convolution, which takes them in float32. padding = (y, x); `fused`, `kept`: see
    `modulation`."""
    weights, before, after = modulation(w, s, demodulate, input_gain, (x.dtype, torch.float32), fused, kept)
    y: torch.Tensor = scaled_conv2d(x, weights, before, None if after is None else after(), list(padding))
    return y


# ---- impl='triton': one op that convolves and scales, closed under differentiation ----
#
#     y = so * conv(si * x, w)                         scaled_conv2d
#     g = conv^T(so * dy, w),  dx = si * g,  dsi = sum_p x * g      scaled_conv2d_grad; dx alone is a scaled_conv2d
#     dso = sum_p dy * y / so                          channel_dot
#     dw = correlation of si * x with so * dy          torch's own
#
# Gradients of gradients follow from <v, dx> + <u, dsi> = <z, g> with z = si * v + u * x.


def transposed(w: torch.Tensor, padding: list[int]) -> tuple[torch.Tensor, list[int]]:
    """Weights and padding [y, x] of the convolution that is the transpose of conv(., w, padding)."""
    kh, kw = w.shape[2:]
    return w.flip([2, 3]).transpose(0, 1), [kh - 1 - padding[0], kw - 1 - padding[1]]


def _scaled_conv2d(
    x: torch.Tensor, w: torch.Tensor, si: torch.Tensor | None, so: torch.Tensor | None, padding: list[int]
) -> torch.Tensor:
    from sg3.kernels.modulated_conv2d import impl_triton as kernels

    return kernels.scaled_conv2d(x, w, si, so, padding)


def _scaled_conv2d_fake(
    x: torch.Tensor, w: torch.Tensor, si: torch.Tensor | None, so: torch.Tensor | None, padding: list[int]
) -> torch.Tensor:
    o, _, kh, kw = w.shape
    return new_image(x, x.shape[2] + 2 * padding[0] - kh + 1, x.shape[3] + 2 * padding[1] - kw + 1, o)


def _scaled_conv2d_save(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
    *tensors, ctx.padding = inputs
    ctx.save_for_backward(*tensors, output if ctx.needs_input_grad[3] else None)


def _scaled_conv2d_backward(ctx: Any, dy: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
    x, w, si, so, y = ctx.saved_tensors
    need_x, need_w, need_si, need_so, _ = ctx.needs_input_grad
    dx = dw = dsi = dso = None
    if need_si:
        dx, dsi = scaled_conv2d_grad(dy, x, w, si, so, ctx.padding)
    elif need_x:
        w_t, padding_t = transposed(w, ctx.padding)
        dx = scaled_conv2d(dy, w_t, so, si, padding_t)
    if need_w:
        dw = _weight_gradient(scaled(x, si), scaled(dy, so), w, ctx.padding)
    if need_so:
        dso = channel_dot(dy, y) / so
    return dx if need_x else None, dw, dsi, dso, None


def _weight_gradient(x: torch.Tensor, dy: torch.Tensor, w: torch.Tensor, padding: list[int]) -> torch.Tensor:
    """Gradient of conv(x, w) for w; differentiable."""
    y, x_ = (min(p, 0) for p in padding)
    if y or x_:
        x = F.pad(x, [x_, x_, y, y])  # torch's convolutions take no negative padding
    return conv2d_weight(x, w.shape, dy, padding=[max(p, 0) for p in padding])


def _scaled_conv2d_grad(
    dy: torch.Tensor, x: torch.Tensor, w: torch.Tensor, si: torch.Tensor, so: torch.Tensor | None, padding: list[int]
) -> tuple[torch.Tensor, torch.Tensor]:
    from sg3.kernels.modulated_conv2d import impl_triton as kernels

    w_t, padding_t = transposed(w, padding)
    return kernels.scaled_conv2d_reduced(dy, w_t, so, si, padding_t, image=x)


def _scaled_conv2d_grad_fake(
    dy: torch.Tensor, x: torch.Tensor, w: torch.Tensor, si: torch.Tensor, so: torch.Tensor | None, padding: list[int]
) -> tuple[torch.Tensor, torch.Tensor]:
    return new_image(x, *x.shape[2:]), si.new_empty(si.shape)


def _scaled_conv2d_grad_save(ctx: Any, inputs: tuple[Any, ...], output: object) -> None:
    *tensors, ctx.padding = inputs
    ctx.save_for_backward(*tensors)


def _scaled_conv2d_grad_backward(ctx: Any, v: torch.Tensor, u: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
    dy, x, w, si, so = ctx.saved_tensors
    need_dy, need_x, need_w, need_si, need_so, _ = ctx.needs_input_grad
    z = scaled(v, si) + scaled(x, u)
    d_dy = d_x = d_w = d_si = d_so = None
    if need_dy or need_so:
        d_dy = scaled_conv2d(z, w, None, so, ctx.padding)
    if need_so:
        d_so = channel_dot(dy, d_dy) / so
    if need_w:
        d_w = _weight_gradient(z, scaled(dy, so), w, ctx.padding)
    if need_x or need_si:
        w_t, padding_t = transposed(w, ctx.padding)
        g = scaled_conv2d(dy, w_t, so, None, padding_t)
        d_x = scaled(g, u) if need_x else None
        d_si = channel_dot(v, g) if need_si else None
    return d_dy if need_dy else None, d_x, d_w, d_si, d_so, None


def _channel_dot(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    from sg3.kernels.modulated_conv2d import impl_triton as kernels

    return kernels.channel_dot(a, b)


def _channel_dot_fake(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return a.new_empty(a.shape[:2], dtype=torch.float32)


def _channel_dot_save(ctx: Any, inputs: tuple[Any, ...], output: object) -> None:
    ctx.save_for_backward(*inputs)


def _channel_dot_backward(ctx: Any, v: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
    a, b = ctx.saved_tensors
    need_a, need_b = ctx.needs_input_grad
    return scaled(b, v) if need_a else None, scaled(a, v) if need_b else None


scaled_conv2d = register(
    "scaled_conv2d_triton(Tensor x, Tensor w, Tensor? si, Tensor? so, SymInt[] padding) -> Tensor",
    _scaled_conv2d, _scaled_conv2d_fake, _scaled_conv2d_save, _scaled_conv2d_backward,
)  # fmt: skip
scaled_conv2d_grad = register(
    "scaled_conv2d_grad_triton(Tensor dy, Tensor x, Tensor w, Tensor si, Tensor? so, SymInt[] padding) "
    "-> (Tensor, Tensor)",
    _scaled_conv2d_grad, _scaled_conv2d_grad_fake, _scaled_conv2d_grad_save, _scaled_conv2d_grad_backward,
)  # fmt: skip
channel_dot = register(
    "channel_dot_triton(Tensor a, Tensor b) -> Tensor",
    _channel_dot, _channel_dot_fake, _channel_dot_save, _channel_dot_backward,
)  # fmt: skip
