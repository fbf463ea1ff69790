"""Where nobody watches, calling an op calls its implementation; everywhere else PyTorch has its say."""

from __future__ import annotations

import traceback
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._python_dispatch import TorchDispatchMode

from sg3.kernels import filtered_lrelu, registration

SCHEMA = "watched_for_test(Tensor x, Tensor? b, SymInt[] padding, float gain, float? clamp) -> Tensor"


class Seen(TorchDispatchMode):
    """Names of what PyTorch's dispatcher is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(func.name())
        return func(*args, **(kwargs or {}))


@pytest.fixture(scope="module")
def calls() -> list[tuple[Any, ...]]:
    """What the implementation was called with."""
    return []


@pytest.fixture(scope="module")
def op(calls: list[tuple[Any, ...]]) -> Any:
    """y = gain * x, by an implementation that notes whether PyTorch's dispatcher called it, and its arguments."""

    def implementation(x: torch.Tensor, *rest: Any) -> torch.Tensor:
        dispatched = any(Path(frame.filename).name == "_ops.py" for frame in traceback.extract_stack())
        calls.append((dispatched, *rest))
        return x.new_empty(x.shape).copy_(x * rest[2])

    def save(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
        ctx.gain = inputs[3]

    def backward(ctx: Any, g: torch.Tensor) -> tuple[Any, ...]:
        return g * ctx.gain, None, None, None, None

    return registration.register(SCHEMA, implementation, lambda x, *rest: x.new_empty(x.shape), save, backward)


@pytest.fixture(autouse=True)
def _forget(calls: list[tuple[Any, ...]]) -> None:
    calls.clear()


X = torch.arange(6.0)


@pytest.mark.parametrize("mode", [nullcontext, torch.no_grad, torch.inference_mode])
def test_plain_calls_go_straight_to_the_implementation(op, calls, mode) -> None:
    x = X.clone() if mode is nullcontext else X.clone().requires_grad_()
    with mode():
        y = op(x, None, (1, 2), 3, 256)
    assert torch.equal(y, 3 * X)
    assert not y.requires_grad
    # ... with the arguments that the dispatcher would have made of these.
    assert calls == [(False, None, [1, 2], 3.0, 256.0)]
    assert [type(a) for a in calls[0][2:]] == [list, float, float]


@pytest.mark.parametrize("watched", [False, True])
def test_gradients_go_through_autograd(op, calls, watched) -> None:
    x = X.clone().requires_grad_()
    with Seen() if watched else nullcontext():
        y = op(x, None, (1, 2), 3, None)
    assert y.grad_fn is not None
    assert calls == [(watched, None, [1, 2], 3.0, None)]
    assert [type(a) for a in calls[0][2:4]] == [list, float]
    assert torch.equal(torch.autograd.grad(y.sum(), x)[0], torch.full_like(x, 3))
    b = X.clone().requires_grad_()  # any tensor counts
    assert op(X, b, [1, 2], 3, None).grad_fn is not None


def derivatives(seen: Any) -> list[torch.Tensor]:
    """An op whose derivative is another one with a derivative: values, gradients, and those of their sum of squares."""
    generator = torch.Generator().manual_seed(0)
    x, b = torch.randn(2, 3, 9, 7, generator=generator), torch.randn(3, generator=generator)
    f = torch.randn(12, generator=generator)
    x.requires_grad_()
    b.requires_grad_()
    with seen:
        y = filtered_lrelu(x, f, f, b, 2, 2, 11, clamp=1.0, impl="torch")
        grads = torch.autograd.grad((y * torch.arange(7)).sum(), [x, b], create_graph=True)
        again = torch.autograd.grad(sum((grad * y.mean()).square().sum() for grad in grads), [x, b])
    return [y, *grads, *again]


def test_gradients_are_the_same_whether_anybody_watches() -> None:
    seen = Seen()
    watched = derivatives(seen)
    assert {"sg3::filtered_lrelu_torch", "sg3::filtered_lrelu_grad_torch"} <= set(seen.names)
    for a, b in zip(derivatives(nullcontext()), watched, strict=True):
        assert torch.equal(a, b)
        assert a.stride() == b.stride()


def test_the_profiler_sees_an_op_with_gradients(op) -> None:
    x = X.clone().requires_grad_()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        op(x, None, [1, 2], 3.0, None).sum().backward()
    assert any("watched_for_test" in event.name for event in profile.events())
    assert torch.equal(x.grad, torch.full_like(X, 3))


def test_modes_and_transforms_see_the_op(op, calls) -> None:
    with Seen() as seen:
        op(X, None, [1, 2], 3.0, None)
    assert seen.names == ["sg3::watched_for_test"]
    calls.clear()

    with FakeTensorMode() as fakes:
        y = op(fakes.from_tensor(X), None, [1, 2], 3.0, None)
    assert y.shape == X.shape
    assert calls == []

    graph = make_fx(lambda x: op(x, None, [1, 2], 3.0, None))(X)
    assert any("watched_for_test" in str(node.target) for node in graph.graph.nodes)
    calls.clear()

    assert torch.equal(torch.vmap(lambda x: op(x, None, [1, 2], 3.0, None))(X[None]), 3 * X[None])
    assert [call[0] for call in calls] == [True]
    calls.clear()

    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        op(X, None, [1, 2], 3.0, None)
    assert "sg3::watched_for_test" in {event.name for event in profile.events()}


def test_tensors_of_other_kinds_keep_their_say(op) -> None:
    class Tagged(torch.Tensor):
        pass

    y = op(X.as_subclass(Tagged), None, [1, 2], 3.0, None)
    assert type(y) is Tagged


def test_compiled_and_exported(op, calls) -> None:
    def function(x: torch.Tensor) -> torch.Tensor:
        return op(x, None, [1, 2], 3.0, None) + 1

    with torch.no_grad():
        compiled = torch.compile(function, backend="eager", fullgraph=True)
        assert torch.equal(compiled(X), 3 * X + 1)

    class Module(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return function(x)

    exported = torch.export.export(Module(), (X,))
    assert any("watched_for_test" in str(node.target) for node in exported.graph.nodes)


def test_a_missing_argument_is_an_error(op) -> None:
    with pytest.raises(ValueError, match="zip"):
        op(X, None, [1, 2], 3.0)
