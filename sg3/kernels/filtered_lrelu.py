"""filtered_lrelu: the alias-free nonlinearity of StyleGAN3 (Karras et al. 2021, Figure 4b).

    x -> + b -> upsample by fu -> * gain -> leaky ReLU -> clamp -> downsample by fd -> y

The pointwise nonlinearity runs at a higher sampling rate, where the frequencies that it creates can still be told
apart from aliases, and the second filter removes them before the rate goes down again. The bias is added before the
zero padding, so the padded border holds 0, not b.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf, sqrt
from typing import Any

import torch

from sg3.kernels.arguments import (
    Padding,
    cast_bias,
    check_bias,
    check_filter,
    check_image,
    filter_size,
    integer,
    parse_padding,
)
from sg3.kernels.bias_act import bias_act_ref
from sg3.kernels.dispatch import resolve
from sg3.kernels.library import new_image, register
from sg3.kernels.plan import Resampling
from sg3.kernels.upfirdn2d import upfirdn2d_ref, upfirdn2d_torch

MOST_AT_ONCE = 2**25  # samples between the filters that impl='torch' works on at a time: a bound on its memory


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
    [taps_y, taps_x], or None. `padding`, in pixels of the upsampled image, is an integer, [x, y] or [x0, x1, y0, y1];
    negative numbers crop. `flip_filter` makes both filters correlate instead of convolve.

    Returns [N, C, OH, OW] of x's dtype with OW = (W * up + x0 + x1 - (fu_taps - 1) - (fd_taps - 1) + down - 1) // down.
    Gradients of any order for x and b. Raises TypeError or ValueError naming the argument that does not fit.
    """
    check_image("x", x)
    check_filter("fu", fu, like=x)
    check_filter("fd", fd, like=x)
    if b is not None:
        b = cast_bias(b, like=x)
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
    out_h, out_w = _output_size(x, fu, fd, up, down, (x0, x1, y0, y1))
    if out_w < 1 or out_h < 1:
        raise ValueError(
            f"padding: got {padding!r}, which leaves an output of {out_h} x {out_w} pixels from x of shape "
            f"{list(x.shape)} (up {up}, down {down}); expected at least 1 x 1"
        )

    impl = resolve("filtered_lrelu", impl, x.device, x.dtype)
    if impl == "ref" or x.shape[0] == 0:  # torch has no convolution in 0 groups
        return filtered_lrelu_ref(x, fu, fd, b, up, down, (x0, x1, y0, y1), gain, slope, clamp, flip_filter)
    op = filtered_lrelu_triton if impl == "triton" else filtered_lrelu_torch
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


def _torch_forward(
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
    """On the fast resampling; `kept` is the signal after the leaky ReLU and before the clamp, if `keep`.

    The gain moves into the upsampling: a positive factor passes through a leaky ReLU.
    """
    x0, x1, y0, y1 = padding
    if b is not None:
        x = x + b[:, None, None]
    results, kept = [], []
    for planes in _planes(x, area=x.shape[2] * x.shape[3] * up**2):
        v = upfirdn2d_torch(planes, fu, (up, up), (1, 1), (x0, x1, y0, y1), flip_filter, gain=up**2, post_gain=gain)
        v = torch.ops.aten.leaky_relu_(v.contiguous(), slope)
        if keep:
            kept.append(v)
        if clamp is not None:
            v = v.clamp(-clamp, clamp) if keep else v.clamp_(-clamp, clamp)
        results.append(upfirdn2d_torch(v, fd, (1, 1), (down, down), (0, 0, 0, 0), flip_filter, gain=1.0))
    return _images(results, x), _images(kept, x) if keep else x.new_empty([0])


def _torch_linear(
    x: torch.Tensor,
    kept: torch.Tensor,
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
) -> torch.Tensor:
    """The derivative on the fast resampling. As torch's own: the slope at 0, 1 at the clamp's edge."""
    before = _both_sides(up_padding, x.shape[2:], up, 1, fu, kept.shape[2:])
    after = _both_sides(down_padding, kept.shape[2:], 1, down, fd, size)
    results = []
    area = kept.shape[2] * kept.shape[3]
    for planes, mask in zip(_planes(x, area), _planes(kept, area), strict=True):
        v = upfirdn2d_torch(planes, fu, (up, up), (1, 1), before, flip_filter, filter_gains[0], post_gain=gain)
        v = torch.ops.aten.leaky_relu_backward(v, mask, slope, True)
        if clamp is not None:
            # hardtanh's gradient is 0 at its bounds and beyond, clamp's only beyond: move the bounds by one number.
            edge = torch.tensor([clamp, inf], dtype=torch.float64 if v.dtype == torch.float64 else torch.float32)
            bound = float(torch.nextafter(edge[0], edge[1]))
            v = torch.ops.aten.hardtanh_backward(v, mask, -bound, bound)
        results.append(upfirdn2d_torch(v, fd, (1, 1), (down, down), after, flip_filter, filter_gains[1]))
    return _images(results, x)


def _planes(x: torch.Tensor, area: int) -> tuple[torch.Tensor, ...]:
    """[N, C, H, W] -> several [1, P, H, W]. Between the filters a plane has `area` samples."""
    n, c, h, w = x.shape
    return x.reshape(1, n * c, h, w).split(max(1, MOST_AT_ONCE // area), dim=1)


def _images(planes: list[torch.Tensor], like: torch.Tensor) -> torch.Tensor:
    """The way back to [N, C, H, W]."""
    whole = planes[0] if len(planes) == 1 else torch.cat(planes, dim=1)
    return whole.reshape(*like.shape[:2], *whole.shape[2:])


def _both_sides(
    first: list[int], size: Sequence[int], up: int, down: int, f: torch.Tensor | None, result: Sequence[int]
) -> tuple[int, int, int, int]:
    """The padding that makes `result` of `size`, both [height, width], from that on the left and above, [x, y]."""
    taps_x, taps_y = filter_size(f)
    x1 = (result[1] - 1) * down + taps_x - size[1] * up - first[0]
    y1 = (result[0] - 1) * down + taps_y - size[0] * up - first[1]
    return first[0], x1, first[1], y1


def _planar_image(x: torch.Tensor, height: int, width: int) -> torch.Tensor:
    return x.new_empty([*x.shape[:2], height, width])


def _output_size(
    x: torch.Tensor, fu: torch.Tensor | None, fd: torch.Tensor | None, up: int, down: int, padding: Sequence[int]
) -> tuple[int, int]:
    """[OH, OW] of filtered_lrelu, as its docstring says."""
    (fu_x, fu_y), (fd_x, fd_y) = filter_size(fu), filter_size(fd)
    x0, x1, y0, y1 = padding
    out_w = (x.shape[3] * up + x0 + x1 - (fu_x - 1) - (fd_x - 1) + down - 1) // down
    out_h = (x.shape[2] * up + y0 + y1 - (fu_y - 1) - (fd_y - 1) + down - 1) // down
    return out_h, out_w


def _torch_kept(
    x: torch.Tensor, fu: torch.Tensor | None, fd: torch.Tensor | None, up: int, down: int, padding: Sequence[int]
) -> tuple[list[int], torch.dtype]:
    """What impl='torch' keeps: all that the first filter gives."""
    taps_x, taps_y = filter_size(fu)
    x0, x1, y0, y1 = padding
    width, height = x.shape[3] * up + x0 + x1 - taps_x + 1, x.shape[2] * up + y0 + y1 - taps_y + 1
    return [*x.shape[:2], height, width], x.dtype


def _triton_kept(
    x: torch.Tensor, fu: torch.Tensor | None, fd: torch.Tensor | None, up: int, down: int, padding: Sequence[int]
) -> tuple[list[int], torch.dtype]:
    """What impl='triton' keeps: two bits for every sample that the second filter reads, four samples in a byte."""
    taps_x, taps_y = filter_size(fd)
    out_h, out_w = _output_size(x, fu, fd, up, down, padding)
    height, width = (out_h - 1) * down + taps_y, (out_w - 1) * down + taps_x
    return [*x.shape[:2], height, (width + 3) // 4], torch.uint8


def _triton_forward(
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
    """In one kernel; `kept` are two bits a sample."""
    from sg3.kernels.triton.filtered_lrelu import filtered_lrelu as kernel

    y = new_image(x, *_output_size(x, fu, fd, up, down, padding))
    shape, dtype = _triton_kept(x, fu, fd, up, down, padding)
    signs = x.new_empty(shape, dtype=dtype) if keep else None
    geometry = Resampling(up, down, (padding[0], padding[2]), (0, 0), (up**2, 1.0), flip_filter)
    kernel(x, b, y, signs, False, fu, fd, geometry, gain, slope, clamp)
    return y, x.new_empty([0], dtype=dtype) if signs is None else signs


def _triton_linear(
    x: torch.Tensor,
    kept: torch.Tensor,
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
) -> torch.Tensor:
    """The derivative in the same kernel."""
    from sg3.kernels.triton.filtered_lrelu import filtered_lrelu as kernel

    y = new_image(x, *size)
    (x0, y0), (s0, t0), (before, after) = up_padding, down_padding, filter_gains
    geometry = Resampling(up, down, (x0, y0), (s0, t0), (before, after), flip_filter)
    kernel(x, None, y, kept, True, fu, fd, geometry, gain, slope, clamp)
    return y


# The op as PyTorch sees it. `kept`, which only the derivative reads, says in a form of the implementation's own where
# the signal between the filters was negative or clamped; it is empty without `keep`.
SCHEMA = (
    "(Tensor x, Tensor? fu, Tensor? fd, Tensor? b, int up, int down, SymInt[] padding, float gain, float slope, "
    "float? clamp, bool flip_filter, bool keep) -> (Tensor y, Tensor kept)"
)

# The derivative: upsample, multiply by 1, the slope or 0 as `kept` says, downsample. Linear in x, so its own derivative
# is the same op again, with the filters in each other's place. Paddings are [x, y], what lies left of and above the
# image before either filter; the sizes that follow are those of `kept` and, as [height, width], of the result. Each
# filter comes with a factor (up^2 for the one that upsampled at first).
LINEAR_SCHEMA = (
    "(Tensor x, Tensor kept, Tensor? fu, Tensor? fd, int up, int down, SymInt[] up_padding, SymInt[] down_padding, "
    "SymInt[] size, float[] filter_gains, float gain, float slope, float? clamp, bool flip_filter) -> Tensor"
)


def _register(
    name: str,
    forward: Callable[..., Any],
    linear: Callable[..., Any],
    allocate: Callable[..., torch.Tensor],
    kept_shape: Callable[..., Any],
) -> Callable[..., Any]:
    """Register `sg3::filtered_lrelu_NAME` and its derivative `..._linear`; returns the former.

    `allocate(x, height, width)` is an image such as the implementation gives for x,
    `kept_shape(x, fu, fd, up, down, padding)` the shape and dtype of what the forward op keeps.
    """

    def forward_fake(x, fu, fd, b, up, down, padding, gain, slope, clamp, flip_filter, keep):  # type: ignore[no-untyped-def]
        y = allocate(x, *_output_size(x, fu, fd, up, down, padding))
        shape, dtype = kept_shape(x, fu, fd, up, down, padding)
        return y, x.new_empty(shape if keep else [0], dtype=dtype)

    def linear_fake(x, kept, fu, fd, up, down, up_padding, down_padding, size, *_):  # type: ignore[no-untyped-def]
        return allocate(x, *size)

    def forward_save(ctx: Any, inputs: tuple[Any, ...], output: tuple[torch.Tensor, torch.Tensor]) -> None:
        x, fu, fd, _, up, down, (x0, _, y0, _), *pointwise, flip_filter, _ = inputs
        kept = output[1]
        ctx.mark_non_differentiable(kept)
        ctx.set_materialize_grads(False)  # or the backward pass would begin with a tensor of zeros as large as `kept`
        linear_save(ctx, (x, kept, fu, fd, up, down, [x0, y0], [0, 0], None, [up**2, 1.0], *pointwise, flip_filter))

    def linear_save(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor | None = None) -> None:
        x, kept, fu, fd, up, down, up_padding, down_padding, _, filter_gains, *pointwise, flip_filter = inputs
        ctx.save_for_backward(kept, fu, fd)
        ctx.factors = up, down
        ctx.paddings = up_padding, down_padding
        ctx.size = list(x.shape[2:])
        ctx.filter_gains = filter_gains
        ctx.pointwise = pointwise  # gain, slope, clamp
        ctx.flip_filter = flip_filter

    def adjoint(ctx: Any, g: torch.Tensor) -> torch.Tensor:
        """What a gradient g of the result is for the input: the filters change places and are reversed."""
        kept, fu, fd = ctx.saved_tensors
        up, down = ctx.factors
        up_padding, down_padding = ctx.paddings
        first = [taps - 1 - pad for taps, pad in zip(filter_size(fd), down_padding, strict=True)]
        second = [taps - 1 - pad for taps, pad in zip(filter_size(fu), up_padding, strict=True)]
        dx: torch.Tensor = linear_op(
            g, kept, fd, fu, down, up, first, second, ctx.size, ctx.filter_gains[::-1], *ctx.pointwise,
            not ctx.flip_filter,
        )  # fmt: skip
        return dx

    def forward_backward(ctx: Any, g: torch.Tensor | None, _: None) -> tuple[torch.Tensor | None, ...]:
        dx = adjoint(ctx, g) if g is not None and (ctx.needs_input_grad[0] or ctx.needs_input_grad[3]) else None
        db = dx.sum([0, 2, 3]) if dx is not None and ctx.needs_input_grad[3] else None
        return (dx, None, None, db, *[None] * 8)

    def linear_backward(ctx: Any, g: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        return (adjoint(ctx, g) if ctx.needs_input_grad[0] else None, *[None] * 13)

    schema = f"filtered_lrelu_{name}_linear{LINEAR_SCHEMA}"
    linear_op = register(schema, linear, linear_fake, linear_save, linear_backward)
    return register(f"filtered_lrelu_{name}{SCHEMA}", forward, forward_fake, forward_save, forward_backward)


filtered_lrelu_torch = _register("torch", _torch_forward, _torch_linear, _planar_image, _torch_kept)
filtered_lrelu_triton = _register("triton", _triton_forward, _triton_linear, new_image, _triton_kept)
