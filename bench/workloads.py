"""What is timed: an op at a layer's shape, or a part of a training step, with the ways to run it (peers).

A workload is plain data, so that it can be sent to another process. `prepare` makes its tensors and returns one
function per peer, `ref | torch | numba | triton`, `compile(ref)`, `compile(triton)` or `original`.
"""

from __future__ import annotations

import functools
import importlib
import os
import types
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from bench import roofline
from bench.shapes import Block, Layer
from sg3 import kernels

Tensors = list[torch.Tensor]
Op = Callable[..., torch.Tensor]


@dataclass(frozen=True)
class Peer:
    """A way to run a workload: `run` is what is timed, `check` returns what the gate compares, same random numbers."""

    run: Callable[[], object]
    check: Callable[[], Tensors]


class Workload(Protocol):
    """See the module. `kinks`: the gradient jumps where a sample changes sign; a rounding error may push it over."""

    @property
    def op(self) -> str: ...
    @property
    def title(self) -> str: ...
    @property
    def mode(self) -> str: ...
    @property
    def kinks(self) -> bool: ...
    @property
    def dtype(self) -> torch.dtype: ...
    def cost(self) -> roofline.Cost | None:
        """What the roofline model says of it, where it says something."""
    def prepare(self, device: torch.device) -> Callable[[str], Peer]:
        """Peer by name. Raises what the peer raises if it cannot run."""
    def exact(self, device: torch.device) -> Tensors | None:
        """What `check` should return, from the reference in higher precision; None if there is no such thing."""


def resolve_op(name: str, peer: str) -> Op:
    """The op as `peer` has it. For 'original' its module is named by the user in SG3_BENCH_ORIGINAL='OP=MODULE,...';
    the function in it has the op's name and documented arguments."""
    if peer == "original":
        modules = dict(item.split("=", 1) for item in os.environ["SG3_BENCH_ORIGINAL"].split(",") if "=" in item)
        if name not in modules:
            raise LookupError(f"SG3_BENCH_ORIGINAL names no module for {name}")
        return getattr(importlib.import_module(modules[name]), name)
    return functools.partial(getattr(kernels, name), impl=peer)


def compiled(function: Callable[..., Any], tag: str) -> Callable[..., Any]:
    """torch.compile with a code object of its own.

    Dynamo keeps what it compiled with the code object and does not guard on SG3_IMPL: two peers that share their code
    would share the first one's kernels.
    """
    def call(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    code = call.__code__.replace(co_name=f"call_{tag}")
    own = types.FunctionType(code, call.__globals__, f"call_{tag}", None, call.__closure__)
    return torch.compile(own, fullgraph=True, dynamic=False)


class OpWorkload:
    """What the ops have in common: inputs with gradients, one call, a gradient for a fixed random direction."""

    op: str
    backward: bool
    kinks = False

    @property
    def mode(self) -> str:
        return "forward+backward" if self.backward else "forward"

    @property
    def dtype(self) -> torch.dtype:
        raise NotImplementedError

    def inputs(self, device: torch.device) -> tuple[Tensors, Tensors]:
        """Tensors that get gradients, and constants (filters)."""
        raise NotImplementedError

    def call(self, op: Op, inputs: Sequence[torch.Tensor], constants: Sequence[Any]) -> torch.Tensor:
        raise NotImplementedError

    def prepare(self, device: torch.device) -> Callable[[str], Peer]:
        torch.manual_seed(0)
        inputs, constants = self.inputs(device)
        direction: Tensors = []  # filled by the first call, when the output's shape is known

        def peer(name: str) -> Peer:
            compile_it = name.startswith("compile(")
            op = resolve_op(self.op, name[8:-1] if compile_it else name)
            function: Callable[..., torch.Tensor] = lambda *each: self.call(op, each, constants)  # noqa: E731
            if compile_it:
                function = compiled(function, name[8:-1])
            run = functools.partial(self.evaluate, function, inputs, direction)
            return Peer(run, run)

        return peer

    def exact(self, device: torch.device) -> Tensors | None:
        torch.manual_seed(0)
        inputs, constants = self.inputs(device)
        op = resolve_op(self.op, "ref")
        double = [x.double() for x in inputs]
        return self.evaluate(lambda *each: self.call(op, each, constants), double, [], self.dtype)

    def evaluate(
        self, function: Callable[..., torch.Tensor], inputs: Tensors, direction: Tensors,
        direction_dtype: torch.dtype | None = None,
    ) -> Tensors:  # fmt: skip
        """[output], or [output, gradients ...]. The direction is drawn once, in the precision of the op's output."""
        if not self.backward:
            with torch.no_grad():
                return [function(*inputs)]
        leaves = [x.detach().requires_grad_(True) for x in inputs]
        y = function(*leaves)
        if not direction:
            generator = torch.Generator(y.device).manual_seed(1)
            drawn = torch.randn(y.shape, device=y.device, dtype=torch.float32, generator=generator)
            direction.append(drawn.to(direction_dtype or y.dtype).to(y.dtype))
        return [y.detach(), *torch.autograd.grad(y, leaves, direction)]


def layer_dtype(half: bool, device: torch.device) -> torch.dtype:
    """Networks use half precision on a GPU only."""
    return torch.float16 if half and device.type == "cuda" else torch.float32


@dataclass(frozen=True)
class FilteredLrelu(OpWorkload):
    """filtered_lrelu as a synthesis layer calls it, on some of its channels."""

    layer: Layer
    batch: int
    channels: int
    backward: bool
    device: str
    op = "filtered_lrelu"
    kinks = True

    @property
    def dtype(self) -> torch.dtype:
        return layer_dtype(self.layer.spec.use_fp16, torch.device(self.device))

    @property
    def title(self) -> str:
        a, size = self.layer, f"{self.batch}x{self.channels}x{self.layer.conv_size}²"
        kind = "radial " if a.radial else ""
        return f"{a.title} {size} -> {a.spec.out_size}², {kind}up {a.up} down {a.down}"

    def cost(self) -> roofline.Cost:
        return roofline.filtered_lrelu(self.layer, self.batch, self.channels, self.dtype, self.backward)

    def inputs(self, device: torch.device) -> tuple[Tensors, Tensors]:
        size = self.layer.conv_size
        x = torch.randn(self.batch, self.channels, size, size, device=device, dtype=self.dtype)
        b = torch.randn(self.channels, device=device, dtype=self.dtype) * 0.1
        return [x, b], list(self.layer.filters(device))  # type: ignore[arg-type]

    def call(self, op: Op, inputs: Sequence[torch.Tensor], constants: Sequence[Any]) -> torch.Tensor:
        a, torgb = self.layer, self.layer.spec.is_torgb
        return op(
            inputs[0], *constants, inputs[1], up=a.up, down=a.down, padding=[*a.padding, *a.padding],
            gain=1.0 if torgb else 2**0.5, slope=1.0 if torgb else 0.2, clamp=256.0,
        )  # fmt: skip


@dataclass(frozen=True)
class ModulatedConv2d(OpWorkload):
    """modulated_conv2d as a synthesis layer calls it, on some of its channels."""

    layer: Layer
    batch: int
    channels_in: int
    channels_out: int
    backward: bool
    device: str
    op = "modulated_conv2d"

    @property
    def dtype(self) -> torch.dtype:
        return layer_dtype(self.layer.spec.use_fp16, torch.device(self.device))

    @property
    def title(self) -> str:
        a = self.layer
        size = f"{self.batch}x{self.channels_in}x{a.spec.in_size}²"
        return f"{a.title} {size} -> {self.channels_out}x{a.conv_size}², kernel {a.kernel}"

    def cost(self) -> roofline.Cost:
        return roofline.modulated_conv2d(
            self.layer, self.batch, self.channels_in, self.channels_out, self.dtype, self.backward
        )

    def inputs(self, device: torch.device) -> tuple[Tensors, Tensors]:
        i, size, k = self.channels_in, self.layer.spec.in_size, self.layer.kernel
        x = torch.randn(self.batch, i, size, size, device=device, dtype=self.dtype)
        w = torch.randn(self.channels_out, i, k, k, device=device)
        s = torch.randn(self.batch, i, device=device) + 1
        return [x, w, s], []

    def call(self, op: Op, inputs: Sequence[torch.Tensor], constants: Sequence[Any]) -> torch.Tensor:
        return op(*inputs, demodulate=not self.layer.spec.is_torgb, padding=self.layer.kernel - 1)


@dataclass(frozen=True)
class Upfirdn2d(OpWorkload):
    """upfirdn2d on square planes; `taps` are the filter's, 1-D or as an outer product."""

    name: str
    batch: int
    channels: int
    size: int
    taps: tuple[float, ...]
    separable: bool
    up: int
    down: int
    padding: tuple[int, int]
    backward: bool
    half: bool
    device: str
    op = "upfirdn2d"

    @property
    def dtype(self) -> torch.dtype:
        return layer_dtype(self.half, torch.device(self.device))

    @property
    def out_size(self) -> int:
        return (self.size * self.up + sum(self.padding) - len(self.taps) + self.down) // self.down

    @property
    def title(self) -> str:
        return (f"{self.name} {self.batch}x{self.channels}x{self.size}² -> {self.out_size}², {len(self.taps)} taps"
                f"{' separable' if self.separable else ''}")

    def cost(self) -> roofline.Cost:
        shape = (len(self.taps),) * (1 if self.separable else 2)
        planes = self.batch * self.channels
        return roofline.upfirdn2d(planes, self.size, self.out_size, self.up, shape, self.dtype, self.backward)

    def inputs(self, device: torch.device) -> tuple[Tensors, Tensors]:
        x = torch.randn(self.batch, self.channels, self.size, self.size, device=device, dtype=self.dtype)
        return [x], [kernels.setup_filter(list(self.taps), device=device, separable=self.separable)]

    def call(self, op: Op, inputs: Sequence[torch.Tensor], constants: Sequence[Any]) -> torch.Tensor:
        return op(
            inputs[0], constants[0], up=self.up, down=self.down, padding=[*self.padding, *self.padding],
            gain=float(self.up**2),
        )  # fmt: skip


@dataclass(frozen=True)
class BiasAct(OpWorkload):
    """bias_act with leaky ReLU and clamp, as after the convolutions of the discriminator."""

    block: Block
    batch: int
    channels: int
    backward: bool
    device: str
    op = "bias_act"

    @property
    def dtype(self) -> torch.dtype:
        return layer_dtype(self.block.use_fp16, torch.device(self.device))

    @property
    def title(self) -> str:
        return f"{self.block.title} {self.batch}x{self.channels}x{self.block.size}²"

    def cost(self) -> roofline.Cost:
        return roofline.bias_act(self.batch * self.channels * self.block.size**2, self.dtype, self.backward)

    def inputs(self, device: torch.device) -> tuple[Tensors, Tensors]:
        x = torch.randn(self.batch, self.channels, self.block.size, self.block.size, device=device, dtype=self.dtype)
        return [x, torch.randn(self.channels, device=device, dtype=self.dtype)], []

    def call(self, op: Op, inputs: Sequence[torch.Tensor], constants: Sequence[Any]) -> torch.Tensor:
        return op(*inputs, act="lrelu", clamp=256.0)
