"""Where float16 ends, small gradients and large samples: filtered_lrelu's Triton kernels."""

from __future__ import annotations

import pytest
import torch

from sg3.kernels.filtered_lrelu.op import filtered_lrelu_ref, filtered_lrelu_triton
from tests.helpers.compare import assert_within_budget
from tests.helpers.filtered_lrelu_cases import CASES, F64, Case, between_filters, gradient
from tests.helpers.filtered_lrelu_signs import marches, of_lines

pytestmark = pytest.mark.usefixtures("poisoned")


@pytest.mark.parametrize(("name", "most"), [("T, up", 1.6), ("R, up", 1.7)])
def test_gradients_of_scale_1e_minus_5_survive(name: str, most: float, device: str) -> None:
    """They lose little more than the rounding of the result does: they are not made smaller on the way. (One more
    rounding to float16, in between, makes that 1.4 to 1.6 times as much; a radial filter is a sum of such products.)"""
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
    assert error < most * rounding


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



def with_samples_at(value: float, case: Case, x: torch.Tensor, fu: torch.Tensor | None) -> torch.Tensor:
    """x, changed so that here and there a sample between the filters comes as close to `value` as float16 allows."""
    x = x.clone()
    for i in range(6, x.shape[2] - 5, 8):
        for j in range(6, x.shape[3] - 5, 8):
            for pixel in ((i, j), (i, j + 2)):  # the second has little weight at the first one's sample
                alone = torch.zeros_like(x, dtype=F64)
                alone[0, 0, pixel[0], pixel[1]] = 1
                weights = between_filters(case, alone, None, fu)
                if pixel == (i, j):
                    sample = int(weights.argmax())
                weight = float(weights.flatten()[sample])
                weight = weight if weight > 0 else weight / case.slope
                v = float(between_filters(case, x.double(), None, fu).flatten()[sample])
                x[0, 0, pixel[0], pixel[1]] += (value - (v if v > 0 else v / case.slope)) / weight
    return x


@pytest.mark.parametrize("clamp", [None, 0.8])
def test_isolated_errors_of_gradients_are_samples_that_changed_sides(clamp: float | None, device: str) -> None:
    """Where a gradient is far off, a sample at the kink or the clamp's edge, which rounding may move across it, is on
    the other side than in the exact result; where no such sample is in reach, it is as exact as any sum of its size."""
    case = Case(up=4, up_taps=24, padding=(-6, -9, -6, -9), shape=(1, 1, 28, 30), clamp=clamp, bias=False)
    fu, fd = case.filters(device)
    assert marches(case, fu, fd, torch.float16)
    x = with_samples_at(clamp or 0.0, case, case.inputs(torch.float16, device)[0], fu).requires_grad_()
    y, packed = filtered_lrelu_triton(x, fu, fd, None, *case.arguments(), True)
    g = torch.randn(y.shape, dtype=torch.float16, device=device)
    (dx,) = torch.autograd.grad(y, x, g)

    v = between_filters(case, x.detach().double(), None, fu)
    height, width = ((size - 1) * 2 + 12 for size in y.shape[2:])
    v = v[:, :, :height, :width]
    exact_signs = torch.where(v > 0, 0, 1)
    edges = v.abs()
    if clamp is not None:
        exact_signs[v.abs() > clamp] = 2
        edges = torch.minimum(edges, (v.abs() - clamp).abs())
    moved = of_lines(packed, height, width) != exact_signs
    assert 0 < moved.sum() < 20
    assert edges[moved].max() < 4 * torch.finfo(torch.float16).eps * v.abs().max()

    factor = torch.tensor([1.0, case.slope, 0.0], dtype=F64, device=device)[exact_signs]
    error = (dx.double() - gradient(case, factor, fu, fd, g.double(), x.double())).abs()
    ones = [torch.ones_like(f, dtype=F64) for f in (fu, fd)]
    in_reach = gradient(case, moved.to(F64), *ones, torch.ones_like(g, dtype=F64), x.double()) > 0
    assert (~in_reach).sum() > 20
    rounding = torch.finfo(torch.float16).eps * dx.double().abs().max()
    assert error[~in_reach].max() < 2 * rounding
    assert error[in_reach].max() > 4 * error[~in_reach].max()
