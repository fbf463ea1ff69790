"""Networks in the hands of PyTorch: other types, copies, traces, exports, hooks, data parallelism."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from sg3.models import stylegan2
from sg3.models.layers import kept_by
from tests.helpers.for_tools import tiny2, tiny3

C = torch.eye(2)[[0, 1, 0, 1]]


class Case:
    """A network, and how it is called: by position, and with these keywords."""

    def __init__(self, network: nn.Module, first: torch.Tensor, name: str, keywords: dict[str, Any]) -> None:
        self.network = network.eval().requires_grad_(False)
        self.name = name
        self.inputs = (first, C)
        self.keywords = keywords

    def __call__(self, network: nn.Module | None = None, count: int = 4) -> torch.Tensor:
        inputs = [x[:count] for x in self.inputs]
        return (network or self.network)(*inputs, **self.keywords)


def sg2() -> Case:
    return Case(tiny2(c_dim=2), torch.randn(4, 8), "z", {"noise_mode": "const"})


def sg3_t() -> Case:
    return Case(tiny3(c_dim=2), torch.randn(4, 8), "z", {"noise_mode": "const"})


def sg3_r() -> Case:
    return Case(tiny3(c_dim=2, conv_kernel=1, use_radial_filters=True), torch.randn(4, 8), "z", {"noise_mode": "const"})


def discriminator() -> Case:
    statistics = {"mbstd_group_size": 2}
    D = stylegan2.Discriminator(2, 16, 3, channel_base=256, channel_max=16, epilogue_kwargs=statistics)
    return Case(D, torch.randn(4, 3, 16, 16), "img", {})


CASES = {"sg2": sg2, "sg3-t": sg3_t, "sg3-r": sg3_r, "D": discriminator}
every_network = pytest.mark.parametrize("make", CASES.values(), ids=CASES)
# What takes seconds: configuration R has nothing of its own there.
most_networks = pytest.mark.parametrize(
    "make", [pytest.param(make, marks=[pytest.mark.slow] * (make is sg3_r)) for make in CASES.values()], ids=CASES
)


@every_network
@pytest.mark.parametrize(("cast", "dtype", "close"), [
    (nn.Module.half, torch.float32, 0.01), (nn.Module.bfloat16, torch.float32, 0.05),
    (nn.Module.double, torch.float64, 1e-5),
], ids=["half", "bfloat16", "double"])  # fmt: skip
def test_other_types(make: Callable[[], Case], cast: Any, dtype: torch.dtype, close: float) -> None:
    """Weights in 16 bits, computed with in float32, and all in float64; gradients of the weights' type."""
    case = make()
    expected = case()
    network = cast(copy.deepcopy(case.network)).requires_grad_(True)
    out = case(network)
    assert out.dtype == dtype
    assert (out - expected).abs().max() < close * expected.abs().max()
    out.sum().backward()
    assert all(p.grad is not None and p.grad.dtype == p.dtype for p in network.parameters())
    with torch.no_grad():
        kinds = {t.dtype for t in network.state_dict().values()}
        inputs = [x.to(next(iter(kinds))) for x in case.inputs]
        assert network(*inputs, **case.keywords).dtype == dtype


@every_network
def test_double_is_double(make: Callable[[], Case]) -> None:
    """Not float32 in between: gradcheck would not pass."""
    case = make()
    network = copy.deepcopy(case.network).double()
    first = case.inputs[0][:2].double().requires_grad_(True)
    direction, step = torch.randn_like(first), 1e-5
    (grad,) = torch.autograd.grad(network(first, C[:2].double(), **case.keywords).sum(), first)
    with torch.no_grad():
        ahead, behind = (network(first + s * direction, C[:2].double(), **case.keywords).sum() for s in (step, -step))
    measured = (ahead - behind) / (2 * step)
    assert abs((grad * direction).sum() - measured) < 1e-5 * grad.norm() * direction.norm()


@every_network
def test_back_in_float32_it_is_what_it_was(make: Callable[[], Case]) -> None:
    case = make()
    assert torch.equal(case(copy.deepcopy(case.network).double().float()), case())


@every_network
def test_copies_are_independent(make: Callable[[], Case]) -> None:
    case = make()
    expected = case()  # which keeps what follows from the weights
    copied = copy.deepcopy(case.network)
    assert torch.equal(case(copied), expected)
    for parameter in copied.parameters():
        parameter.mul_(2)
    assert not torch.equal(case(copied), expected)
    assert torch.equal(case(), expected)


class WithKeywords(nn.Module):
    """For traces, which take no keywords."""

    def __init__(self, case: Case) -> None:
        super().__init__()
        self.network = case.network
        self.keywords = case.keywords

    def forward(self, first: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        return self.network(first, c, **self.keywords)


@most_networks
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore::DeprecationWarning")
def test_traced(make: Callable[[], Case]) -> None:
    case = make()
    traced = torch.jit.trace(WithKeywords(case), case.inputs)
    other = (torch.randn_like(case.inputs[0]), C.flip(0))
    assert torch.equal(traced(*other), case.network(*other, **case.keywords))


@most_networks
@pytest.mark.parametrize("dynamic", [pytest.param(False, marks=pytest.mark.slow), True])
def test_exported(make: Callable[[], Case], dynamic: bool) -> None:
    """For one size of batch, and for any. (D's statistics take groups, which no batch of any size is made of.)"""
    case = make()
    if dynamic and case.name == "img":
        case.network.b4.mbstd = None
        case.network.b4.conv.weight = nn.Parameter(case.network.b4.conv.weight[:, :-1].clone())
    n = torch.export.Dim("n", min=1, max=64)
    shapes = {case.name: {0: n}, "c": {0: n}, **dict.fromkeys(case.keywords)} if dynamic else None
    program = torch.export.export(case.network, case.inputs, case.keywords, dynamic_shapes=shapes, strict=False)
    exported = program.module()
    for count in (4, 1, 3) if dynamic else (4,):
        torch.testing.assert_close(case(exported, count), case(count=count))


@every_network
@pytest.mark.filterwarnings("ignore:Full backward hook is firing")
def test_hooks(make: Callable[[], Case]) -> None:
    """Every layer is called as a module, so that hooks see it, and may change what it gives."""
    case = make()
    seen: set[str] = set()
    expected = case()
    for name, module in case.network.named_modules():
        module.register_forward_hook(lambda m, args, out, name=name: seen.add(name))
        module.register_full_backward_hook(lambda m, before, after: None)
    case.network.requires_grad_(True)
    out = case()
    out.sum().backward()
    assert seen == {name for name, _ in case.network.named_modules()}
    torch.testing.assert_close(out.detach(), expected)
    case.network.register_forward_hook(lambda m, args, out: out * 0)
    assert case().abs().max() == 0


@every_network
def test_data_parallel(make: Callable[[], Case]) -> None:
    """On a machine without GPUs it calls the network; its replicas are made here by hand."""
    case = make()
    assert torch.equal(nn.DataParallel(case.network)(*case.inputs, **case.keywords), case())
    kept = kept_by(case.network)
    assert kept is not None
    replica = case.network._replicate_for_data_parallel()
    assert kept_by(replica) is None  # what its original keeps may be on another device
