"""filtered_lrelu's Triton kernel against the reference: in the interpreter on a CPU, natively with -m gpu."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sg3.kernels import filtered_lrelu
from sg3.kernels.filtered_lrelu.geometry import signs_in_lines
from sg3.kernels.filtered_lrelu.op import (
    filtered_lrelu_numba,
    filtered_lrelu_ref,
    filtered_lrelu_torch,
    filtered_lrelu_triton,
)
from tests.helpers.compare import assert_within_budget
from tests.helpers.filtered_lrelu_cases import CANVASES, CASES, F64, Case, between_filters, gradient
from tests.helpers.filtered_lrelu_signs import marches, marches_symmetrically, of_bits, of_lines, of_quads, signs_of

pytestmark = pytest.mark.usefixtures("poisoned")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=["f32", "f16", "bf16"])
@pytest.mark.parametrize("case", [
    *(pytest.param(case, id=name) for name, case in CASES.items()),
    *(pytest.param(case, id=name, marks=pytest.mark.slow) for name, case in CANVASES.items()),
])  # fmt: skip
def test_value_signs_and_gradients(case: Case, dtype: torch.dtype, device: str) -> None:
    fu, fd = case.filters(device)
    x, b = case.inputs(dtype, device)
    x.requires_grad_()
    y, packed = filtered_lrelu_triton(x, fu, fd, b, *case.arguments(), True)
    exact_b = None if b is None else b.double()
    exact = filtered_lrelu_ref(x.double(), fu, fd, exact_b, *case.arguments())
    eager = filtered_lrelu_ref(x, fu, fd, b, *case.arguments())
    ulps = 1 if dtype == torch.bfloat16 and device == "cpu" else 0
    assert_within_budget(y, eager, exact, "y", ulps)

    # The plane of signs: every one that the second filter reads, right wherever rounding cannot decide.
    v = between_filters(case, x.detach().double(), exact_b, fu)
    taps = [1, 1] if fd is None else [fd.shape[0], fd.shape[-1]]
    height, width = ((size - 1) * case.down + n for size, n in zip(y.shape[2:], taps, strict=True))
    v = v[:, :, :height, :width]
    expected = torch.where(v > 0, 0, 1)
    if case.clamp is not None:
        expected[v.abs() > case.clamp] = 2
    assert packed.shape == (*x.shape[:2], *signs_in_lines(height, width, case.up, case.down))
    signs = signs_of(packed, height, width, case, fu, fd, dtype)
    assert (signs <= 2).all()
    unsure = (v.abs() < 16 * torch.finfo(dtype).eps * v.abs().max())
    if case.clamp is not None:
        unsure |= (v.abs() - case.clamp).abs() < 16 * torch.finfo(dtype).eps * v.abs().max()
    assert torch.equal(signs[~unsure], expected.to(torch.uint8)[~unsure])

    # With these signs the gradient op is linear, and so is its own gradient op.
    factor = torch.tensor([1.0, case.slope, 0.0], dtype=dtype, device=device)[signs.long()]
    g = torch.randn(y.shape, dtype=dtype, device=device, requires_grad=True)
    (dx,) = torch.autograd.grad(y, x, g, create_graph=True)
    exact, eager = (gradient(case, factor.to(t), fu, fd, g.to(t), x.to(t)) for t in (F64, dtype))
    assert_within_budget(dx, eager, exact, "dx", ulps)

    h = torch.randn_like(x)
    (dg,) = torch.autograd.grad(dx, g, h)
    exact_left, exact_right = (dg.double() * g.double()).sum(), (h.double() * exact).sum()
    scale = (dg.double() * g.double()).abs().sum() + (h.double() * exact).abs().sum()
    assert abs(exact_left - exact_right) <= torch.finfo(dtype).eps * 2 * scale, "adjoint"


@pytest.mark.parametrize(("name", "dtype"), [("R, up", torch.float16), ("T, up", torch.float32)])
def test_programs_that_keep_no_signs(name: str, dtype: torch.dtype, device: str) -> None:
    case = CASES[name]
    fu, fd = case.filters(device)
    assert marches_symmetrically(case, fu, fd, dtype)
    x, b = case.inputs(dtype, device)
    y = filtered_lrelu_triton(x, fu, fd, b, *case.arguments(), False)[0]
    exact = filtered_lrelu_ref(x.double(), fu, fd, b.double(), *case.arguments())
    assert_within_budget(y, filtered_lrelu_ref(x, fu, fd, b, *case.arguments()), exact)


SYMMETRIC = Case(up=4, up_taps=24, down_taps=-12)


@pytest.mark.parametrize(("outputs", "padding", "height"), [(15, (-2, -2), 10), (17, (3, -5), 13), (34, (-14, 2), 26)])
def test_signs_at_the_edges_of_symmetric_tiles(outputs: int, padding: tuple[int, int], height: int) -> None:
    """Sizes around whole tiles of 16 outputs and strips of 32: every sample's signs, values and gradients."""
    fu, fd = SYMMETRIC.filters("cpu")
    width = math.ceil(outputs / 2) + 12
    x0, y0 = padding
    x1, y1 = (outputs - 1) * 2 + 1 + 34 - width * 4 - x0, 7 - y0
    case = replace(SYMMETRIC, shape=(1, 1, height, width), padding=(x0, x1, y0, y1), clamp=1.0)
    assert marches_symmetrically(case, fu, fd, torch.float16)
    x, b = case.inputs(torch.float16, "cpu")
    x.requires_grad_()
    y, packed = filtered_lrelu_triton(x, fu, fd, b, *case.arguments(), True)
    assert y.shape[3] == outputs
    exact = filtered_lrelu_ref(x.double(), fu, fd, b.double(), *case.arguments())
    assert_within_budget(y, filtered_lrelu_ref(x, fu, fd, b, *case.arguments()), exact)
    v = between_filters(case, x.detach().double(), b.double(), fu)
    height, width = ((size - 1) * 2 + 12 for size in y.shape[2:])
    signs = of_quads(packed, height, width)
    v = v[:, :, :height, :width]
    sure = (v.abs() > 0.02) & ((v.abs() - 1).abs() > 0.02)
    expected = torch.where(v.abs() > 1, 2, torch.where(v > 0, 0, 1))
    assert torch.equal(signs[sure].long(), expected[sure])
    assert sure.double().mean() > 0.7
    factor = torch.tensor([1.0, case.slope, 0.0], dtype=F64)[signs.long()]
    g = torch.randn_like(y)
    (dx,) = torch.autograd.grad(y, x, g)
    exact, eager = (gradient(case, factor.to(t), fu, fd, g.to(t), x.to(t)) for t in (F64, torch.float16))
    assert_within_budget(dx, eager, exact, "dx")


def test_what_is_not_alike_along_both_axes_is_for_tiles() -> None:
    """A filter that is not symmetric, or paddings at different places of its pattern: values and gradients."""
    for change in ({"down_taps": (12, 12)}, {"padding": (12, 9, 11, 10)}):
        like = replace(SYMMETRIC, padding=(12, 9, 12, 9), shape=(1, 1, 8, 7))
        assert marches_symmetrically(like, *like.filters("cpu"), torch.float16)
        case = replace(like, **change)
        fu, fd = case.filters("cpu")
        assert not marches_symmetrically(case, fu, fd, torch.float16)
        x, b = case.inputs(torch.float16, "cpu")
        y, packed = filtered_lrelu_triton(x, fu, fd, b, *case.arguments(), True)
        exact = filtered_lrelu_ref(x.double(), fu, fd, b.double(), *case.arguments())
        assert_within_budget(y, filtered_lrelu_ref(x, fu, fd, b, *case.arguments()), exact)
        assert packed.numel() > 0


@pytest.mark.parametrize(("height", "width", "layout"), [
    (8, 256, torch.contiguous_format), (9, 259, torch.contiguous_format), (3, 260, torch.channels_last),
], ids=["one rectangle", "more than one", "channels last"])  # fmt: skip
def test_without_filters_sample_by_sample(
    height: int, width: int, layout: torch.memory_format, device: str
) -> None:
    """Whole rectangles and what is left of them: values, signs and gradients. What is not finite spoils only itself."""
    case = Case(up=1, up_taps=0, down=1, down_taps=0, padding=(0, 0, 0, 0), clamp=0.8, shape=(1, 2, height, width))
    x, b = case.inputs(torch.float16, device)
    x[0, 0, 1, 2], x[0, 1, 2, width - 1] = float("nan"), -float("inf")
    x = x.contiguous(memory_format=layout).requires_grad_()
    y, packed = filtered_lrelu_triton(x, None, None, b, *case.arguments(), True)
    y_plain, _ = filtered_lrelu_triton(x.detach(), None, None, b, *case.arguments(), False)
    torch.testing.assert_close(y_plain, y, rtol=0, atol=0, equal_nan=True)
    exact, eager = (filtered_lrelu_ref(x.to(t), None, None, b.to(t), *case.arguments()) for t in (F64, torch.float16))
    assert y.isnan().nonzero().tolist() == [[0, 0, 1, 2]]
    assert_within_budget(*(t.nan_to_num() for t in (y, eager, exact)))

    signs = of_bits(packed, height, width)
    assert (signs[..., width:] == 2).all()
    signs = signs[..., :width]
    v = torch.nn.functional.leaky_relu((x.detach().double() + b.double()[:, None, None]) * 1.3, case.slope)
    expected = torch.where(v.abs() <= 0.8, torch.where(v > 0, 0, 1), 2)
    assert torch.equal(signs.long(), expected)
    g = torch.randn_like(y)
    (dx,) = torch.autograd.grad(y, x, g)
    factor = torch.tensor([1.0, case.slope, 0.0], dtype=F64, device=device)[expected] * 1.3
    assert_within_budget(dx, (g.float() * factor.float()).half(), g.double() * factor)


@pytest.mark.parametrize("outputs", [25, 26, 27, 51, 53])
@pytest.mark.parametrize(("padding", "size"), [((9, 8), 0), ((10, 7), 1), ((-1, 4), 9)])
def test_signs_at_the_edges_of_tiles(outputs: int, padding: tuple[int, int], size: int) -> None:
    """Sizes around whole tiles of 26 outputs: the tail that no further tile follows, x and y in different places."""
    fu, fd = Case().filters("cpu")
    shape = (1, 1, 13 + size, outputs + size)
    x0, y0 = padding
    x1 = (outputs - 1) * 2 + 1 + 22 - shape[3] * 2 - x0
    case = Case(shape=shape, padding=(x0, x1, y0, x0), clamp=1.0)
    x, b = case.inputs(torch.float16, "cpu")
    y, packed = filtered_lrelu_triton(x, fu, fd, b, *case.arguments(), True)
    assert y.shape[3] == outputs
    v = between_filters(case, x.double(), b.double(), fu)
    height, width = ((size - 1) * 2 + 12 for size in y.shape[2:])
    assert marches(case, fu, fd, torch.float16)
    signs = of_lines(packed, height, width)
    v = v[:, :, :height, :width]
    assert v.shape == signs.shape
    sure = (v.abs() > 0.02) & ((v.abs() - 1).abs() > 0.02)
    expected = torch.where(v.abs() > 1, 2, torch.where(v > 0, 0, 1))
    assert torch.equal(signs[sure].long(), expected[sure])
    exact = filtered_lrelu_ref(x.double(), fu, fd, b.double(), *case.arguments())
    assert_within_budget(y, filtered_lrelu_ref(x, fu, fd, b, *case.arguments()), exact)


def test_the_kinks_have_the_formulas_gradients(device: str) -> None:
    """At 0 (of either sign) the slope, at the clamp's edge 1, beyond it 0: bit for bit what the formula gives."""
    v = torch.tensor([-9.0, -2.5, -2.0, -1.0, -0.0, 0.0, 0.1, 0.5, 0.6], device=device).reshape(1, 1, 1, -1)
    grads = []
    for impl in ("triton", "ref"):
        x = v.clone().requires_grad_()
        y = filtered_lrelu(x, gain=1.0, slope=0.25, clamp=0.5, impl=impl)
        grads.append((y, torch.autograd.grad(y.sum(), x)[0]))
    assert torch.equal(grads[0][0], grads[1][0])
    assert torch.equal(grads[0][1], grads[1][1])


def test_nan_stays_and_spoils_no_other_plane(device: str) -> None:
    x = torch.zeros(1, 2, 20, 20, device=device)
    x[0, 0, 10, 10] = float("nan")
    fu, fd = Case().filters(device)
    y = filtered_lrelu(x, fu, fd, up=2, down=2, padding=11, clamp=1.0, impl="triton")
    assert y[0, 0, 10, 10].isnan()
    assert not y[0, 1].isnan().any()


def test_a_bias_with_strides(device: str) -> None:
    """Every other element of a larger tensor, and one value for all channels."""
    case = Case(shape=(1, 4, 6, 5))
    fu, fd = case.filters(device)
    x, _ = case.inputs(torch.float32, device)
    for b in (torch.randn(8, device=device)[::2], torch.tensor([1.5], device=device).expand(4)):
        got = filtered_lrelu(x, fu, fd, b, 2, 2, case.padding, impl="triton")
        assert torch.equal(got, filtered_lrelu(x, fu, fd, b.clone(), 2, 2, case.padding, impl="triton"))


def test_memory_layouts(device: str) -> None:
    """Any strides in, expanded gradients in, channels_last in and out, empty batches."""
    case = Case(shape=(2, 3, 9, 11))
    fu, fd = case.filters(device)
    x, b = case.inputs(torch.float32, device)

    def run(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = x.detach().requires_grad_()
        y = filtered_lrelu(x, fu, fd, b, 2, 2, case.padding, impl="triton")
        (dx,) = torch.autograd.grad(y.sum(), x)  # an expanded gradient: all strides are 0
        return y.detach(), dx

    y, dx = run(x)
    last = x.contiguous(memory_format=torch.channels_last)
    wide = torch.zeros(2, 3, 18, 44, device=device)
    wide[:, :, ::2, ::4] = x
    for other in (last, wide[:, :, ::2, ::4], x.transpose(2, 3).contiguous().transpose(2, 3)):
        y_other, dx_other = run(other)
        assert torch.equal(y_other, y)
        assert torch.equal(dx_other, dx)
    y_last, _ = run(last)
    assert y_last.is_contiguous(memory_format=torch.channels_last)
    assert y.is_contiguous()
    g = torch.randn_like(y)
    last.requires_grad_()
    y_last = filtered_lrelu(last, fu, fd, b, 2, 2, case.padding, impl="triton")
    (dx_last,) = torch.autograd.grad(y_last, last, g.contiguous(memory_format=torch.channels_last))
    assert dx_last.is_contiguous(memory_format=torch.channels_last)

    empty = torch.zeros(0, 3, 9, 11, device=device, requires_grad=True)
    y = filtered_lrelu(empty, fu, fd, b, 2, 2, case.padding, impl="triton")
    assert y.shape == (0, *y_last.shape[1:])
    assert torch.autograd.grad(y.sum(), empty)[0].shape == empty.shape


def test_offsets_beyond_32_bits(device: str) -> None:
    """A batch stride of more than 2^31 elements: the second image lies there and nowhere else."""
    case = Case(shape=(2, 1, 9, 8))
    fu, fd = case.filters(device)
    x, _ = case.inputs(torch.float16, device)
    far = 2**31 + 8
    memory = torch.empty(far + 128, dtype=torch.float16, device=device)  # reserved, not touched, but for two ends
    apart = memory.as_strided((2, 1, 9, 8), (far, 72, 8, 1))
    apart.copy_(x)
    got = filtered_lrelu(apart, fu, fd, None, 2, 2, case.padding, impl="triton")
    assert torch.equal(got, filtered_lrelu(x, fu, fd, None, 2, 2, case.padding, impl="triton"))


def test_only_what_is_needed(device: str) -> None:
    """No signs without gradients; only the bias asked for; the same bits twice."""
    case = Case()
    fu, fd = case.filters(device)
    x, b = case.inputs(torch.float32, device)
    signs = filtered_lrelu_triton(x, fu, fd, b, *case.arguments(), False)[1]
    assert signs.numel() == 0
    y = filtered_lrelu(x, fu, fd, b, 2, 2, case.padding, impl="triton")
    assert not y.requires_grad
    again = filtered_lrelu(x, fu, fd, b, 2, 2, case.padding, impl="triton")
    assert torch.equal(y, again)

    b.requires_grad_()
    y = filtered_lrelu(x, fu, fd, b, 2, 2, case.padding, impl="triton")
    (db,) = torch.autograd.grad(y.square().sum(), b)
    exact_b = b.detach().double().requires_grad_()
    exact = filtered_lrelu(x.double(), fu, fd, exact_b, 2, 2, case.padding, impl="ref")
    (exact_db,) = torch.autograd.grad(exact.square().sum(), exact_b)
    torch.testing.assert_close(db.double(), exact_db, rtol=1e-5, atol=1e-5 * float(exact_db.abs().max()))


def test_shifting_the_input_shifts_the_output(device: str) -> None:
    """By as many pixels as make whole output pixels, away from the borders."""
    case = Case(shape=(1, 1, 40, 40), clamp=None)
    fu, fd = case.filters(device)
    x, _ = case.inputs(torch.float32, device)
    x_shifted = x.roll((3, 5), (2, 3))
    y, shifted = (filtered_lrelu(t, fu, fd, None, 2, 2, case.padding, impl="triton") for t in (x, x_shifted))
    inside = slice(12, 30)
    torch.testing.assert_close(shifted[:, :, inside, inside], y.roll((3, 5), (2, 3))[:, :, inside, inside],
                               rtol=0, atol=2e-6)  # fmt: skip


# Always the same examples: for a single pixel the reference may have all bits right by luck, which leaves no budget.
@settings(max_examples=12, deadline=None, derandomize=True)
@given(
    up=st.integers(1, 4), down=st.integers(1, 4), up_taps=st.integers(1, 32), down_taps=st.integers(1, 32),
    size=st.tuples(*[st.integers(1, 12)] * 2), low=st.tuples(*[st.integers(-4, 30)] * 2),
    out=st.tuples(*[st.integers(1, 9)] * 2), flip=st.booleans(), clamp=st.sampled_from([None, 0.7]),
)  # fmt: skip
def test_any_geometry(up, down, up_taps, down_taps, size, low, out, flip, clamp) -> None:
    (h, w), (x0, y0) = size, low
    span = up_taps + down_taps - 2
    x1, y1 = ((o - 1) * down + 1 + span - n * up - p for o, n, p in ((out[1], w, x0), (out[0], h, y0)))
    case = Case(up, 12, down, 12, (x0, x1, y0, y1), (1, 1, h, w), clamp, flip=flip)
    torch.manual_seed(0)
    fu, fd = torch.randn(up_taps) / up_taps**0.5, torch.randn(down_taps) / down_taps**0.5
    x, b = case.inputs(torch.float32, "cpu")
    y = filtered_lrelu_triton(x, fu, fd, b, *case.arguments(), False)[0]
    exact = filtered_lrelu_ref(x.double(), fu, fd, b.double(), *case.arguments())
    assert y.shape[2:] == out
    assert_within_budget(y, filtered_lrelu_ref(x, fu, fd, b, *case.arguments()), exact)


@pytest.mark.parametrize("op", [filtered_lrelu_triton, filtered_lrelu_numba, filtered_lrelu_torch],
                         ids=["triton", "numba", "torch"])
def test_registered_as_pytorch_expects(op, device: str) -> None:
    case = Case(shape=(1, 1, 6, 5))
    fu, fd = case.filters(device)
    x, b = case.inputs(torch.float32, device)
    arguments = (x.requires_grad_(), fu, fd, b.requires_grad_(), *case.arguments(), True)
    torch.library.opcheck(getattr(torch.ops.sg3, op.__name__), arguments)
    y, signs = op(*arguments)
    grad = getattr(torch.ops.sg3, op.__name__.replace("lrelu", "lrelu_grad"))
    g = torch.randn_like(y, requires_grad=True)
    source = (None, x.detach(), b.detach()) if op is filtered_lrelu_torch else (signs, None, None)
    first, second = ([2, 2], [2, 2])
    torch.library.opcheck(
        grad, (g, *source, fd, fu, 2, 2, first, second, [1.0, 4.0], True, [6, 5], 1.3, 0.2, 0.8, True),
    )


@pytest.mark.parametrize("impl", ["triton", "torch"])
@pytest.mark.usefixtures("traced_gradients")
def test_gradients_of_gradients_compiled(impl: str, device: str) -> None:
    """An R1-like penalty, all in one graph: its value and its gradients are those of the plain formula."""
    case = Case(shape=(1, 2, 7, 6))
    fu, fd = case.filters(device)
    x, b = case.inputs(torch.float32, device)
    weight = torch.randn(2, 2, 1, 1, device=device)

    def penalty(x: torch.Tensor, weight: torch.Tensor, b: torch.Tensor, impl: str) -> torch.Tensor:
        y = filtered_lrelu(torch.nn.functional.conv2d(x, weight), fu, fd, b, 2, 2, case.padding, clamp=3, impl=impl)
        (g,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
        return g.square().sum()

    def all_gradients(function) -> list[torch.Tensor]:
        inputs = [t.detach().clone().requires_grad_() for t in (x, weight, b)]
        value = function(*inputs)
        return [value.detach(), *torch.autograd.grad(value, inputs)]

    expected = all_gradients(lambda *inputs: penalty(*inputs, "ref"))
    eager = all_gradients(lambda *inputs: penalty(*inputs, impl))
    compiled = torch.compile(penalty, fullgraph=True, backend="aot_eager", dynamic=False)
    for name, results in (("eager", eager), ("compiled", all_gradients(lambda *i: compiled(*i, impl)))):
        for got, want in zip(results, expected, strict=True):
            torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5 * float(want.abs().max()), msg=name)


def test_autocast_follows_the_input(device: str) -> None:
    case = Case()
    fu, fd = case.filters(device)
    x, b = case.inputs(torch.float32, device)
    with torch.autocast(device, dtype=torch.bfloat16):
        for impl in ("triton", "torch", "ref"):
            y = filtered_lrelu(x.bfloat16(), fu, fd, b, 2, 2, case.padding, impl=impl)
            assert y.dtype == torch.bfloat16
            in_float32 = filtered_lrelu(x, fu, fd, b, 2, 2, case.padding, impl=impl)
            with torch.autocast(device, enabled=False):
                assert torch.equal(in_float32, filtered_lrelu(x, fu, fd, b, 2, 2, case.padding, impl=impl))
                half = filtered_lrelu(x.half(), fu, fd, b.half(), 2, 2, case.padding, clamp=1e6, impl=impl)
                assert half.isfinite().all()
    with pytest.raises(TypeError, match=r"b: got dtype torch.float32, expected torch.bfloat16 as x"):
        filtered_lrelu(x.bfloat16(), fu, fd, b, 2, 2, case.padding, impl="triton")


def test_too_many_taps() -> None:
    case = Case()
    x, _ = case.inputs(torch.float32, "cpu")
    with pytest.raises(ValueError, match=r"fu, fd: got 12 and 70 taps .* impl='triton' has room for 32"):
        filtered_lrelu(x, torch.ones(12), torch.ones(70), None, 2, 2, padding=50, impl="triton")
