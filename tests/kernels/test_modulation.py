"""The two ops behind a modulated convolution: gradients by hand in float64, kernels in the interpreter or on a GPU."""

from __future__ import annotations

import pytest
import torch

from sg3.kernels.modulated_conv2d import modulation
from sg3.kernels.modulated_conv2d.modulation import modulation_scales_gradient, normalized_weights_gradient
from tests.helpers.compare import assert_within_budget

EPS = 1e-8 / 27


def unit_weights(w: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    u = w / w.square().sum([1, 2, 3], keepdim=True).sqrt()
    return u, u.square().sum([2, 3])


def scales(s: torch.Tensor, gain: torch.Tensor | None, squares: torch.Tensor | None) -> list[torch.Tensor]:
    t = s if squares is None else s / s.square().mean().sqrt()
    before = t if gain is None else t * gain
    return [before] if squares is None else [before, (t.square() @ squares.t() + EPS).rsqrt()]


class ByHand(torch.autograd.Function):
    """The formula, with the gradient that the op has."""

    @staticmethod
    def forward(ctx, w):
        ctx.save_for_backward(w)
        return unit_weights(w)

    @staticmethod
    def backward(ctx, du, dq):
        return normalized_weights_gradient(ctx.saved_tensors[0], du, dq)


class ScalesByHand(torch.autograd.Function):
    @staticmethod
    def forward(ctx, s, gain, squares):
        ctx.save_for_backward(s, gain, squares)
        return tuple(scales(s, gain, squares))

    @staticmethod
    def backward(ctx, dbefore, dafter=None):
        return modulation_scales_gradient(*ctx.saved_tensors, dbefore, dafter, torch.float64, EPS)


def test_gradients_of_the_weights_by_hand() -> None:
    w = torch.randn(3, 2, 2, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(ByHand.apply, w)
    assert torch.autograd.gradgradcheck(ByHand.apply, w)


@pytest.mark.parametrize("gain", [None, (), (4,), (3, 1), (3, 4)])
@pytest.mark.parametrize("demodulate", [True, False])
def test_gradients_of_the_scales_by_hand(gain: tuple[int, ...] | None, demodulate: bool) -> None:
    def leaf(*shape: int) -> torch.Tensor:
        return (torch.rand(shape, dtype=torch.float64) + 0.5).requires_grad_()

    inputs = leaf(3, 4), None if gain is None else leaf(*gain), leaf(5, 4) if demodulate else None
    assert torch.autograd.gradcheck(ScalesByHand.apply, inputs)
    assert torch.autograd.gradgradcheck(ScalesByHand.apply, inputs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (5, 70, 3, 3), (34, 3, 5, 4), (2, 1100, 1, 1)], ids=str)
def test_weights(shape: tuple[int, ...], dtype: torch.dtype, device: str, poisoned: None) -> None:
    w = (3 * torch.randn(shape)).to(device)
    u, squares = modulation.normalized_weights(w, dtype)
    exact, exact_squares = unit_weights(w.double())
    eager, eager_squares = unit_weights(w)
    assert u.dtype == dtype
    assert u.is_contiguous()
    assert_within_budget(u, eager.to(dtype), exact)
    assert_within_budget(squares, eager_squares, exact_squares)
    apart = torch.empty(*shape[:3], 2 * shape[3], device=device)[..., ::2].copy_(w)
    assert torch.equal(modulation.normalized_weights(apart, dtype)[0], u)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("size", [(1, 1, 1), (3, 70, 33), (2, 700, 5)], ids=str)
@pytest.mark.parametrize("demodulate", [True, False])
def test_scales(
    size: tuple[int, int, int], demodulate: bool, dtype: torch.dtype, device: str, poisoned: None
) -> None:
    n, i, o = size
    s, squares = torch.randn(n, i).to(device), torch.rand(o, i).to(device) if demodulate else None
    for gain in (None, torch.tensor(1.7), torch.rand(i) + 0.5, torch.rand(n, 1) + 0.5, torch.rand(n, i) + 0.5):
        gain = gain if gain is None else gain.to(device)
        found = modulation.modulation_scales(s, gain, squares, dtype, EPS)
        exact = scales(s.double(), *(t if t is None else t.double() for t in (gain, squares)))
        for result, eager, truth in zip(found, scales(s, gain, squares), exact, strict=False):
            assert result.dtype == dtype
            assert_within_budget(result, eager.to(dtype), truth)


def test_a_sample_without_style_stays_finite_in_float16(device: str) -> None:
    s, squares = torch.tensor([[0.0, 0.0], [1.0, 2.0]], device=device), torch.ones(3, 2, device=device)
    before, after = modulation.modulation_scales(s, None, squares, torch.float16, 1e-12)
    assert before[0].tolist() == [0, 0]
    assert after[0].tolist() == [torch.finfo(torch.float16).max] * 3
    nan = modulation.modulation_scales(torch.full_like(s, float("nan")), None, squares, torch.float16, 1e-12)
    assert all(t.isnan().all() for t in nan)


def test_as_pytorch_expects(device: str) -> None:
    w = torch.randn(3, 2, 2, 2, device=device, requires_grad=True)
    torch.library.opcheck(torch.ops.sg3.normalized_weights_triton, (w, torch.float32))
    s, gain = torch.rand(2, 3, device=device, requires_grad=True), torch.rand(3, device=device, requires_grad=True)
    squares = torch.rand(4, 3, device=device, requires_grad=True)
    torch.library.opcheck(torch.ops.sg3.modulation_scales_triton, (s, gain, squares, torch.float32, EPS))
    torch.library.opcheck(torch.ops.sg3.modulation_scales_triton, (s, None, None, torch.float32, EPS))
