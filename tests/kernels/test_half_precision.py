"""Where float16 ends, small gradients and large samples: filtered_lrelu's Triton kernels."""

from __future__ import annotations

import pytest
import torch

from sg3.kernels.filtered_lrelu.op import filtered_lrelu_ref, filtered_lrelu_triton
from tests.helpers.compare import assert_within_budget
from tests.helpers.filtered_lrelu_cases import CASES, Case

pytestmark = pytest.mark.usefixtures("poisoned")


@pytest.mark.parametrize("name", ["T, up", "R, up"])
def test_gradients_of_scale_1e_minus_5_survive(name: str, device: str) -> None:
    """They lose little more than the rounding of the result does: they are not made smaller on the way."""
    case = CASES[name]
    fu, fd = case.filters(device)
    x, b = case.inputs(torch.float16, device)
    x.requires_grad_()
    y, _ = filtered_lrelu_triton(x, fu, fd, b, *case.arguments(), True)
    g = (torch.randn(y.shape, dtype=torch.float64) * 1e-5).half().to(device)
    (dx,) = torch.autograd.grad(y, x, g)
    exact_x = x.detach().double().requires_grad_()
    exact_b = None if b is None else b.double()
    (exact,) = torch.autograd.grad(filtered_lrelu_ref(exact_x, fu, fd, exact_b, *case.arguments()), exact_x, g.double())
    error, rounding = (torch.linalg.vector_norm(t.double() - exact) for t in (dx, exact.half()))
    assert error < 1.6 * rounding


@pytest.mark.parametrize("keep", [False, True])
def test_samples_beyond_the_largest_number(keep: bool, device: str) -> None:
    """Without a clamp they become the largest number, and not infinite, which would make their neighbours NaN."""
    case = Case(shape=(1, 1, 20, 22), clamp=None, bias=False)
    fu, fd = case.filters(device)
    x, _ = case.inputs(torch.float16, device)
    x[0, 0, 9, 9:12], x[0, 0, 14, 3:6] = 65000.0, -65000.0
    y, _ = filtered_lrelu_triton(x, fu, fd, None, *case.arguments(), keep)
    arguments = (*case.arguments()[:5], 65504.0, case.flip)
    exact = filtered_lrelu_ref(x.double(), fu, fd, None, *arguments)
    assert_within_budget(y, filtered_lrelu_ref(x, fu, fd, None, *arguments), exact)

