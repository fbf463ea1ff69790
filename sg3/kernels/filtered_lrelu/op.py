"""filtered_lrelu: the alias-free nonlinearity of StyleGAN3 (Karras et al. 2021, Figure 4b).

    x -> + b -> upsample by fu -> * gain -> leaky ReLU -> clamp -> downsample by fd -> y

The pointwise nonlinearity runs at a higher sampling rate, where the frequencies that it creates can still be told
apart from aliases, and the second filter removes them before the rate goes down again. The bias is added before the
zero padding, so the padded border holds 0, not b.

Words of this room:
    signs  what the gradient needs to know of each sample between the filters: it passed, took the slope or was clamped
    terms  the separable filters whose sum a two-dimensional filter is, as many as the dtype can tell
    grad   the gradient op: the same filters with 1, the slope or 0 between them; linear, so it is its own gradient op
"""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable
from math import sqrt
from types import ModuleType
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
    middle_size,
    output_size,
    signs_by_phase,
    signs_in_lines,
)
from sg3.kernels.memory_format import new_image
from sg3.kernels.registration import may_be_differentiated, register
from sg3.kernels.repeats import float32_switches, may_repeat, place_of, repeats, stream_of, value_of
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
    key = _key(x, fu, fd, b, up, down, padding, gain, slope, clamp, flip_filter, impl)
    if key is not None and (repeat := repeats.get(key)) is not None:
        return repeat(x) if b is None else repeat(x, b)

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
    with_signs = may_be_differentiated(x, b)
    arguments = x, fu, fd, b, up, down, (x0, x1, y0, y1), gain, slope, clamp, flip_filter, with_signs
    y: torch.Tensor
    if impl == "triton" and key is not None:
        from sg3.kernels.triton_launch import noted  # which imports Triton

        with noted() as starts:
            y = op(*arguments)[0]
        repeats.keep(key, starts, y, (x,) if b is None else (x, b), (fu, fd))
    else:
        y = op(*arguments)[0]
    return y


# Of up, down, gain, slope, clamp, flip_filter, impl.
TYPES = {(int, int, gain, slope, clamp, bool, str) for gain in (int, float) for slope in (int, float)
         for clamp in (int, float, type(None))}  # fmt: skip


def _key(
    x: torch.Tensor, fu: torch.Tensor | None, fd: torch.Tensor | None, b: torch.Tensor | None, up: int, down: int,
    padding: Padding, gain: float, slope: float, clamp: float | None, flip_filter: bool, impl: str,
) -> Hashable:  # fmt: skip
    """All that a call depends on, None where it has to be made in full. The first call has checked the arguments, so
    that those that are equal need no check, if they are of the types that are meant (True is 1)."""
    if not isinstance(x, torch.Tensor) or not (x.is_cuda or impl == "triton") or not may_repeat(x, b, fu, fd):
        return None
    numbers = up, down, gain, slope, clamp, flip_filter, impl
    if tuple(map(type, numbers)) not in TYPES:
        return None
    margins = (padding,) if isinstance(padding, int) else padding
    if not isinstance(margins, (list, tuple)) or {type(margin) for margin in margins} != {int}:
        return None
    return (
        place_of(x), None if b is None else place_of(b), value_of(fu), value_of(fd), numbers, tuple(margins),
        os.environ.get("SG3_IMPL"), stream_of(x), float32_switches() if x.dtype == torch.float32 else None,
    )  # fmt: skip


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


# ---- impl='triton', 'numba', 'torch': an op and its gradient op for each, registered with PyTorch ----
#
# `signs` is empty unless asked for, and always for impl='torch', which looks at x and b again instead.
#
# The gradient op takes a gradient g back through the filters, or, being its own gradient op, a change of x forward. It
# is given the signs, or for impl='torch' the op's x and b. From `up` to `flip_filter` its arguments are the fields of a
# `Resampling`; `size` is the result's [height, width]; `transposed` says that the filters are in each other's place.

SCHEMA = (
    "(Tensor x, Tensor? fu, Tensor? fd, Tensor? b, int up, int down, SymInt[] padding, float gain, float slope, "
    "float? clamp, bool flip_filter, bool with_signs) -> (Tensor y, Tensor signs)"
)
GRAD_SCHEMA = (
    "(Tensor g, Tensor? signs, Tensor? x, Tensor? b, Tensor? fu, Tensor? fd, int up, int down, SymInt[] up_padding, "
    "SymInt[] down_padding, float[] filter_gains, bool flip_filter, SymInt[] size, float gain, float slope, "
    "float? clamp, bool transposed) -> Tensor"
)


def _implementation(impl: str) -> ModuleType:
    """The file with the functions `forward` and `grad`. Two of them import what is slow to, or not there."""
    if impl == "triton":
        from sg3.kernels.filtered_lrelu import impl_triton

        return impl_triton
    if impl == "numba":
        from sg3.kernels.filtered_lrelu import impl_numba

        return impl_numba
    return impl_torch


class _Registration:
    """`sg3::filtered_lrelu_IMPL` and its gradient op `sg3::filtered_lrelu_grad_IMPL`.

    `signs_size(height, width, up, down)` are the rows and columns of uint8 that the signs of one plane take, for as
    many samples as the second filter reads; None for an implementation that has none.
    """

    def __init__(self, impl: str, signs_size: Callable[[int, int, int, int], tuple[int, int]] | None) -> None:
        self.impl, self.signs_size = impl, signs_size
        self.grad_op = register(
            f"filtered_lrelu_grad_{impl}{GRAD_SCHEMA}", self.grad, self.allocate_grad, self.save_grad,
            self.backward_grad,
        )  # fmt: skip
        self.op = register(f"filtered_lrelu_{impl}{SCHEMA}", self.forward, self.allocate, self.save, self.backward)

    def forward(
        self, x: torch.Tensor, fu: torch.Tensor | None, fd: torch.Tensor | None, b: torch.Tensor | None, up: int,
        down: int, padding: list[int], gain: float, slope: float, clamp: float | None, flip_filter: bool,
        with_signs: bool,
    ) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
        y, signs = self.allocate(x, fu, fd, b, up, down, padding, gain, slope, clamp, flip_filter, with_signs)
        _implementation(self.impl).forward(
            x, b, y, signs if signs.ndim == 4 else None, fu, fd, Resampling.forward(up, down, padding, flip_filter),
            gain, slope, clamp,
        )  # fmt: skip
        return y, signs

    def allocate(
        self, x: torch.Tensor, fu: torch.Tensor | None, fd: torch.Tensor | None, b: torch.Tensor | None, up: int,
        down: int, padding: list[int], gain: float, slope: float, clamp: float | None, flip_filter: bool,
        with_signs: bool,
    ) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
        y = new_image(x, *output_size(x, fu, fd, up, down, padding))
        shape = [0]
        if with_signs and self.signs_size is not None:
            shape = [*y.shape[:2], *self.signs_size(*middle_size(y.shape[2:], fd, down), up, down)]
        return y, x.new_empty(shape, dtype=torch.uint8)

    def save(self, ctx: Any, inputs: tuple[Any, ...], output: tuple[torch.Tensor, torch.Tensor]) -> None:
        x, fu, fd, b, up, down, padding, gain, slope, clamp, flip_filter, _ = inputs
        signs = output[1]
        ctx.mark_non_differentiable(signs)
        ctx.set_materialize_grads(False)  # or the backward pass would begin with zeros as large as the signs
        source = (None, x, b) if self.signs_size is None else (signs, None, None)
        ctx.save_for_backward(*source, fu, fd)
        ctx.resampling, ctx.transposed = Resampling.forward(up, down, padding, flip_filter), False
        ctx.size, ctx.pointwise = list(x.shape[2:]), (gain, slope, clamp)

    def backward(self, ctx: Any, g: torch.Tensor | None, _: None) -> tuple[torch.Tensor | None, ...]:
        need_x, _, _, need_b, *_ = ctx.needs_input_grad
        dx = self.take_back(ctx, g) if g is not None and (need_x or need_b) else None
        db = dx.sum([0, 2, 3]) if dx is not None and need_b else None
        return (dx if need_x else None, None, None, db, *[None] * 8)

    def take_back(self, ctx: Any, g: torch.Tensor) -> torch.Tensor:
        """What a gradient g of the result is for the input: the filters change places and are reversed."""
        signs, x, b, fu, fd = (t if t is None else t.detach() for t in ctx.saved_tensors)
        resampling = ctx.resampling.transposed(fu, fd)
        dx: torch.Tensor = self.grad_op(
            g, signs, x, b, fd, fu, *resampling.arguments(), ctx.size, *ctx.pointwise, not ctx.transposed
        )
        return dx

    def grad(
        self, g: torch.Tensor, signs: torch.Tensor | None, x: torch.Tensor | None, b: torch.Tensor | None,
        fu: torch.Tensor | None, fd: torch.Tensor | None, up: int, down: int, up_padding: list[int],
        down_padding: list[int], filter_gains: list[float], flip_filter: bool, size: list[int], gain: float,
        slope: float, clamp: float | None, transposed: bool,
    ) -> torch.Tensor:  # fmt: skip
        if signs is not None and signs.ndim != 4:
            raise RuntimeError("filtered_lrelu: a derivative was not expected when the op ran, without signs; "
                               "use impl='torch'")  # fmt: skip
        resampling = Resampling.of(up, down, up_padding, down_padding, filter_gains, flip_filter)
        y = new_image(g, size[0], size[1])
        _implementation(self.impl).grad(g, y, signs, x, b, fu, fd, resampling, gain, slope, clamp, transposed)
        return y

    def allocate_grad(self, g: torch.Tensor, *rest: Any) -> torch.Tensor:
        height, width = rest[11]
        return new_image(g, height, width)

    def save_grad(self, ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
        g, signs, x, b, fu, fd, *resampling, _, gain, slope, clamp, transposed = inputs
        ctx.save_for_backward(signs, x, b, fu, fd)
        ctx.resampling, ctx.transposed = Resampling.of(*resampling), transposed
        ctx.size, ctx.pointwise = list(g.shape[2:]), (gain, slope, clamp)

    def backward_grad(self, ctx: Any, g: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        return (self.take_back(ctx, g) if ctx.needs_input_grad[0] else None, *[None] * 16)


filtered_lrelu_torch = _Registration("torch", None).op
filtered_lrelu_numba = _Registration("numba", signs_by_phase).op
filtered_lrelu_triton = _Registration("triton", signs_in_lines).op
