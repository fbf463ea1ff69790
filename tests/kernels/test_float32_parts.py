"""float32 in two half-precision parts: as exact as float32 sums at any scale, and where planes are uneven."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import triton
import triton.language as tl

from sg3.kernels import tuning
from sg3.kernels.filtered_lrelu import impl_triton, marching, symmetric, symmetric_plan, tiles
from sg3.kernels.filtered_lrelu.banded import PlanCache
from sg3.kernels.filtered_lrelu.marching_float32 import exponent, largest, times_power
from sg3.kernels.filtered_lrelu.op import filtered_lrelu_ref, filtered_lrelu_triton
from tests.helpers.compare import assert_within_budget
from tests.helpers.filtered_lrelu_cases import Case
from tests.helpers.filtered_lrelu_signs import marches, marches_symmetrically

pytestmark = pytest.mark.usefixtures("poisoned")

CASE = Case(shape=(1, 2, 17, 15))
RADIAL = Case(down_taps=-12, padding=(11, 10, 11, 10), shape=(1, 1, 15, 13))  # whose filter has several terms
ON_TILES = replace(RADIAL, up_taps=-12)  # both of whose filters have


def compare(case: Case, x: torch.Tensor, b: torch.Tensor | None, g: torch.Tensor | None = None) -> torch.Tensor:
    """Values and gradients within the budget; returns the values."""
    fu, fd = case.filters(x.device.type)
    exact_b = None if b is None else b.double()
    x.requires_grad_()
    y, _ = filtered_lrelu_triton(x, fu, fd, b, *case.arguments(), True)
    exact_x, eager_x = x.detach().double().requires_grad_(), x.detach().clone().requires_grad_()
    exact = filtered_lrelu_ref(exact_x, fu, fd, exact_b, *case.arguments())
    eager = filtered_lrelu_ref(eager_x, fu, fd, b, *case.arguments())
    assert_within_budget(y, eager, exact, "y")
    g = torch.randn_like(y) if g is None else g
    dx, dx_exact, dx_eager = (
        torch.autograd.grad(t, of, g.to(t.dtype))[0] for t, of in ((y, x), (exact, exact_x), (eager, eager_x))
    )
    assert_within_budget(dx, dx_eager, dx_exact, "dx")
    return y.detach()


@pytest.mark.parametrize("scale", [1e-38, 1e-30, 1e-5, 1e5, 1e30, 1e37])
def test_any_scale(scale: float, device: str) -> None:
    x, b = CASE.inputs(torch.float32, device)
    compare(replace(CASE, clamp=0.8 * scale), x * scale, b * scale)


@pytest.mark.parametrize(("scale", "clamp"), [(1e-38, 0.8), (1e30, 0.8), (1e10, 2.5e-18)])
def test_any_scale_on_tiles(scale: float, clamp: float, device: str) -> None:
    x, b = ON_TILES.inputs(torch.float32, device)
    fu, fd = ON_TILES.filters(device)
    assert not marches(ON_TILES, fu, fd, torch.float32)
    assert not marches_symmetrically(ON_TILES, fu, fd, torch.float32)
    compare(replace(ON_TILES, clamp=clamp * scale), x * scale, b * scale)


@pytest.mark.parametrize(("scale", "clamp"), [(1e-38, 0.8), (1e10, 2.5e-18), (1e30, None)])
@pytest.mark.parametrize("case", [
    pytest.param(Case(up=4, up_taps=24, padding=(12, 9, 12, 9), shape=(1, 1, 9, 8)), id="4->2"),
    pytest.param(RADIAL, id="radial"),
    pytest.param(Case(up=4, up_taps=24, down_taps=-12, padding=(12, 9, 12, 9), shape=(1, 1, 9, 8)), id="radial, 4->2",
                 marks=pytest.mark.slow),
])  # fmt: skip
def test_any_scale_with_one_matrix_for_both_axes(case: Case, scale: float, clamp: float | None, device: str) -> None:
    x, b = case.inputs(torch.float32, device)
    assert marches_symmetrically(case, *case.filters(device), torch.float32)
    compare(replace(case, clamp=None if clamp is None else clamp * scale), x * scale, b * scale)


@pytest.mark.parametrize(("down_taps", "other"), [(12, 86), pytest.param(-12, 80, marks=pytest.mark.slow)])
def test_other_shapes_of_other_architectures(down_taps: int, other: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The gradient of 4->2 as sm_86 takes it, of the radial one in three columns as GPUs may be tuned to; other tests
    are for the interpreter's, sm_90."""
    three = {**symmetric_plan.OF_ARCHITECTURE[80], (2, 2, 4, 1): ((3, 1), (3, 1), (3, 1))}
    monkeypatch.setitem(symmetric_plan.OF_ARCHITECTURE, 80, three)
    case = Case(up=4, up_taps=24, down_taps=down_taps, padding=(12, 9, 12, 9), shape=(1, 1, 9, 8))
    shapes = set()
    for arch in (other, 90):
        for module in (symmetric_plan, tuning):
            monkeypatch.setattr(module, "architecture", lambda device, arch=arch: arch)
        monkeypatch.setattr(symmetric, "plans", PlanCache(9, symmetric_plan.build))
        compare(case, *case.inputs(torch.float32, "cpu"))
        shapes |= {plan.shape for plan in symmetric.plans._plans.values() if plan.layout.up == 2}
    assert len(shapes) == 2


def test_gradients_of_any_scale(device: str) -> None:
    x, b = CASE.inputs(torch.float32, device)
    for scale in (1e-36, 1e33):
        compare(CASE, x.clone(), b, scale * torch.randn(1, 2, 15, 13, device=device))


@pytest.mark.parametrize("clamp", [2.5e-8, 1e-20])
def test_a_clamp_far_below_the_pixels(clamp: float, device: str) -> None:
    """Samples are lifted after it, or half precision would have nothing left of them."""
    x, b = CASE.inputs(torch.float32, device)
    y = compare(replace(CASE, clamp=clamp), x * 1e10, b, torch.zeros(1, 2, 15, 13, device=device))
    assert (y.abs() > 0.1 * clamp).any()


@pytest.mark.parametrize("down_taps", [12, pytest.param(-12, marks=pytest.mark.slow)], ids=["separable", "radial"])
def test_planes_and_strips_of_different_size(down_taps: int, device: str) -> None:
    """A plane's scale is its own; what is small in a plane is off by little of what is large there."""
    case = Case(down_taps=down_taps, shape=(1, 3, 40, 14), padding=(9, 8, 9, 8), clamp=None)
    x, b = case.inputs(torch.float32, device)
    x[0, 0] *= 1e-12
    x[0, 1, :12] *= 1e6
    x[0, 1, 20:] = 0
    x[0, 2] *= 1e12
    b[0] = 0
    fu, fd = case.filters(device)
    compare(case, x, b)
    for c in range(3):  # each for itself
        alone = replace(case, shape=(1, 1, 40, 14))
        compare(alone, x.detach()[:, c : c + 1].clone(), b[c : c + 1])
    y = filtered_lrelu_triton(torch.zeros_like(x), fu, fd, None, *case.arguments(), False)[0]
    assert (y == 0).all()


@pytest.mark.parametrize(("value", "down_taps"), [
    (float("inf"), 12), (float("nan"), 12), (-float("inf"), 12), (float("inf"), -12),
    pytest.param(float("nan"), -12, marks=pytest.mark.slow),
])  # fmt: skip
def test_what_is_not_finite_spoils_what_it_reaches_and_not_the_rest(value: float, down_taps: int, device: str) -> None:
    """Its strips, and not the scale of its plane."""
    case = Case(down_taps=down_taps, shape=(1, 2, 70, 14), clamp=None, bias=False)
    fu, fd = case.filters(device)
    x, _ = case.inputs(torch.float32, device)
    clean = filtered_lrelu_triton(x, fu, fd, None, *case.arguments(), False)[0]
    x[0, 0, 3, 7] = value
    y = filtered_lrelu_triton(x, fu, fd, None, *case.arguments(), False)[0]
    assert not y[0, 0, 3, 7].isfinite()
    assert torch.equal(y[0, 0, 50:], clean[0, 0, 50:])
    assert torch.equal(y[0, 1], clean[0, 1])


def test_ieee_remains(monkeypatch: pytest.MonkeyPatch, device: str) -> None:
    """SG3_FLOAT32=ieee: products one by one, on tiles."""
    monkeypatch.setattr(marching, "MARCH", lambda *_: pytest.fail("marches"))
    x, b = CASE.inputs(torch.float32, device)
    with pytest.raises(pytest.fail.Exception, match="marches"):
        compare(CASE, x, b)
    monkeypatch.setenv("SG3_FLOAT32", "ieee")
    monkeypatch.setattr(tiles, "largest", lambda _: pytest.fail("in parts"))
    compare(CASE, x.detach(), b)
    assert impl_triton.exact_float32()


@triton.jit
def _powers(v_ptr, e_ptr, y_ptr, exponents_ptr, COUNT: tl.constexpr):
    i = tl.arange(0, COUNT)
    v = tl.load(v_ptr + i)
    tl.store(y_ptr + i, times_power(v, tl.load(e_ptr + i)))
    tl.store(exponents_ptr + i, exponent(v))


def test_powers_of_two(device: str) -> None:
    v = torch.tensor([1.0, 1.5, 3e38, 1e-38, 1e-45, 0.0, float("inf"), 7e-20], device=device)
    e = torch.tensor([-252, 252, -250, 250, 252, 17, -3, 130], dtype=torch.int32, device=device)
    y, exponents = torch.empty_like(v), torch.empty_like(e)
    _powers[(1,)](v, e, y, exponents, COUNT=8)
    expected = (v.double() * 2.0 ** e.double()).float()
    assert torch.equal(y, expected)
    assert exponents.tolist() == [0, 0, 127, -127, -127, -127, 128, -64]


def test_the_largest_of_every_plane(device: str) -> None:
    x = torch.randn(2, 3, 19, 150, device=device)
    x[0, 1, 5, 140], x[1, 2, 18, 149] = -50, float("inf")
    x[1, 1, 2, 3] = float("nan")
    expected = torch.where(x.isfinite(), x.abs(), 0).amax((2, 3)).flatten()
    for layout in (torch.contiguous_format, torch.channels_last):
        assert torch.equal(largest(x.contiguous(memory_format=layout)), expected)
