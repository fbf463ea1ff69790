"""The fast PyTorch paths against the reference: value, first and second order, over random geometry."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch
import torch._dynamo.config
from hypothesis import given, settings
from hypothesis import strategies as st

from sg3.kernels import conv2d_resample, filtered_lrelu, grid_sample, modulated_conv2d, upfirdn2d
from sg3.kernels.bias_act.activations import clamped
from sg3.kernels.memory_format import is_channels_last
from sg3.kernels.modulated_conv2d import impl_torch as modulated_conv2d_impl
from sg3.kernels.upfirdn2d import impl_torch as upfirdn2d_impl

F64 = torch.float64
TAPS = st.sampled_from([1, 2, 4, 5, 12, 13, 24])
PAD = st.integers(-7, 30)


@st.composite
def resamplings(draw) -> dict:
    """Arguments of upfirdn2d with at least one output pixel."""
    h, w = draw(st.integers(1, 20)), draw(st.integers(1, 20))
    up, down = ([draw(st.integers(1, 4)) for _ in range(2)] for _ in range(2))
    taps_x, taps_y = draw(TAPS), draw(TAPS)
    separable = draw(st.booleans())
    taps_y = taps_x if separable else taps_y
    pads = [draw(PAD) for _ in range(4)]
    pads[1] = max(pads[1], taps_x - w * up[0] - pads[0])
    pads[3] = max(pads[3], taps_y - h * up[1] - pads[2])
    return {
        "shape": (draw(st.integers(1, 2)), draw(st.integers(1, 3)), h, w), "separable": separable,
        "taps": (taps_y, taps_x), "up": up, "down": down, "padding": pads, "flip_filter": draw(st.booleans()),
        "seed": draw(st.integers(0, 9)),
    }  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(resamplings())
def test_upfirdn2d_equals_reference(case: dict) -> None:
    torch.manual_seed(case["seed"])
    f = torch.randn(case["taps"][1]) if case["separable"] else torch.randn(case["taps"])
    x = torch.randn(case["shape"], dtype=F64, requires_grad=True)
    kwargs = {k: case[k] for k in ("up", "down", "padding", "flip_filter")}
    results = []
    for impl in ("ref", "torch"):
        y = upfirdn2d(x, f, gain=2.0**-1, impl=impl, **kwargs)
        (grad,) = torch.autograd.grad(y, x, torch.ones_like(y).cumsum(-1))
        results.append((y, grad))
    for fast, plain in zip(*([t.detach() for t in each] for each in results[::-1]), strict=True):
        torch.testing.assert_close(fast, plain, atol=1e-11 * float(plain.abs().max() + 1), rtol=0)


@pytest.mark.parametrize("fd_shape", [(12,), (12, 12), (3, 4)])
@pytest.mark.parametrize(("up", "taps"), [(1, 1), (2, 12), (4, 24)])
def test_filtered_lrelu_second_order(up: int, taps: int, fd_shape: tuple[int, ...]) -> None:
    fu, fd = torch.rand(taps), torch.rand(fd_shape)
    x, b = torch.randn(2, 2, 5, 6, dtype=F64, requires_grad=True), torch.randn(2, dtype=F64, requires_grad=True)

    def f(x: torch.Tensor, b: torch.Tensor, impl: str = "torch") -> torch.Tensor:
        return filtered_lrelu(x, fu, fd, b, up=up, down=2, padding=[11, 12, 13, 10], clamp=0.9, impl=impl)

    torch.testing.assert_close(f(x, b), f(x, b, "ref"), atol=1e-12, rtol=1e-12)
    assert torch.autograd.gradcheck(f, (x, b), fast_mode=True)
    assert torch.autograd.gradgradcheck(f, (x, b), fast_mode=True)


def test_the_kinks_have_the_formulas_gradients() -> None:
    """At 0 the slope, at the clamp's edge 1, beyond it 0; whatever the plain formula gives."""
    v = torch.tensor([-9.0, -2.5, -2.0, -1.0, -0.0, 0.0, 0.1, 0.5, 0.6], requires_grad=True)
    fast = filtered_lrelu(v.reshape(1, 1, 1, -1), gain=1.0, slope=0.2, clamp=0.5, impl="torch").flatten()
    plain = clamped(torch.nn.functional.leaky_relu(v, 0.2), -0.5, 0.5)
    assert torch.equal(fast, plain)
    (got,), (expected,) = (torch.autograd.grad(y.sum(), v) for y in (fast, plain))
    assert got.tolist() == expected.tolist()


@pytest.mark.parametrize("demodulate", [True, False])
@pytest.mark.parametrize("kernel", [1, 3])
def test_modulated_conv2d_all_gradients(kernel: int, demodulate: bool) -> None:
    def inputs() -> list[torch.Tensor]:
        torch.manual_seed(0)
        shapes = [(2, 3, 5, 4), (4, 3, kernel, kernel), (2, 3), (3,)]
        return [torch.randn(shape, dtype=F64).abs().add(0.1).requires_grad_() for shape in shapes]

    results = []
    for impl in ("ref", "torch"):
        x, w, s, gain = inputs()
        y = modulated_conv2d(x, w, s, demodulate, padding=kernel - 1, input_gain=gain, impl=impl)
        first = torch.autograd.grad(y.square().sum(), [x, w, s, gain], create_graph=True)
        second = torch.autograd.grad(sum(g.square().sum() for g in first), [x, w, s, gain])
        results.append([y, *first, *second])
    for fast, plain in zip(*([t.detach() for t in each] for each in results[::-1]), strict=True):
        torch.testing.assert_close(fast, plain, atol=1e-10 * float(plain.abs().max()), rtol=0)


def test_half_precision_keeps_its_type() -> None:
    x, f = torch.randn(2, 3, 8, 8).bfloat16(), torch.rand(12)
    for impl in ("ref", "torch"):
        assert filtered_lrelu(x, f, f, up=2, down=2, padding=10, impl=impl).dtype == torch.bfloat16
        assert conv2d_resample(x, x[:, :, :3, :3].contiguous(), f, up=2, impl=impl).dtype == torch.bfloat16
    truth = filtered_lrelu(x.double(), f, f, up=2, down=2, padding=10, impl="ref")
    eager, fast = (filtered_lrelu(x, f, f, up=2, down=2, padding=10, impl=i).double() for i in ("ref", "torch"))
    budget = 2 * (float((eager - truth).abs().max()) + torch.finfo(torch.bfloat16).eps * float(truth.abs().max()))
    assert float((fast - truth).abs().max()) <= budget


@pytest.mark.parametrize("shape", [(0, 3, 8, 8), (2, 3, 1, 1)])
def test_degenerate_sizes(shape: tuple[int, ...]) -> None:
    x, f = torch.randn(shape), torch.rand(12)
    fast, plain = (filtered_lrelu(x, f, f, up=2, down=2, padding=20, impl=i) for i in ("torch", "ref"))
    torch.testing.assert_close(fast, plain, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("taps", [1, 4, 12, 24])
@pytest.mark.parametrize("up", [2, 3, 4])
def test_margins_that_are_cut_off(taps: int, up: int) -> None:
    """Samples whose taps all fall into what a negative padding removes, at either end or at both."""
    f, x = torch.rand(taps), torch.randn(1, 2, 7, 5, dtype=F64)
    checked = 0
    for low, high in itertools.product([-20, -13, -9, -5, -1, 0, 4, 30, 70], repeat=2):
        if min(n * up + low + high - taps + 1 for n in x.shape[2:]) >= 1:
            fast, plain = (upfirdn2d(x, f, up, 1, [low, high, high, low], impl=impl) for impl in ("torch", "ref"))
            torch.testing.assert_close(fast, plain, atol=1e-12, rtol=0)
            checked += 1
    assert checked > 20


def test_expanded_and_channels_last_inputs() -> None:
    f = torch.rand(12)
    x = torch.randn(2, 4, 9, 9).to(memory_format=torch.channels_last).requires_grad_()
    for impl in ("torch", "ref"):
        y = filtered_lrelu(x, f, f, up=2, down=2, padding=10, impl=impl)
        grads = torch.autograd.grad(y.sum(), x)[0]  # an expanded upstream gradient
        assert grads.shape == x.shape
    expanded = torch.randn(1, 1, 9, 9).expand(2, 4, 9, 9)
    torch.testing.assert_close(
        upfirdn2d(expanded, f, up=2, impl="torch"), upfirdn2d(expanded, f, up=2, impl="ref"), atol=1e-4, rtol=1e-4
    )


def test_modulated_conv2d_fits_half_precision() -> None:
    """Large inputs and weights over many channels: what is not demodulated yet must not overflow either."""
    x, w, s = torch.full((1, 512, 4, 4), 15.0).half(), torch.ones(4, 512, 3, 3), torch.ones(1, 512)
    fast, plain = (modulated_conv2d(x, w, s, padding=1, impl=i) for i in ("torch", "ref"))
    assert fast.isfinite().all()
    torch.testing.assert_close(fast, plain, rtol=2e-3, atol=0)


def test_mixed_types_and_empty_batches() -> None:
    x, w, s = torch.randn(2, 3, 5, 5), torch.randn(4, 3, 3, 3), torch.randn(2, 3, dtype=F64)
    fast, plain = (modulated_conv2d(x, w, s, padding=1, impl=i) for i in ("torch", "ref"))
    torch.testing.assert_close(fast, plain, atol=1e-5, rtol=1e-5)
    for impl in ("torch", "ref"):
        assert modulated_conv2d(x[:0], w, s[:0], padding=1, impl=impl).shape == (0, 4, 5, 5)
    assert grid_sample(x[:0], torch.zeros(0, 2, 2, 2)).shape == (0, 3, 2, 2)
    assert grid_sample(x, torch.full((2, 2, 2, 2), float("nan"))).isnan().all()


@pytest.mark.parametrize("shape", [(3, 2, 7, 6), (2, 16, 5, 6), (2, 37, 5, 4), (1, 1, 6, 5), (5, 7, 1, 1)])
@pytest.mark.parametrize("at_once", [1, 16 * 200, 2**20])
def test_portions_and_memory_formats(monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...], at_once: int) -> None:
    """However the planes are divided, in whatever format they and the gradient come, the numbers are the same."""
    monkeypatch.setattr(upfirdn2d_impl, "SAMPLES_AT_ONCE_CPU", at_once)
    f, b = torch.rand(12), torch.randn(shape[1], dtype=F64, requires_grad=True)
    base = torch.randn(shape, dtype=F64)
    formats = (torch.contiguous_format, torch.channels_last)
    results = []
    for impl, x_format, g_format in [("ref", *formats[:1] * 2), *(("torch", a, g) for a in formats for g in formats)]:
        x = base.contiguous(memory_format=x_format).requires_grad_()
        y = filtered_lrelu(x, f, f, b, 2, 2, [11, 10, 11, 10], clamp=1.5, impl=impl)
        g = torch.linspace(-1, 1, y.numel(), dtype=F64).reshape(y.shape).contiguous(memory_format=g_format)
        g.requires_grad_()
        dx, db = torch.autograd.grad(y, [x, b], g, create_graph=True)
        (dg,) = torch.autograd.grad(dx.square().sum(), g)
        u = upfirdn2d(x, f, 2, 1, 6, impl=impl)
        (du,) = torch.autograd.grad(u.square().sum(), x)
        results.append((y, dx, db, dg, u, du))
        if impl == "torch" and is_channels_last(x):
            assert y.is_contiguous(memory_format=torch.channels_last)
    for each in results[1:]:
        for fast, plain in zip(each, results[0], strict=True):
            torch.testing.assert_close(fast, plain, atol=1e-11 * float(plain.detach().abs().max() + 1), rtol=0)


def test_nothing_between_the_filters_is_kept() -> None:
    """What autograd holds for the gradient is of the input's size, not of the four times larger signal's."""
    f, x = torch.rand(12), torch.randn(1, 16, 20, 20, requires_grad=True)
    sizes: list[int] = []

    def pack(t: torch.Tensor) -> torch.Tensor:
        sizes.append(t.numel())
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        filtered_lrelu(x, f, f, None, 2, 2, [11, 10, 11, 10], impl="torch")
    assert max(sizes) == x.numel()


@pytest.mark.parametrize("kernel", [1, 3])
def test_modulated_conv2d_takes_the_same_value_on_both_sides_of_its_choice(
    monkeypatch: pytest.MonkeyPatch, kernel: int
) -> None:
    x, w, s = torch.randn(2, 5, 9, 8, dtype=F64), torch.randn(4, 5, kernel, kernel), torch.randn(2, 5)
    results = []
    formats = (torch.contiguous_format, torch.channels_last)
    choices = [(share, layout) for share in (0.0, 1e9) for layout in formats]  # never, always weights per sample
    for share, layout in choices:
        monkeypatch.setattr(modulated_conv2d_impl, "SMALL_WEIGHTS", share)
        for padding in (0, kernel - 1, 2):
            image = x.contiguous(memory_format=layout)
            results.append(modulated_conv2d(image, w.double(), s.double(), padding=padding, impl="torch"))
            assert results[-1].is_contiguous(memory_format=layout)
    for index, result in enumerate(results):
        torch.testing.assert_close(result, results[index % 3], atol=1e-12, rtol=1e-10)


def grid_and_image() -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    return torch.randn(2, 3, 6, 5, dtype=F64), (torch.rand(2, 4, 3, 2, dtype=F64) - 0.5) * 2.6


def test_grid_sample_opcheck() -> None:
    x, grid = grid_and_image()
    torch.library.opcheck(torch.ops.sg3.grid_sample_torch, (x.requires_grad_(), grid))
    g = torch.randn(2, 3, 4, 3, dtype=F64, requires_grad=True)
    torch.library.opcheck(torch.ops.sg3.grid_sample_grad_torch, (g, grid, [2, 3, 6, 5]))


@pytest.mark.usefixtures("traced_gradients")
def test_grid_sample_gradients_of_gradients_in_one_graph() -> None:
    """As R1 has them, through augmented images: eager and compiled as the reference."""
    x, grid = grid_and_image()
    weight = torch.randn(4, 3, 2, 2, dtype=F64, requires_grad=True)

    def penalty(x: torch.Tensor, weight: torch.Tensor, impl: str) -> torch.Tensor:
        logits = torch.nn.functional.conv2d(grid_sample(x, grid, impl=impl), weight).square().sum()
        (g,) = torch.autograd.grad(logits, x, create_graph=True)
        return g.square().sum()

    def gradients(function: Callable[..., torch.Tensor], impl: str) -> torch.Tensor:
        return torch.autograd.grad(function(x.clone().requires_grad_(), weight, impl), weight)[0]

    expected = gradients(penalty, "ref")
    compiled = torch.compile(penalty, fullgraph=True, backend="aot_eager", dynamic=False)
    torch.testing.assert_close(gradients(penalty, "torch"), expected, atol=1e-11, rtol=1e-11)
    torch.testing.assert_close(gradients(compiled, "torch"), expected, atol=1e-11, rtol=1e-11)


def test_grid_sample_gradient_for_the_grid() -> None:
    """Only the plain formula has one; it is what 'auto' takes, and 'torch' does not lose it without a word."""
    x, grid = grid_and_image()
    expected = torch.autograd.grad(grid_sample(x, grid.requires_grad_(), impl="ref").sum(), grid)[0]
    assert torch.equal(torch.autograd.grad(grid_sample(x, grid).sum(), grid)[0], expected)
    with pytest.raises(RuntimeError, match="grid_sample: impl='torch' has no gradient for the grid; use impl='ref'"):
        grid_sample(x, grid, impl="torch").sum().backward()
    with torch.no_grad():
        assert grid_sample(x, grid, impl="torch").shape == (2, 3, 4, 3)
