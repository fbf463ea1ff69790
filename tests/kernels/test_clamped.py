"""The clamp of all formulas: its gradient is 1 where low <= x <= high, bounds included, on every version of PyTorch.

Both of its forms are tried on the PyTorch that runs here: PyTorch's own clamp where that has this gradient (2.13), and
the one by `torch.where` where it has not (2.15).
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf, nan

import pytest
import torch

from sg3.kernels import bias_act, filtered_lrelu
from sg3.kernels.bias_act import activations
from sg3.kernels.bias_act.activations import clamped, selected

Bound = float | None
FORMS = [clamped, selected]
VALUES = [-inf, -1.5, -1.0, -0.5, -0.0, 0.0, 0.5, 1.0, 1.5, inf, nan]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("low", "high", "passing"),
    [(-1.0, 1.0, [-1.0, -0.5, -0.0, 0.0, 0.5, 1.0]), (-0.5, None, [-0.5, -0.0, 0.0, 0.5, 1.0, 1.5, inf]),
     (None, 0.5, [-inf, -1.5, -1.0, -0.5, -0.0, 0.0, 0.5]), (0.0, 0.0, [-0.0, 0.0])],
)  # fmt: skip
def test_values_are_torchs_and_the_gradient_is_1_up_to_the_bounds(
    form: Callable[..., torch.Tensor], dtype: torch.dtype, low: Bound, high: Bound, passing: list[float]
) -> None:
    x = torch.tensor(VALUES, dtype=dtype, requires_grad=True)
    y = form(x, low, high)
    plain = x.detach().clamp(low, high)
    torch.testing.assert_close(y, plain, rtol=0, atol=0, equal_nan=True)
    assert torch.equal(y.signbit(), plain.signbit())  # of zeros as well
    (grad,) = torch.autograd.grad(y, x, torch.full_like(y, 3))
    assert grad.tolist() == [3.0 if value in passing else 0.0 for value in VALUES]


@pytest.mark.parametrize("form", FORMS)
def test_bounds_that_the_dtype_rounds(form: Callable[..., torch.Tensor]) -> None:
    """0.1 lies between two numbers of 16 bits: the rounded one is the bound, and passes."""
    x = torch.tensor([0.1, 0.2], dtype=torch.float16, requires_grad=True)
    y = form(x, -0.1, 0.1)
    assert torch.equal(y, x.detach()[:1].expand(2))
    assert torch.autograd.grad(y.sum(), x)[0].tolist() == [1.0, 0.0]


@pytest.mark.parametrize("form", FORMS)
def test_gradients_of_gradients(form: Callable[..., torch.Tensor]) -> None:
    x = torch.linspace(-2, 2, 8, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: form(x.pow(3), -1, 1), x)
    assert torch.autograd.gradgradcheck(lambda x: form(x.pow(3), -1, 1), x)
    edge = torch.ones((), requires_grad=True)
    (first,) = torch.autograd.grad(form(edge.pow(3), -1, 1), edge, create_graph=True)
    assert (first.item(), torch.autograd.grad(first, edge)[0].item()) == (3.0, 6.0)


@pytest.mark.parametrize("torchs", [True, False])
def test_compiled_and_exported(torchs: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    torchs = torchs and activations._TORCHS_PASSES  # what PyTorch's own form gives elsewhere is not ours
    monkeypatch.setattr(activations, "_TORCHS_PASSES", torchs)
    torch._dynamo.reset()
    x = torch.tensor(VALUES, requires_grad=True)
    compiled = torch.compile(lambda x: clamped(x * 1, -1, 1), fullgraph=True, backend="aot_eager")
    y = compiled(x)
    torch.testing.assert_close(y.detach(), x.detach().clamp(-1, 1), rtol=0, atol=0, equal_nan=True)
    assert torch.autograd.grad(y.sum(), x)[0].tolist() == [float(abs(value) <= 1) for value in VALUES]

    class Clamp(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return clamped(x, -1, 1)

    with torch.no_grad():
        exported = torch.export.export(Clamp(), (x.detach(),))
    # Without gradients there is one form, which export and its readers know.
    called = [node.target for node in exported.graph.nodes if node.op == "call_function"]
    assert called == [torch.ops.aten.clamp.default]


def test_what_was_measured_is_what_the_engine_gives() -> None:
    x = torch.ones((), requires_grad=True)
    assert (torch.autograd.grad(x.clamp(-1, 1), x)[0].item() == 1) == activations._TORCHS_PASSES
    with torch.inference_mode():
        assert activations._passes_at_its_bounds() == activations._TORCHS_PASSES
    with torch.no_grad(), torch.device("meta"):
        assert activations._passes_at_its_bounds() == activations._TORCHS_PASSES


def test_of_bias_act() -> None:
    x = torch.tensor([-9.0, -2.5, -0.0, 0.0, 0.5, 0.6, nan], requires_grad=True)
    y = bias_act(x, dim=0, act="lrelu", gain=1.0, alpha=0.2, clamp=0.5, impl="ref")
    expected = torch.tensor([0, 0.2, 0.2, 0.2, 1, 0, 0])
    assert torch.equal(torch.autograd.grad(y.sum(), x)[0], expected)


@pytest.mark.parametrize("impl", ["ref", "torch"])  # those of Numba and Triton are compared with ref in their own files
def test_of_filtered_lrelu(impl: str) -> None:
    x = torch.tensor([-9.0, -2.5, -0.0, 0.0, 0.5, 0.6], requires_grad=True)
    y = filtered_lrelu(x.reshape(1, 1, 1, -1), gain=1.0, slope=0.2, clamp=0.5, impl=impl)
    assert torch.equal(torch.autograd.grad(y.sum(), x)[0], torch.tensor([0, 0.2, 0.2, 0.2, 1, 0]))
