"""bias_act: add a bias per channel, apply an activation, scale, clamp.

    y = clamp(gain * act(x + b), -clamp, +clamp)

Nine activations; the default gain keeps the variance of a unit normal input roughly constant. `scaled_bias_act` takes
StyleGAN2's demodulation and noise into the same pass: x + b becomes scale * x + noise + b.

At the kinks every implementation has the same gradients: relu'(0) = 0, lrelu'(0) = alpha, the clamp's is 1 where
|gain * act(x + b)| <= clamp, bounds included, and 0 beyond, whatever PyTorch's own clamp says (its gradient at the
bounds is 1 up to 2.13 and 0 in 2.15); a NaN stays a NaN, and a clamp lets no gradient through it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple
from typing import Any

import torch

from sg3.kernels.arguments import cast_parameter, check_bias, check_floating, check_image, check_type
from sg3.kernels.bias_act.activations import ACTIVATIONS, clamped
from sg3.kernels.bias_act.settings import Settings
from sg3.kernels.dispatch import resolve
from sg3.kernels.memory_format import is_channels_last
from sg3.kernels.registration import may_be_differentiated, register


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
    same dtype and device, broadcast along `dim` (under autocast it is cast to x's dtype). `alpha` (the slope of lrelu)
    and `gain` default to the activation's own values (see `ACTIVATIONS`); `clamp` is off if None.

    Returns a tensor of x's shape and dtype; channels_last stays channels_last. First- and second-order gradients for x
    and b. Raises TypeError or ValueError naming the argument that does not fit.
    """
    check_type("x", x, "")
    if not 0 <= dim < x.ndim:
        raise ValueError(f"dim: got {dim}, expected 0 <= dim < {x.ndim} for x of shape {list(x.shape)}")
    b = _checked_bias(b, x, dim)
    alpha, gain = _checked_activation(act, alpha, gain, clamp)
    if resolve("bias_act", impl, x.device, x.dtype) == "triton":
        return bias_act_triton(x, b, None, None, dim, act, alpha, gain, clamp)
    return bias_act_ref(x, b, dim, act, alpha, gain, clamp)


def scaled_bias_act(
    x: torch.Tensor,
    b: torch.Tensor | None = None,
    scale: torch.Tensor | None = None,
    noise: torch.Tensor | None = None,
    act: str = "linear",
    alpha: float | None = None,
    gain: float | None = None,
    clamp: float | None = None,
    impl: str = "auto",
) -> torch.Tensor:
    """clamp(gain * act(scale * x + noise + b)), what follows the convolution in a layer of StyleGAN2.

    `x` is [N, C, H, W]; `b` [C] as in `bias_act`; `scale` [N, C] and `noise` [N, 1, H, W] or [1, 1, H, W] (or [H, W]),
    of any floating-point dtype. Everything else is as in `bias_act`; gradients also for scale and noise.
    """
    check_image("x", x)
    b = _checked_bias(b, x, 1)
    if scale is not None:
        _check_factor("scale", scale, x, [x.shape[:2]])
    if noise is not None:
        h, w = x.shape[2:]
        _check_factor("noise", noise, x, [(x.shape[0], 1, h, w), (1, 1, h, w), (h, w)])
    alpha, gain = _checked_activation(act, alpha, gain, clamp)
    if resolve("bias_act", impl, x.device, x.dtype) == "triton":
        return bias_act_triton(x, b, scale, noise, 1, act, alpha, gain, clamp)
    return scaled_bias_act_ref(x, b, scale, noise, act, alpha, gain, clamp)


def _checked_bias(b: torch.Tensor | None, x: torch.Tensor, dim: int) -> torch.Tensor | None:
    if b is not None:
        b = cast_parameter(b, like=x)
        check_bias(b, x.shape[dim], like=x)
    return b


def _check_factor(name: str, tensor: torch.Tensor, x: torch.Tensor, shapes: list[Sequence[int]]) -> None:
    check_floating(name, tensor, like=x)
    # Number by number, and only if there are as many: torch.export would fix a batch that is compared otherwise.
    if not any(
        tensor.ndim == len(shape) and all(a == b for a, b in zip(tensor.shape, shape, strict=True)) for shape in shapes
    ):
        expected = " or ".join(str(list(shape)) for shape in shapes)
        raise ValueError(f"{name}: got shape {list(tensor.shape)}, expected {expected} for x of shape {list(x.shape)}")


def _checked_activation(
    act: str, alpha: float | None, gain: float | None, clamp: float | None
) -> tuple[float, float]:
    """alpha and gain, by default the activation's own."""
    if act not in ACTIVATIONS:
        raise ValueError(f"act: got {act!r}, expected one of {', '.join(ACTIVATIONS)}")
    if clamp is not None and not clamp >= 0:
        raise ValueError(f"clamp: got {clamp}, expected None or a number >= 0")
    spec = ACTIVATIONS[act]
    return spec.alpha if alpha is None else alpha, spec.gain if gain is None else gain


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
        x = clamped(x, -clamp, clamp)
    return x


def scaled_bias_act_ref(
    x: torch.Tensor,
    b: torch.Tensor | None,
    scale: torch.Tensor | None,
    noise: torch.Tensor | None,
    act: str,
    alpha: float,
    gain: float,
    clamp: float | None,
) -> torch.Tensor:
    """The steps before bias_act, one per line."""
    if scale is not None:
        x = x * scale.to(x.dtype)[:, :, None, None]
    if noise is not None:
        x = x + noise.to(x.dtype)
    return bias_act_ref(x, b, 1, act, alpha, gain, clamp)


def bias_act_triton(
    x: torch.Tensor,
    b: torch.Tensor | None,
    scale: torch.Tensor | None,
    noise: torch.Tensor | None,
    dim: int,
    act: str,
    alpha: float,
    gain: float,
    clamp: float | None,
) -> torch.Tensor:
    """One elementwise Triton kernel, for each order of gradient another one.

    What is saved for backward: signs, 2 bits per element, for relu, lrelu and clamped linear, nothing for linear, x for
    the smooth activations, whose derivatives are computed again; with scale always x and scale, as their product must.
    """
    channels_last = x.ndim == 4 and is_channels_last(x)
    differentiable = may_be_differentiated(x, b, scale, noise)
    with_signs = differentiable and (act in ("relu", "lrelu") or (act == "linear" and clamp is not None))
    if noise is not None and noise.ndim == 2:
        noise = noise[None, None]
    y: torch.Tensor = _forward_op(x, b, scale, noise, dim, act, alpha, gain, clamp, channels_last, with_signs)[0]
    return y


# ---- impl='triton': the op, its gradient op and that one's, registered with PyTorch ----
#
#     y  = v(u), u = scale * x + noise + b       bias_act_triton; signs are empty unless asked for
#     du = dy * dv/du                            bias_act_grad_triton, by the signs, or for smooth activations by u
#     g * dy * d2v/du2                           bias_act_second_grad_triton, for smooth activations
#
# A gradient of u is one of x, b, scale and noise by plain sums and products.

Optional = torch.Tensor | None


def _from_sum(
    needed: Sequence[bool], du: torch.Tensor, x: Optional, scale: Optional, noise: tuple[list[int], torch.dtype] | None,
    dim: int,
) -> tuple[Optional, Optional, Optional, Optional]:  # fmt: skip
    """The gradients of x, b, scale and noise from that of u = scale * x + noise + b, where needed. Of noise: which
    dimensions it lacks, and its dtype."""
    dx = db = dscale = dnoise = None
    if needed[0]:
        dx = du if scale is None else du * scale.to(du.dtype)[:, :, None, None]
    if needed[1]:
        db = du.sum_to_size([n if i == dim else 1 for i, n in enumerate(du.shape)]).reshape(-1)
    if needed[2]:
        assert x is not None
        assert scale is not None
        dscale = (du * x).sum([2, 3], dtype=scale.dtype)
    if needed[3]:
        assert noise is not None
        dnoise = du.sum(noise[0], keepdim=True, dtype=noise[1])
    return dx, db, dscale, dnoise


def _save_inputs(ctx: Any, needed: Sequence[bool], inputs: tuple[Optional, ...], others: tuple[Any, ...]) -> None:
    """Save x, b, scale and noise, of these what backward needs, and all `others`."""
    x, b, scale, noise = inputs
    again = ctx.settings.smooth  # the derivatives come from u, which is computed again
    ctx.save_for_backward(
        x if again or needed[2] else None, b if again else None, scale, noise if again else None, *others
    )
    ctx.noise = None
    if noise is not None and x is not None:
        ctx.noise = [1] if noise.shape[0] == x.shape[0] else [0, 1], noise.dtype


def _launch(x: torch.Tensor, b: Optional, scale: Optional, noise: Optional, *rest: Any) -> Any:
    from sg3.kernels.bias_act import impl_triton as kernels

    return kernels.forward(x, b, scale, noise, Settings(*rest[:-1]), rest[-1])


def _allocate(x: torch.Tensor, b: Optional, scale: Optional, noise: Optional, *rest: Any) -> Any:
    settings = Settings(*rest[:-1])
    return settings.new_like(x), settings.new_signs(x, rest[-1])


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[torch.Tensor, torch.Tensor]) -> None:
    ctx.settings = Settings(*inputs[4:-1])
    ctx.set_materialize_grads(False)  # signs have none
    _save_inputs(ctx, ctx.needs_input_grad, inputs[:4], (output[1],))


def _backward(ctx: Any, dy: torch.Tensor, _: None) -> tuple[Optional, ...]:
    x, b, scale, noise, signs = ctx.saved_tensors
    settings = ctx.settings
    if settings.act == "linear" and settings.clamp is None:
        du = dy if settings.gain == 1 else dy * settings.gain
    else:
        u_from = (x, b, scale, noise) if settings.smooth else (None, None, None, None)
        du = _grad_op(dy, signs, *u_from, *astuple(settings))
    return *_from_sum(ctx.needs_input_grad, du, x, scale, ctx.noise, settings.dim), *[None] * 7


def _launch_grad(dy: torch.Tensor, signs: torch.Tensor, *rest: Any) -> Any:
    from sg3.kernels.bias_act import impl_triton as kernels

    x, b, scale, noise, *settings = rest
    return kernels.grad(dy, signs, x, b, scale, noise, Settings(*settings))


def _save_grad(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
    dy, signs, *rest = inputs
    ctx.settings = Settings(*rest[4:])
    _save_inputs(ctx, ctx.needs_input_grad[2:], tuple(rest[:4]), (signs, dy if ctx.settings.smooth else None))


def _backward_grad(ctx: Any, g: torch.Tensor) -> tuple[Optional, ...]:
    """du is linear in dy; on u it depends where the activation is smooth."""
    x, b, scale, noise, signs, dy = ctx.saved_tensors
    settings, needed = ctx.settings, ctx.needs_input_grad
    u_from = (x, b, scale, noise) if settings.smooth else (None, None, None, None)
    ddy = _grad_op(g, signs, *u_from, *astuple(settings)) if needed[0] else None
    second: tuple[Optional, ...] = (None, None, None, None)
    if any(needed[2:6]):
        du = _second_grad_op(g, dy, *u_from, *astuple(settings))
        second = _from_sum(needed[2:6], du, x, scale, ctx.noise, settings.dim)
    return ddy, None, *second, *[None] * 6


def _launch_second_grad(g: torch.Tensor, dy: torch.Tensor, *rest: Any) -> Any:
    from sg3.kernels.bias_act import impl_triton as kernels

    x, b, scale, noise, *settings = rest
    return kernels.second_grad(g, dy, x, b, scale, noise, Settings(*settings))


def _no_third_order(ctx: Any, *grads: torch.Tensor) -> None:
    raise NotImplementedError("bias_act: impl='triton' has gradients up to second order; use impl='ref'")


_INPUTS = "Tensor{} x, Tensor? b, Tensor? scale, Tensor? noise, "
_SETTINGS = "int dim, str act, float alpha, float gain, float? clamp, bool channels_last"
_forward_op = register(
    f"bias_act_triton({_INPUTS.format('')}{_SETTINGS}, bool with_signs) -> (Tensor y, Tensor signs)",
    _launch, _allocate, _save, _backward,
)  # fmt: skip
_grad_op = register(
    f"bias_act_grad_triton(Tensor dy, Tensor signs, {_INPUTS.format('?')}{_SETTINGS}) -> Tensor",
    _launch_grad, lambda dy, signs, *rest: Settings(*rest[4:]).new_like(dy), _save_grad, _backward_grad,
)  # fmt: skip
_second_grad_op = register(
    f"bias_act_second_grad_triton(Tensor g, Tensor dy, {_INPUTS.format('')}{_SETTINGS}) -> Tensor",
    _launch_second_grad, lambda g, dy, *rest: Settings(*rest[4:]).new_like(dy),
    lambda ctx, inputs, output: None, _no_third_order,
)  # fmt: skip
