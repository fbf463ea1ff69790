"""What a network asks of the Triton kernels: its calls of registered ops, found without computing anything.

The network runs on PyTorch's meta device, where tensors have a shape and no content, as in inference and in training:
forward, gradients, and the penalties on gradients.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from sg3.canvas import size_of
from sg3.kernels.dispatch import asking_for
from sg3.models import Discriminator, Generator, stylegan2, stylegan3
from sg3.models.layers import set_half_type

META = torch.device("meta")
FILTERS = ("f", "fu", "fd")  # arguments of which the values count, too
MOST_TAPS = 64


@dataclass(frozen=True)
class Blank:
    """A tensor of which only this is known."""

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: torch.dtype

    @classmethod
    def of(cls, tensor: torch.Tensor) -> Blank:
        return cls(tuple(tensor.shape), tensor.stride(), tensor.dtype)

    def empty(self, device: torch.device) -> torch.Tensor:
        """Memory that nobody has touched."""
        return torch.empty_strided(self.shape, self.strides, dtype=self.dtype, device=device)

    def noise(self, device: torch.device) -> torch.Tensor:
        """Normally distributed numbers; elements may share their places, as those of expanded tensors do."""
        room = 1 + sum((n - 1) * step for n, step in zip(self.shape, self.strides, strict=True)) if self.size else 0
        return torch.randn(room, dtype=self.dtype, device=device).as_strided(self.shape, self.strides)

    @property
    def size(self) -> int:
        return torch.Size(self.shape).numel()


@dataclass(frozen=True)
class Taps:
    """A filter."""

    shape: tuple[int, ...]
    values: tuple[float, ...]

    @classmethod
    def of(cls, tensor: torch.Tensor) -> Taps:
        return cls(tuple(tensor.shape), tuple(tensor.detach().flatten().tolist()))

    def on(self, device: torch.device) -> torch.Tensor:
        return torch.tensor(self.values, device=device).reshape(self.shape)


@dataclass(frozen=True)
class Call:
    """A call of the registered op `sg3::OP`. Its tensors are `Blank`, or `Taps` where they are filters; the rest is as
    it was. `results` are the tensors that it returned."""

    op: str
    arguments: tuple[Any, ...]
    results: tuple[Blank, ...]

    @property
    def size(self) -> int:
        """Elements of all tensors."""
        return sum(blank.size for blank in (*self.arguments, *self.results) if isinstance(blank, Blank))

    def run(self, tensor: Callable[[Blank], torch.Tensor], device: torch.device) -> Any:
        """Make the call on a device, with what `tensor` makes of the blanks."""
        return self.start(self.prepared(tensor, device))

    def prepared(self, tensor: Callable[[Blank], torch.Tensor], device: torch.device) -> list[Any]:
        """The arguments of `start`."""
        return [
            tensor(value) if isinstance(value, Blank) else value.on(device) if isinstance(value, Taps)
            else list(value) if isinstance(value, tuple) else value for value in self.arguments
        ]  # fmt: skip

    def start(self, arguments: Sequence[Any]) -> Any:
        """The op's results for such arguments."""
        return getattr(torch.ops.sg3, self.op).default(*arguments)


@dataclass(frozen=True)
class Network:
    """A generator and, where it is known, the discriminator that it is trained with."""

    G: Generator
    D: Discriminator | None


def standard_networks() -> Iterator[Network]:
    """StyleGAN3-T and -R and StyleGAN2 at 1024 pixels, which have the layers of the smaller ones, too."""
    D = stylegan2.Discriminator(0, 1024, 3)
    yield Network(stylegan3.Generator(512, 0, 512, 1024, 3), D)
    radial: dict[str, Any] = {"conv_kernel": 1, "use_radial_filters": True, "channel_base": 65536, "channel_max": 1024}
    yield Network(stylegan3.Generator(512, 0, 512, 1024, 3, **radial), None)
    yield Network(stylegan2.Generator(512, 0, 512, 1024, 3), None)


def calls(networks: Iterable[Network], batch: int, bf16: bool = False) -> list[Call]:
    """The calls of all networks with batches of that size, each once, the largest first."""
    found: dict[Call, None] = {}
    for network in networks:
        found |= dict.fromkeys(_calls(network, batch, "bfloat16" if bf16 else "float16"))
    return sorted(found, key=lambda call: -call.size)


def _calls(network: Network, batch: int, half_type: str) -> list[Call]:
    short = [b for b in network.G.buffers() if b.ndim in (1, 2) and 0 < max(b.shape) <= MOST_TAPS]
    G = _on_meta(network.G, half_type)
    with asking_for("triton"), Recorder([Taps.of(b) for b in short]) as recorder:
        z, c = torch.empty(batch, G.z_dim, device=META), torch.empty(batch, G.c_dim, device=META)
        with torch.no_grad():
            G(z, c)
        _gradients(G(z, c).sum(), G)
        if isinstance(G, stylegan2.Generator):  # path lengths
            ws = G.mapping(z, c)
            slope = torch.autograd.grad(G.synthesis(ws).sum(), ws, create_graph=True)[0]
            _gradients(slope.square().sum(), G)
        if network.D is not None:
            D = _on_meta(network.D, half_type)
            size = (batch, G.img_channels, *size_of(G))
            images = torch.empty(size, device=META, requires_grad=True)
            logits = D(images, c)
            slope = torch.autograd.grad(logits.sum(), images, create_graph=True)[0]  # R1
            _gradients(logits.sum() + slope.square().sum(), D)
    return recorder.calls


def _on_meta(network: Any, half_type: str) -> Any:
    network = copy.deepcopy(network).to(META).train().requires_grad_(True)
    set_half_type(network, half_type)
    return network


def _gradients(loss: torch.Tensor, network: nn.Module) -> None:
    torch.autograd.grad(loss, list(network.parameters()), allow_unused=True)


class Recorder(TorchDispatchMode):
    """Writes down the calls of Triton ops. Filters, which have no content here, are found again by their shape: of
    several that have it, one after the other, which is how layers use them."""

    def __init__(self, filters: Iterable[Taps]) -> None:
        super().__init__()
        by_shape: dict[tuple[int, ...], list[Taps]] = {}
        for taps in filters:
            by_shape.setdefault(taps.shape, []).append(taps)
        self.filters = {shape: cycle(of_shape) for shape, of_shape in by_shape.items()}
        self.calls: list[Call] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        results = func(*args, **(kwargs or {}))
        name = func.name().removeprefix("sg3::")
        if func.namespace == "sg3" and name.endswith("_triton"):
            names = [argument.name for argument in func._schema.arguments]
            plain = tuple(self._plain(*pair) for pair in zip(names, args, strict=False))
            outputs = results if isinstance(results, tuple) else (results,)
            self.calls.append(Call(name, plain, tuple(Blank.of(tensor) for tensor in outputs)))
        return results

    def _plain(self, name: str, value: Any) -> Any:
        if not isinstance(value, torch.Tensor):
            return tuple(value) if isinstance(value, list) else value
        if name not in FILTERS:
            return Blank.of(value)
        shape = tuple(value.shape)
        if shape in self.filters:
            return next(self.filters[shape])
        return Taps(shape, (1 / value.numel(),) * value.numel())
