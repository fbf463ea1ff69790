"""What is modelled: every op of sg3 that has a Triton kernel, in the shapes that StyleGAN3 and 2 run.

A class is called by the op's own registered function, so that the production launchers decide all else. To add a
kernel, add a class that reaches it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product

import torch

from bench.shapes import Layer, layers
from sg3.kernels.bias_act.op import bias_act_triton
from sg3.kernels.filtered_lrelu.op import filtered_lrelu_triton
from sg3.kernels.modulated_conv2d.op import scaled_conv2d
from sg3.kernels.upfirdn2d.op import upfirdn2d_triton

SIZE = 276  # of filtered_lrelu's square outputs, in pixels: a layer of every network from 256 pixels on
PLANES = (4, 256)  # images and channels
HALVES = (torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class Class:
    """A kind of call. `run` makes it and returns what its last launch writes. `rounds`: of the loops whose end data
    decides, in the order of the code."""

    op: str
    config: str
    mode: str
    dtype: torch.dtype
    run: Callable[[], torch.Tensor]
    rounds: tuple[int, ...] = ()

    @property
    def key(self) -> tuple[str, str, str]:
        return self.config, self.mode, str(self.dtype).removeprefix("torch.")

    @property
    def name(self) -> str:
        return "/".join((self.op, *self.key))


def classes(size: int = SIZE) -> Iterator[Class]:
    """All of them. `size`: of filtered_lrelu's outputs."""
    yield from filtered_lrelu_classes(size)
    yield from upfirdn2d_classes()
    yield from bias_act_classes()
    yield from convolution_classes()


# The forward class of each kind of layer, the name of its gradient, and the layer that it is. Radial filters are those
# of three terms in half precision; some layers' have two. These names, and those of the modes, are the ones under which
# the old plugin's figures are known (plugin.json), so that tables can be joined.
LAYERS = {
    "2->2 separable": ("2->2 separable", "t-1024", "L8_276_203"),
    "4->2 separable": ("2->4 separable (derivative)", "t-1024", "L7_276_323"),
    "2->2 radial down": ("2->2 radial up (derivative)", "r-1024", "L6_148_1024"),
    "4->2 radial down": ("2->4 radial up (derivative)", "r-1024", "L9_532_256"),
    "1->1": ("1->1", "t-1024", "L14_1024_3"),
}
FORWARD_WITH_SIGNS, FORWARD, GRAD = "forward, signs written", "forward, no signs", "derivative, signs read"


def filtered_lrelu_classes(size: int) -> Iterator[Class]:
    for dtype in (*HALVES, torch.float32):
        for forward, (grad, network, name) in LAYERS.items():
            layer = next(x for x in layers(network) if x.name == name)
            for mode in (FORWARD_WITH_SIGNS, FORWARD, GRAD):
                run = filtered_lrelu_run(layer, size, mode, dtype)
                yield Class("filtered_lrelu", grad if mode == GRAD else forward, mode, dtype, run)


def filtered_lrelu_run(layer: Layer, size: int, mode: str, dtype: torch.dtype) -> Callable[[], torch.Tensor]:
    """A layer's call of the op in one of the modes, for outputs of `size`."""

    def run() -> torch.Tensor:
        fu, fd = layer.filters()
        x0, x1 = layer.padding
        # The input that the layer's padding makes `size` of.
        side = -(-(size * layer.down - x0 - x1 + layer.up_taps + layer.down_taps - 1 - layer.down) // layer.up)
        x = torch.empty(*PLANES, side, side, dtype=dtype, requires_grad=mode == GRAD)
        y = filtered_lrelu_triton(
            x, fu, fd, torch.empty(PLANES[1], dtype=dtype), layer.up, layer.down, (x0, x1, x0, x1), 2**0.5, 0.2, 256.0,
            False, mode != FORWARD,
        )[0]  # fmt: skip
        return torch.autograd.grad(y, x, torch.empty_like(y))[0] if mode == GRAD else y

    return run


# The filter's shape, up and down along x and y, the padding of StyleGAN2's and the augmentation's calls.
FILTERS = {
    "4x4 down 1": ((4, 4), (1, 1), (1, 1), (2, 2, 2, 2)),
    "4x4 down 2": ((4, 4), (1, 1), (2, 2), (1, 1, 1, 1)),
    "4x4 up 2": ((4, 4), (2, 2), (1, 1), (2, 1, 2, 1)),
    "1x12 up 2": ((1, 12), (2, 1), (1, 1), (6, 5, 0, 0)),
    "12x1 down 2": ((12, 1), (1, 1), (1, 2), (0, 0, 5, 5)),
    "1x61 down 1": ((1, 61), (1, 1), (1, 1), (30, 30, 0, 0)),
}


def upfirdn2d_classes() -> Iterator[Class]:
    for dtype, layout, (config, filter) in product((torch.float16, torch.float32), LAYOUTS, FILTERS.items()):
        yield Class("upfirdn2d", f"{config} {layout}", "forward", dtype, _upfirdn2d(*filter, layout, dtype))


def _upfirdn2d(
    taps: tuple[int, int], up: tuple[int, int], down: tuple[int, int], padding: tuple[int, int, int, int], layout: str,
    dtype: torch.dtype,
) -> Callable[[], torch.Tensor]:  # fmt: skip
    return lambda: upfirdn2d_triton(image(64, 256, layout, dtype), torch.ones(taps), up, down, padding, False, 1.0)


def bias_act_classes() -> Iterator[Class]:
    modes = ("forward, signs written", "forward, no signs", "grad")
    for dtype, layout, act, mode in product((torch.float16, torch.float32), LAYOUTS, ("lrelu", "swish"), modes):
        if act == "lrelu" or mode != "forward, signs written":  # smooth activations keep their input
            yield Class("bias_act", f"{act} {layout}", mode, dtype, _bias_act(act, mode, layout, dtype))


def _bias_act(act: str, mode: str, layout: str, dtype: torch.dtype) -> Callable[[], torch.Tensor]:
    def run() -> torch.Tensor:
        x = image(64, 256, layout, dtype).requires_grad_(mode != "forward, no signs")
        y = bias_act_triton(x, torch.empty(64, dtype=dtype), None, None, 1, act, 0.2, 2**0.5, 256.0)
        return torch.autograd.grad(y, x, torch.empty_like(y))[0] if mode == "grad" else y

    return run


# Kernel's side, input and output channels, side of the input: of layers of 1024-T and 1024-R.
CONVOLUTIONS = {
    "3x3 512->512": (3, 512, 512, 148), "3x3 323->203": (3, 323, 203, 276), "3x3 51->32": (3, 51, 32, 532),
    "1x1 1024->1024": (1, 1024, 1024, 148),
}  # fmt: skip


def convolution_classes() -> Iterator[Class]:
    for dtype, layout, (config, shape) in product((torch.float16, torch.float32), LAYOUTS, CONVOLUTIONS.items()):
        for mode in ("forward", "grad"):
            run = _convolution(*shape, mode, layout, dtype)
            yield Class("modulated_conv2d", f"{config} {layout}", mode, dtype, run)


def _convolution(
    kernel: int, ins: int, outs: int, size: int, mode: str, layout: str, dtype: torch.dtype
) -> Callable[[], torch.Tensor]:
    def run() -> torch.Tensor:
        x = image(ins, size, layout, dtype)
        before, after = torch.empty(len(x), ins), torch.empty(len(x), outs)
        if mode == "grad":  # of the input and the styles, by one launch
            x.requires_grad_()
            before.requires_grad_()
        weights = torch.empty(outs, ins, kernel, kernel, dtype=dtype)
        y = scaled_conv2d(x, weights, before, after, [kernel - 1] * 2)
        return torch.autograd.grad(y, (x, before), torch.empty_like(y))[0] if mode == "grad" else y

    return run


LAYOUTS = ("contiguous", "channels_last")


def image(channels: int, size: int, layout: str, dtype: torch.dtype) -> torch.Tensor:
    """Memory that nobody touches, 4 images."""
    x = torch.empty(4, size, size, channels, dtype=dtype).permute(0, 3, 1, 2)
    return x if layout == "channels_last" else torch.empty(x.shape, dtype=dtype)
