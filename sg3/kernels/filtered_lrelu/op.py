"""filtered_lrelu: the alias-free nonlinearity of StyleGAN3 (Karras et al. 2021, Figure 4b).

    x -> + b -> upsample by fu -> * gain -> leaky ReLU -> clamp -> downsample by fd -> y

The pointwise nonlinearity runs at a higher sampling rate, where the frequencies that it creates can still be told
apart from aliases, and the second filter removes them before the rate goes down again. The bias is added before the
zero padding, so the padded border holds 0, not b.
"""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt
from typing import Any

import torch

from sg3.kernels.arguments import (
    Padding,
    cast_parameter,
    check_bias,
    check_filter,
    check_image,
    integer,
    no_autocast,
    parse_padding,
)
from sg3.kernels.bias_act.op import bias_act_ref
from sg3.kernels.dispatch import resolve
from sg3.kernels.filtered_lrelu import impl_torch
from sg3.kernels.filtered_lrelu.geometry import (
    Resampling,
    SignsSize,
    opposite_padding,
    output_size,
    packed_signs,
    signs_shape,
    whole_signs,
)
from sg3.kernels.memory_format import new_image
from sg3.kernels.registration import register
from sg3.kernels.upfirdn2d.op import upfirdn2d_ref


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
    impl: str = "auto",
) -> torch.Tensor:
    """Upsample, leaky ReLU, downsample.

    `x` is [N, C, H, W]; `b`, if given, [C] of x's dtype. `fu` and `fd` are float32 filters, [taps] for both axes,
    [taps_y, taps_x], or None. They are constants: impl='triton' notices only changes that PyTorch counts, not those
    through `.data`. `padding`, in pixels of the upsampled image, is an integer, [x, y] or [x0, x1, y0, y1]; negative
    numbers crop. `flip_filter` makes both filters correlate instead of convolve.

    Returns [N, C, OH, OW] of x's dtype with OW = (W * up + x0 + x1 - (fu_taps - 1) - (fd_taps - 1) + down - 1) // down.
    Gradients of any order for x and b. Raises TypeError or ValueError naming the argument that does not fit.
    """
    check_image("x", x)
    check_filter("fu", fu, like=x)
    check_filter("fd", fd, like=x)
    if b is not None:
        b = cast_parameter(b, like=x)
        check_bias(b, x.shape[1], like=x)
    up, down = integer("up", up), integer("down", down)
    if up < 1 or down < 1:
        raise ValueError(f"up, down: got {up}, {down}, expected factors of at least 1")
    x0, x1, y0, y1 = parse_padding(padding)
    if not gain > 0:
        raise ValueError(f"gain: got {gain}, expected a number > 0")
    if not slope >= 0:
        raise ValueError(f"slope: got {slope}, expected a number >= 0")
    if clamp is not None and not clamp >= 0:
        raise ValueError(f"clamp: got {clamp}, expected None or a number >= 0")
    out_h, out_w = output_size(x, fu, fd, up, down, (x0, x1, y0, y1))
    if out_w < 1 or out_h < 1:
        raise ValueError(
            f"padding: got {padding!r}, which leaves an output of {out_h} x {out_w} pixels from x of shape "
            f"{list(x.shape)} (up {up}, down {down}); expected at least 1 x 1"
        )

    if clamp is not None:
        clamp = min(clamp, torch.finfo(x.dtype).max)
    impl = resolve("filtered_lrelu", impl, x.device, x.dtype)
    if impl == "ref":
        with no_autocast(x):
            return filtered_lrelu_ref(x, fu, fd, b, up, down, (x0, x1, y0, y1), gain, slope, clamp, flip_filter)
    op = {"triton": filtered_lrelu_triton, "numba": filtered_lrelu_numba, "torch": filtered_lrelu_torch}[impl]
    keep = torch.is_grad_enabled() and (x.requires_grad or (b is not None and b.requires_grad))
    y: torch.Tensor = op(x, fu, fd, b, up, down, (x0, x1, y0, y1), gain, slope, clamp, flip_filter, keep)[0]
    return y


def filtered_lrelu_ref(
    x: torch.Tensor,
    fu: torch.Tensor | None,
    fd: torch.Tensor | None,
    b: torch.Tensor | None,
    up: int,
    down: int,
    padding: tuple[int, int, int, int],
    gain: float,
    slope: float,
    clamp: float | None,
    flip_filter: bool,
) -> torch.Tensor:
    """The chain of the module docstring, one op after the other. Zero insertion costs energy, hence the gain up^2."""
    x = bias_act_ref(x, b, dim=1, act="linear", alpha=0.0, gain=1.0, clamp=None)
    x = upfirdn2d_ref(x, fu, (up, up), (1, 1), padding, flip_filter, gain=up**2)
    x = bias_act_ref(x, None, dim=1, act="lrelu", alpha=slope, gain=gain, clamp=clamp)
    return upfirdn2d_ref(x, fd, (1, 1), (down, down), (0, 0, 0, 0), flip_filter, gain=1.0)


def _ops_of_kernel(
    load: Callable[[], Callable[..., None]], signs_size: SignsSize
) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """The op and its derivative by a kernel that does both. `load` imports it: `run` of impl_triton or
    impl_numba."""

    def forward(
        x: torch.Tensor,
        fu: torch.Tensor | None,
        fd: torch.Tensor | None,
        b: torch.Tensor | None,
        up: int,
        down: int,
        padding: list[int],
        gain: float,
        slope: float,
        clamp: float | None,
        flip_filter: bool,
        keep: bool,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        y = new_image(x, *output_size(x, fu, fd, up, down, padding))
        kept = x.new_empty(signs_shape(signs_size, y, fd, up, down) if keep else [0], dtype=torch.uint8)
        geometry = Resampling(up, down, (padding[0], padding[2]), (0, 0), (up**2, 1.0), flip_filter)
        load()(x, b, y, kept if keep else None, False, fu, fd, geometry, gain, slope, clamp)
        return y, kept

    def linear(
        x: torch.Tensor,
        kept: torch.Tensor,
        b: torch.Tensor | None,
        fu: torch.Tensor | None,
        fd: torch.Tensor | None,
        up: int,
        down: int,
        up_padding: list[int],
        down_padding: list[int],
        size: list[int],
        filter_gains: list[float],
        gain: float,
        slope: float,
        clamp: float | None,
        flip_filter: bool,
        adjoint: bool,
    ) -> torch.Tensor:
        if kept.ndim != 4:
            raise RuntimeError("filtered_lrelu: a derivative was not expected when the op ran (vmap hides that x "
                               "requires a gradient); use impl='torch'")  # fmt: skip
        y = new_image(x, size[0], size[1])
        (x0, y0), (s0, t0), (before, after) = up_padding, down_padding, filter_gains
        geometry = Resampling(up, down, (x0, y0), (s0, t0), (before, after), flip_filter)
        load()(x, None, y, kept.contiguous(), True, fu, fd, geometry, gain, slope, clamp)
        return y

    return forward, linear


def _load_triton() -> Callable[..., None]:
    from sg3.kernels.filtered_lrelu import impl_triton

    return impl_triton.run


def _load_numba() -> Callable[..., None]:
    from sg3.kernels.filtered_lrelu import impl_numba

    return impl_numba.run


# The op as PyTorch sees it. `kept`, which only the derivative reads, says where the signal between the filters was
# negative or clamped; it is empty without `keep`, and for impl='torch', which looks at x and b again instead.
SCHEMA = (
    "(Tensor x, Tensor? fu, Tensor? fd, Tensor? b, int up, int down, SymInt[] padding, float gain, float slope, "
    "float? clamp, bool flip_filter, bool keep) -> (Tensor y, Tensor kept)"
)

# The derivative: upsample, multiply by 1, the slope or 0, downsample. Linear in x, so its own derivative is the same op
# again, with the filters in each other's place; `adjoint` tells whether they are. `kept` and b are what the former op
# kept, or its x and b. Paddings are [x, y], what lies left of and above the image before either filter; `size` is the
# result's [height, width]; each filter comes with a factor (up^2 for the one that upsampled at first).
LINEAR_SCHEMA = (
    "(Tensor x, Tensor kept, Tensor? b, Tensor? fu, Tensor? fd, int up, int down, SymInt[] up_padding, "
    "SymInt[] down_padding, SymInt[] size, float[] filter_gains, float gain, float slope, float? clamp, "
    "bool flip_filter, bool adjoint) -> Tensor"
)


def _register(
    name: str, ops: tuple[Callable[..., Any], Callable[..., Any]], signs_size: SignsSize | None
) -> Callable[..., Any]:
    """Register `sg3::filtered_lrelu_NAME` and its derivative `..._linear`; returns the former."""
    forward, linear = ops

    def forward_fake(x, fu, fd, b, up, down, padding, gain, slope, clamp, flip_filter, keep):  # type: ignore[no-untyped-def]
        y = new_image(x, *output_size(x, fu, fd, up, down, padding))
        if signs_size is None:
            return y, x.new_empty([0])
        return y, x.new_empty(signs_shape(signs_size, y, fd, up, down) if keep else [0], dtype=torch.uint8)

    def linear_fake(x, kept, b, fu, fd, up, down, up_padding, down_padding, size, *_):  # type: ignore[no-untyped-def]
        return new_image(x, *size)

    def forward_save(ctx: Any, inputs: tuple[Any, ...], output: tuple[torch.Tensor, torch.Tensor]) -> None:
        x, fu, fd, b, up, down, (x0, _, y0, _), *pointwise, flip_filter, _ = inputs
        kept, b = (x, b) if signs_size is None else (output[1], None)
        ctx.mark_non_differentiable(output[1])
        ctx.set_materialize_grads(False)  # or the backward pass would begin with zeros as large as `kept`
        linear_save(ctx, (x, kept, b, fu, fd, up, down, [x0, y0], [0, 0], None, [up**2, 1.0], *pointwise, flip_filter,
                          False))  # fmt: skip

    def linear_save(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor | None = None) -> None:
        x, kept, b, fu, fd, up, down, up_padding, down_padding, _, filter_gains, *pointwise, flip, adjoint = inputs
        ctx.save_for_backward(kept, b, fu, fd)
        ctx.factors = up, down
        ctx.paddings = up_padding, down_padding
        ctx.size = list(x.shape[2:])
        ctx.filter_gains = filter_gains
        ctx.pointwise = pointwise  # gain, slope, clamp
        ctx.flip_filter, ctx.adjoint = flip, adjoint

    def derive(ctx: Any, g: torch.Tensor) -> torch.Tensor:
        """What a gradient g of the result is for the input: the filters change places and are reversed."""
        kept, b, fu, fd = ctx.saved_tensors
        up, down = ctx.factors
        up_padding, down_padding = ctx.paddings
        first, second = opposite_padding(down_padding, fd), opposite_padding(up_padding, fu)
        dx: torch.Tensor = linear_op(
            g, kept.detach(), None if b is None else b.detach(), fd, fu, down, up, first, second, ctx.size,
            ctx.filter_gains[::-1], *ctx.pointwise, not ctx.flip_filter, not ctx.adjoint,
        )  # fmt: skip
        return dx

    def forward_backward(ctx: Any, g: torch.Tensor | None, _: None) -> tuple[torch.Tensor | None, ...]:
        dx = derive(ctx, g) if g is not None and (ctx.needs_input_grad[0] or ctx.needs_input_grad[3]) else None
        db = dx.sum([0, 2, 3]) if dx is not None and ctx.needs_input_grad[3] else None
        return (dx if ctx.needs_input_grad[0] else None, None, None, db, *[None] * 8)

    def linear_backward(ctx: Any, g: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        return (derive(ctx, g) if ctx.needs_input_grad[0] else None, *[None] * 15)

    schema = f"filtered_lrelu_{name}_linear{LINEAR_SCHEMA}"
    linear_op = register(schema, linear, linear_fake, linear_save, linear_backward)
    return register(f"filtered_lrelu_{name}{SCHEMA}", forward, forward_fake, forward_save, forward_backward)


filtered_lrelu_torch = _register("torch", (impl_torch.forward, impl_torch.linear), None)
filtered_lrelu_numba = _register("numba", _ops_of_kernel(_load_numba, whole_signs), whole_signs)
filtered_lrelu_triton = _register("triton", _ops_of_kernel(_load_triton, packed_signs), packed_signs)
