"""The fused convolution against the plain formula in float64: value, first and second order; in Triton's interpreter on
a CPU, natively on a GPU (`pytest -m gpu`)."""

from __future__ import annotations

import mmap
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from sg3.kernels import dispatch, modulated_conv2d
from sg3.kernels.dispatch import ImplUnavailableError
from sg3.kernels.modulated_conv2d import op
from tests.helpers.compare import assert_within_budget

kernels = pytest.importorskip("sg3.kernels.modulated_conv2d.impl_triton", reason="Triton is not installed")
tuning = pytest.importorskip("sg3.kernels.tuning", reason="Triton is not installed")

F16, BF16, F32, F64 = torch.float16, torch.bfloat16, torch.float32, torch.float64
CHANNELS_LAST = torch.channels_last

pytestmark = pytest.mark.usefixtures("poisoned")


def inputs(shape: Sequence[int], w_shape: Sequence[int], device: str = "cpu") -> list[torch.Tensor]:
    """x [N, I, H, W], w [O, I, kh, kw], s [N, I], input_gain [N, I], leaves in float64 that float16 holds exactly."""
    n, i = shape[:2]
    x, w, s, gain = torch.randn(shape), torch.randn(w_shape[0], i, *w_shape[1:]), torch.randn(n, i), torch.rand(n, i)
    return [t.half().to(device, F64).requires_grad_() for t in (x, w, s, gain + 0.5)]


def results(impl: str, leaves: Sequence[torch.Tensor], dtype: torch.dtype, **kwargs: Any) -> dict[str, torch.Tensor]:
    """The value, its gradients for a random upstream gradient, and those of a random combination of them."""
    small = F64 if dtype == F64 else F32  # parameters stay in float32
    made = [t.detach().to(d).requires_grad_() for t, d in zip(leaves, (dtype, small, small, small), strict=True)]
    y = modulated_conv2d(made[0], made[1], made[2], input_gain=made[3], impl=impl, **kwargs)
    draw = torch.Generator().manual_seed(1)

    def like(t: torch.Tensor) -> torch.Tensor:
        return torch.randn(t.shape, generator=draw).half().to(t.device, t.dtype)

    first = torch.autograd.grad(y, made, like(y), create_graph=True)
    # For an empty batch the weights' gradients depend on nothing.
    second = torch.autograd.grad(first, made, [like(g) for g in first], allow_unused=True, materialize_grads=True)
    names = ("x", "w", "s", "gain")
    named = {"y": y} | {f"d{n}": g for n, g in zip(names, first, strict=True)}
    return named | {f"d2{n}": g for n, g in zip(names, second, strict=True)}


def check(leaves: Sequence[torch.Tensor], dtype: torch.dtype, impl: str = "triton", **kwargs: Any) -> None:
    exact, eager = results("ref", leaves, F64, **kwargs), results("ref", leaves, dtype, **kwargs)
    for name, result in results(impl, leaves, dtype, **kwargs).items():
        assert result.shape == exact[name].shape
        if result.numel():  # parameters' gradients too went through x's precision and are judged in it
            assert_within_budget(result.to(dtype), eager[name].to(dtype), exact[name], name)


# ---- against the formula ----

CASES = {
    "3x3": ((2, 5, 6, 7), (4, 3, 3), 1),
    "3x3-full-padding-odd-channels": ((2, 19, 5, 3), (3, 3, 3), 2),
    "3x3-valid": ((1, 3, 6, 5), (19, 3, 3), 0),
    "1x1": ((2, 17, 5, 9), (3, 1, 1), 0),
    "1x1-padded": ((1, 3, 3, 4), (4, 1, 1), 1),
    "2x3-x-y": ((2, 4, 5, 4), (5, 2, 3), [2, 0]),
    "2x3-wider-than-kernel": ((1, 2, 3, 4), (2, 2, 3), [0, 2]),
    "canvas-of-36-x-29": ((1, 3, 29, 36), (2, 3, 3), 2),
    "one-pixel": ((3, 4, 1, 1), (5, 3, 3), 2),
    "many-tiles": ((1, 70, 9, 8), (130, 1, 1), 0),
    "many-tiles-3x3": ((1, 18, 7, 7), (66, 3, 3), 2),
}


@pytest.mark.parametrize("case", [
    pytest.param(case, marks=pytest.mark.slow) if case.startswith("canvas") else case for case in CASES
])  # fmt: skip
def test_float32(case: str, device: str) -> None:
    shape, w_shape, padding = CASES[case]
    check(inputs(shape, w_shape, device), F32, padding=padding)


@pytest.mark.parametrize("case", ["3x3", "1x1", "2x3-x-y", "one-pixel"])
def test_without_demodulation(case: str, device: str) -> None:
    shape, w_shape, padding = CASES[case]
    check(inputs(shape, w_shape, device), F32, padding=padding, demodulate=False)


@pytest.mark.parametrize("dtype", [F16, BF16], ids=["f16", "bf16"])
@pytest.mark.parametrize("case", ["3x3", "1x1", "2x3-x-y", "3x3-full-padding-odd-channels"])
def test_half_precision(case: str, dtype: torch.dtype, device: str) -> None:
    """The interpreter truncates where a GPU rounds to bfloat16: an error of 1 ulp instead of 0.5, within the budget's
    eps."""
    shape, w_shape, padding = CASES[case]
    check(inputs(shape, w_shape, device), dtype, padding=padding)


def test_tiles_cross_every_border(device: str) -> None:
    small, launches = kernels.Tile(16, 16, 16, warps=4, stages=2), []

    def with_small_tiles(tunable: Any, group: tuple, args: tuple) -> Sequence[torch.Tensor]:
        launches.append(group)
        return tunable.launch(small, *args)

    with tuning.observed(with_small_tiles):
        check(inputs((2, 17, 5, 6), (18, 2, 2), device), F32, padding=1)
    assert {group.reduced for group in launches} == {False, True}


@settings(max_examples=12, deadline=None)
@given(
    st.tuples(st.integers(1, 2), st.integers(1, 5), st.integers(1, 6), st.integers(1, 6)),
    st.tuples(st.integers(1, 4), st.integers(1, 3), st.integers(1, 3)),
    st.tuples(st.integers(0, 2), st.integers(0, 2)), st.booleans(), st.booleans(),
)  # fmt: skip
def test_any_geometry(shape, w_shape, padding, x_last, dy_last) -> None:
    """Positive numbers, so that nothing cancels and each sum is off by at most an eps per term."""
    if not dispatch.triton_status(torch.device("cpu")).usable:
        pytest.skip("without the interpreter")
    torch.manual_seed(0)
    n, i, h, wd = shape
    o, kh, kw = w_shape
    padding = [max(padding[0], (kh - h + 1) // 2), max(padding[1], (kw - wd + 1) // 2)]
    leaves = [torch.rand(size) + 0.1 for size in (shape, (o, i, kh, kw), (n, i), (n, o))]
    dy = torch.rand(n, o, h + 2 * padding[0] - kh + 1, wd + 2 * padding[1] - kw + 1)
    if x_last:
        leaves[0] = leaves[0].to(memory_format=CHANNELS_LAST)
    if dy_last:
        dy = dy.to(memory_format=CHANNELS_LAST)
    made = [t.requires_grad_() for t in leaves]
    y = op.scaled_conv2d(*made, padding)
    x, w, si, so = exact = [t.detach().double().requires_grad_() for t in leaves]
    expected = F.conv2d(x * si[:, :, None, None], w, padding=padding) * so[:, :, None, None]
    terms = max(n, i, o) * max(kh * kw, dy[0, 0].numel(), h * wd) + 4
    for got, wanted in zip([y, *torch.autograd.grad(y, made, dy)],
                           [expected, *torch.autograd.grad(expected, exact, dy.double())], strict=True):  # fmt: skip
        assert got.shape == wanted.shape
        assert ((got - wanted).abs() <= torch.finfo(F32).eps * terms * wanted).all()


def test_empty_batch(device: str) -> None:
    check(inputs((0, 3, 4, 4), (5, 3, 3), device), F32, padding=1)


@pytest.mark.parametrize("impl", ["torch", "triton"])
def test_one_sample_with_a_style_of_zeros(impl: str, device: str) -> None:
    """0 times the largest demodulation there is, which float16 cannot hold. (Neither can it hold gradients that have
    been multiplied by it, as 'torch' does before its convolution.)"""
    x, w, s, _ = (t.detach() for t in inputs((2, 5, 4, 4), (3, 3, 3), device))
    s[1] = 0
    leaves = [x.half().requires_grad_(), w.float().requires_grad_(), s.float().requires_grad_()]
    y = modulated_conv2d(*leaves, padding=1, impl=impl)
    assert not y[1].any()
    assert y[0].all()
    if impl == "triton":
        assert all(g.isfinite().all() for g in torch.autograd.grad(y.sum(), leaves))


# ---- layouts ----


@pytest.mark.parametrize("kernel", [1, 3])
def test_channels_last_stays(kernel: int, device: str) -> None:
    """16 channels in: the wide loads of the table."""
    x, w, s, _ = (t.detach().float() for t in inputs((2, 16, 6, 5), (4, kernel, kernel), device))
    last = x.to(memory_format=CHANNELS_LAST).requires_grad_()
    y = modulated_conv2d(last, w, s, padding=kernel - 1, impl="triton")
    assert y.is_contiguous(memory_format=CHANNELS_LAST)
    upstream = torch.randn_like(y)
    (grad,) = torch.autograd.grad(y, last, upstream)
    assert grad.is_contiguous(memory_format=CHANNELS_LAST)
    x.requires_grad_()
    y2 = modulated_conv2d(x, w, s, padding=kernel - 1, impl="triton")
    assert y2.is_contiguous()
    torch.testing.assert_close(y, y2)
    torch.testing.assert_close(grad, torch.autograd.grad(y2, x, upstream)[0])


def test_views_and_expanded_gradients(device: str) -> None:
    x, w, s, gain = inputs((2, 8, 9, 8), (3, 3, 3), device)
    view = x.detach()[:, ::2, 1:, ::2]
    check([view, w.detach()[:, ::2], s.detach()[:, 1::2], gain.detach()[:, :1].expand(2, 4)], F32, padding=1)
    grads = []
    for impl in ("triton", "ref"):
        leaves = [t.detach().float().requires_grad_() for t in (x, w, s)]
        grads.append(torch.autograd.grad(modulated_conv2d(*leaves, padding=1, impl=impl).sum(), leaves))
    for fused, plain in zip(*grads, strict=True):
        torch.testing.assert_close(fused, plain, atol=1e-5 * float(plain.abs().max()), rtol=0)


def spread(x: torch.Tensor, stride: Sequence[int]) -> torch.Tensor:
    """A copy of x with these strides, in memory of which only the pages that hold it are ever touched."""
    size = x.element_size() * (1 + sum((n - 1) * s for n, s in zip(x.shape, stride, strict=True)))
    if x.device.type == "cuda":
        memory = torch.empty(size // x.element_size(), dtype=x.dtype, device=x.device)
    else:
        no_reserve = 0x4000  # Linux's MAP_NORESERVE, which Python names from 3.13 on
        pages = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | no_reserve)
        memory = torch.frombuffer(pages, dtype=x.dtype)
    return memory.as_strided(x.shape, stride).copy_(x)


@pytest.mark.parametrize("stride", [(2**31 + 64, 36, 6, 1), (64, 2**30 + 64, 6, 1), (1, 2, 12, 2**29)],
                         ids=["image", "channel", "pixel"])  # fmt: skip
def test_offsets_beyond_32_bits(stride: Sequence[int], device: str) -> None:
    x = torch.randn(2, 3, 6, 6, device=device).half()
    x, stride = (x[:, :2], stride) if stride[1] == 2 else (x, stride)
    w, si = torch.randn(4, x.shape[1], 3, 3, device=device).half(), torch.rand(2, x.shape[1], device=device)
    far = spread(x[:, :, :5, :5], stride)
    assert torch.equal(op.scaled_conv2d(far, w, si, None, [1, 1]),
                       op.scaled_conv2d(x[:, :, :5, :5], w, si, None, [1, 1]))  # fmt: skip
    dy = torch.randn(2, 4, 5, 5, device=device).half()
    for fused, plain in zip(*(op.scaled_conv2d_grad(dy, each, w, si, None, [1, 1]) for each in (far, x[:, :, :5, :5])),
                            strict=True):
        torch.testing.assert_close(fused, plain)


# ---- the operator's own laws ----


def test_adjoint(device: str) -> None:
    """<A x, y> = <x, A^T y>, up to as many roundings as a product has terms."""
    x, y = torch.randn(2, 5, 6, 7, device=device), torch.randn(2, 4, 7, 6, device=device)
    w, si, so = (torch.randn(shape, device=device) for shape in ((4, 5, 2, 4), (2, 5), (2, 4)))
    ax = op.scaled_conv2d(x, w, si, so, [1, 1])
    aty, dsi = op.scaled_conv2d_grad(y, x, w, si, so, [1, 1])
    bound = torch.finfo(F32).eps * w[0].numel() * F.conv2d(
        (x * si[:, :, None, None]).abs(), w.abs(), padding=1
    ).mul((y * so[:, :, None, None]).abs()).sum()  # fmt: skip
    product = (ax.double() * y).sum()
    assert abs(product - (x.double() * aty).sum()) <= bound
    assert abs(product - (dsi.double() * si).sum()) <= bound


def test_a_shifted_input_gives_a_shifted_output(device: str) -> None:
    x, w, s, _ = (t.detach().float() for t in inputs((2, 5, 6, 6), (3, 3, 3), device))
    y = modulated_conv2d(F.pad(x, [2, 1, 1, 3]), w, s, padding=2, impl="triton")
    shifted = modulated_conv2d(F.pad(x, [1, 2, 3, 1]), w, s, padding=2, impl="triton")
    torch.testing.assert_close(y[:, :, :-2, 1:], shifted[:, :, 2:, :-1])


def test_runs_are_equal(device: str) -> None:
    leaves = inputs((1, 18, 9, 8), (17, 2, 2), device)
    one, two = (results("triton", leaves, F32, padding=1) for _ in range(2))
    assert all(torch.equal(one[name], two[name]) for name in one)


# ---- PyTorch's machinery ----


def op_inputs(device: str, layout: torch.memory_format) -> tuple[torch.Tensor, ...]:
    x, w, si, so = (torch.randn(shape, device=device) for shape in ((2, 3, 4, 5), (4, 3, 3, 2), (2, 3), (2, 4)))
    return tuple(t.requires_grad_() for t in (x.to(memory_format=layout), w, si, so))


@pytest.mark.parametrize("layout", [torch.contiguous_format, CHANNELS_LAST], ids=["nchw", "nhwc"])
def test_opcheck(layout: torch.memory_format, device: str) -> None:
    x, w, si, so = op_inputs(device, layout)
    dy = torch.randn(2, 4, 6, 6, device=device).to(memory_format=layout).requires_grad_()
    torch.library.opcheck(torch.ops.sg3.scaled_conv2d_triton, (x, w, si, so, [2, 1]))
    torch.library.opcheck(torch.ops.sg3.scaled_conv2d_grad_triton, (dy, x, w, si, so, [2, 1]))
    if layout == torch.contiguous_format:  # what has no image for a result, or no scales, does not depend on it
        torch.library.opcheck(torch.ops.sg3.scaled_conv2d_triton, (x, w, None, None, [2, 1]))
        torch.library.opcheck(torch.ops.sg3.channel_dot_triton, (dy, dy.detach() + 1))


class Calls(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.count: Counter[str] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ("x", {"scaled_conv2d_triton": 1}),
        ("w", {"convolution_backward": 1}),
        ("si", {"scaled_conv2d_grad_triton": 1}),
        ("so", {"channel_dot_triton": 1}),
        ("x si", {"scaled_conv2d_grad_triton": 1}),
    ],
)
def test_only_the_gradients_asked_for_are_computed(wanted: str, expected: dict, device: str) -> None:
    tensors = dict(zip(("x", "w", "si", "so"), op_inputs(device, torch.contiguous_format), strict=True))
    tensors = {name: t if name in wanted.split() else t.detach() for name, t in tensors.items()}
    y = op.scaled_conv2d(*tensors.values(), [1, 1])
    with Calls() as calls:
        torch.autograd.grad(y, [tensors[name] for name in wanted.split()], torch.ones_like(y))
    heavy = {name: n for name, n in calls.count.items() if "triton" in name or "convolution" in name}
    assert heavy == expected


@pytest.mark.usefixtures("traced_gradients")
def test_compiled_path_lengths_equal_eager(device: str) -> None:
    """A gradient within the graph, and its gradients for what it depends on."""

    def path_length(x: torch.Tensor, w: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
        y = modulated_conv2d(x, w, s, padding=1, impl="triton")
        (grad,) = torch.autograd.grad(y.square().sum(), s, create_graph=True)
        return grad.square().sum()

    torch._dynamo.reset()
    outcomes = []
    for function in (path_length, torch.compile(path_length, fullgraph=True, backend="aot_eager")):
        leaves = [t.detach().float().requires_grad_() for t in inputs((2, 3, 5, 4), (4, 3, 3), device)[:3]]
        torch.manual_seed(0)
        value = function(*leaves)
        outcomes.append([value, *torch.autograd.grad(value, leaves)])
        torch.manual_seed(0)
    for eager, compiled in zip(*outcomes, strict=True):
        assert eager.abs().max() > 0
        torch.testing.assert_close(compiled, eager)


@pytest.mark.parametrize("impl", ["torch", "triton"])
def test_autocast_leaves_the_type_alone(impl: str, device: str) -> None:
    x, w, s, _ = (t.detach().float() for t in inputs((2, 3, 4, 4), (4, 3, 3), device))
    for dtype in (F32, BF16):
        plain = modulated_conv2d(x.to(dtype), w, s, padding=1, impl=impl)
        with torch.autocast(device, dtype=BF16):
            cast = modulated_conv2d(x.to(dtype), w, s, padding=1, impl=impl)
        assert cast.dtype == dtype
        assert torch.equal(cast, plain)


# ---- who runs ----


def test_triton_has_no_float64(device: str) -> None:
    x, w, s, _ = inputs((1, 2, 3, 3), (2, 1, 1), device)
    with pytest.raises(ImplUnavailableError, match="float64"):
        modulated_conv2d(x, w, s, impl="triton")
