"""bias_act's Triton kernels against the reference in float64. On a machine with a GPU the same tests run there."""

from __future__ import annotations

import os
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sg3.kernels import bias_act
from sg3.kernels.bias_act.activations import ACTIVATIONS, PIECEWISE_LINEAR
from sg3.kernels.bias_act.op import scaled_bias_act
from sg3.kernels.dispatch import ImplUnavailableError
from sg3.models.stylegan2 import SynthesisLayer
from tests.helpers.compare import assert_within_budget

DTYPES = [torch.float32, torch.float16, torch.bfloat16]  # the interpreter cuts bfloat16 off: 1 ulp, the budget has 2


def run(impl: str, tensors: list[torch.Tensor], dy: torch.Tensor, ws: list[torch.Tensor], **kwargs: Any) -> dict:
    """Value; first-order gradients of every tensor; second-order ones of every tensor and of dy."""
    tensors, dy = [t.detach().requires_grad_() for t in tensors], dy.detach().requires_grad_()
    function = scaled_bias_act if len(tensors) > 2 else bias_act
    y = function(*tensors, impl=impl, **kwargs)
    first = torch.autograd.grad(y, tensors, dy, create_graph=True)
    second = torch.autograd.grad(
        sum((g * w).sum() for g, w in zip(first, ws, strict=True)), [*tensors, dy], materialize_grads=True
    )
    return {"y": y} | {f"d{i}": g for i, g in enumerate(first)} | {f"d2_{i}": g for i, g in enumerate(second)}


def check(tensors: list[torch.Tensor], **kwargs: Any) -> None:
    """All orders within the budget; y and the gradient of x in the layout of x."""
    x = tensors[0]
    dy, ws = torch.randn_like(x), [torch.randn_like(t) for t in tensors]
    results = run("triton", tensors, dy, ws, **kwargs)
    eager = run("ref", tensors, dy, ws, **kwargs)
    wide = [t.double() for t in tensors]
    exact = run("ref", wide, dy.double(), [w.double() for w in ws], **kwargs)
    for what, result in results.items():
        assert_within_budget(result, eager[what], exact[what], f"{kwargs} {what}")
    for what in ("y", "d0"):
        assert results[what].stride() == x.stride(), what


@pytest.mark.parametrize("clamp", [None, 0.7])
@pytest.mark.parametrize("act", ACTIVATIONS)
@pytest.mark.usefixtures("poisoned")
def test_all_orders_equal_the_reference(act: str, clamp: float | None, device: str) -> None:
    for dtype in DTYPES:
        x, b = torch.randn(2, 3, 5, 4, device=device).to(dtype) * 2, torch.randn(3, device=device).to(dtype)
        check([x, b], act=act, clamp=clamp)


@pytest.mark.parametrize("act", ["linear", "lrelu", "swish"])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["nchw", "nhwc"])
@pytest.mark.usefixtures("poisoned")
def test_scale_and_noise(act: str, layout: torch.memory_format, device: str) -> None:
    x = (torch.randn(2, 3, 4, 5, device=device) * 2).to(memory_format=layout)
    b, scale = torch.randn(3, device=device), torch.rand(2, 3, device=device) + 0.5
    for noise in (torch.randn(2, 1, 4, 5, device=device), torch.randn(1, 1, 4, 5, device=device)):
        check([x, b, scale, noise], act=act, clamp=1.5, gain=1.3)
    half = scaled_bias_act(x.half(), b.half(), scale, noise[0, 0], act=act, impl="triton")  # float32 beside float16
    plain = scaled_bias_act(x.half(), b.half(), scale, noise[0, 0], act=act, impl="ref")
    exact = scaled_bias_act(
        x.half().double(), b.half().double(), scale.double(), noise[0, 0].double(), act=act, impl="ref"
    )
    assert_within_budget(half, plain, exact)


@pytest.mark.filterwarnings("ignore:overflow encountered in exp")  # the interpreter's, of what is not chosen
@pytest.mark.parametrize("act", ACTIVATIONS)
def test_small_and_large_numbers(act: str, device: str) -> None:
    """Nothing cancels near 0, nothing overflows far out."""
    for scale in (1e-4, 1.0, 30.0):
        x = torch.linspace(-3, 3, 61, device=device) * scale
        check([x, torch.zeros_like(x)], dim=0, act=act)  # no sums, which cancel by chance
    far = torch.tensor([-1e4, -90.0, 90.0, 1e4], device=device, requires_grad=True)
    y, plain = (bias_act(far, dim=0, act=act, impl=impl) for impl in ("triton", "ref"))
    torch.testing.assert_close(y, plain)
    torch.testing.assert_close(*(torch.autograd.grad(t.sum(), far)[0] for t in (y, plain)))


@pytest.mark.parametrize("clamp", [None, 0.5])
@pytest.mark.parametrize("act", ["linear", "relu", "lrelu", "elu", "selu"])
def test_the_kinks_have_the_formulas_gradients(act: str, clamp: float | None, device: str) -> None:
    """At 0 and -0, at the clamp's edges (exactly), beyond them, and at NaN."""
    nan = float("nan")
    x = torch.tensor([-9.0, -2.5, -0.5, -0.0, 0.0, 0.1, 0.5, 0.6, nan], device=device, requires_grad=True)
    gains = {"gain": 1.0, "alpha": 0.2}
    y, plain = (bias_act(x, dim=0, act=act, clamp=clamp, impl=impl, **gains) for impl in ("triton", "ref"))
    torch.testing.assert_close(y, plain, equal_nan=True)
    grad, expected = (torch.autograd.grad(t.sum(), x)[0] for t in (y, plain))
    torch.testing.assert_close(grad, expected, equal_nan=True)
    assert torch.equal(grad == 0, expected == 0)


@st.composite
def shapes(draw) -> tuple[list[int], int, int]:
    shape = draw(st.lists(st.integers(1, 5), min_size=1, max_size=5))
    return shape, draw(st.integers(0, len(shape) - 1)), draw(st.integers(0, 9))


@settings(max_examples=12, deadline=None, derandomize=True)
@given(shapes())
def test_any_dimension_of_any_shape(case: tuple[list[int], int, int]) -> None:
    device = "cpu" if os.environ.get("TRITON_INTERPRET") else "cuda"
    shape, dim, seed = case
    torch.manual_seed(seed)
    check([torch.randn(shape, device=device), torch.randn(shape[dim], device=device)], dim=dim, act="lrelu", clamp=1.0)


@pytest.mark.parametrize("shape", [(7, 300), (2, 5, 33, 67), (1, 2100), (3, 2, 1, 1)])
@pytest.mark.usefixtures("poisoned")
def test_more_than_one_tile(shape: tuple[int, ...], device: str) -> None:
    x, b = torch.randn(shape, device=device), torch.randn(shape[1], device=device)
    check([x, b], act="lrelu", clamp=1.0)
    check([x.half(), b.half()], act="sigmoid")


@pytest.mark.parametrize("dim", range(4))
@pytest.mark.usefixtures("poisoned")
def test_channels_last_along_every_dimension(dim: int, device: str) -> None:
    x = torch.randn(2, 3, 4, 5, device=device).to(memory_format=torch.channels_last)
    check([x, torch.randn(x.shape[dim], device=device)], dim=dim, act="relu", clamp=1.0)


@pytest.mark.usefixtures("poisoned")
def test_any_strides(device: str) -> None:
    base, b = torch.randn(2, 6, 9, 8, device=device), torch.randn(3, device=device)
    views = [base[:, 1::2, ::2, 1:], base[:, :3].transpose(2, 3), base[:1, :1].expand(2, 3, 9, 8), base[:, :3, :1, :1]]
    for act in ("lrelu", "swish"):
        for x in views:
            x = x.detach().requires_grad_()
            y, plain = (bias_act(x, b, act=act, clamp=1.0, impl=impl) for impl in ("triton", "ref"))
            torch.testing.assert_close(y, plain)
            # an expanded upstream gradient
            torch.testing.assert_close(*(torch.autograd.grad(t.sum(), x)[0] for t in (y, plain)))


def test_offsets_beyond_32_bits(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last of four rows begins beyond 2^31 elements. Of all tiles only the first of each row is computed, so that
    few pages of the buffers are used."""
    from sg3.kernels.bias_act import impl_triton as kernels

    plain = kernels.launch
    monkeypatch.setattr(kernels, "launch", lambda kernel, grid, *args, **kw: plain(kernel, (1,), *args, **kw))
    try:
        x = torch.empty(4, 2**30, dtype=torch.float16, device=device)
        row = torch.randn(4, 64, device=device).half()
        x[:, :64] = row
        y, signs = torch.ops.sg3.bias_act_triton(x, None, None, None, 0, "relu", 0.0, 1.0, None, False, True)
    except RuntimeError:  # where memory is not overcommitted
        pytest.skip("no room for two buffers of 8 GB of address space")
    assert torch.equal(y[:, :64], row.relu())
    du = torch.ops.sg3.bias_act_grad_triton(
        x, signs, None, None, None, None, 0, "relu", 0.0, 1.0, None, False
    )
    assert torch.equal(du[:, :64], row.relu())


@pytest.mark.parametrize("shape", [(0, 3, 4, 4), (0, 3), (2, 3, 0)])
def test_nothing_to_do(shape: tuple[int, ...], device: str) -> None:
    for act in ("lrelu", "tanh"):
        x, b = torch.zeros(shape, device=device, requires_grad=True), torch.zeros(3, device=device, requires_grad=True)
        y = bias_act(x, b, act=act, impl="triton")
        dx, db = torch.autograd.grad(y.sum(), [x, b], create_graph=True)
        assert y.shape == dx.shape == x.shape
        assert db.tolist() == [0, 0, 0]


def saved_bytes(function) -> int:
    total = 0

    def pack(t: torch.Tensor) -> torch.Tensor:
        nonlocal total
        total += t.numel() * t.element_size()
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        function()
    return total


def test_what_is_saved_for_backward(device: str) -> None:
    """2 bits per element, or x; nothing for a plain sum; no signs without a gradient."""
    x, b = torch.randn(2, 4, 8, 8, device=device, requires_grad=True), torch.randn(4, device=device)

    def saved(**kwargs: Any) -> int:
        return saved_bytes(lambda: bias_act(x, b, impl="triton", **kwargs))

    assert saved(act="linear") == 0
    assert saved(act="linear", clamp=1.0) == saved(act="relu") == saved(act="lrelu", clamp=1.0) == x.numel() // 4
    assert saved(act="swish", clamp=1.0) == 4 * (x.numel() + b.numel())
    signs = torch.ops.sg3.bias_act_triton(x, b, None, None, 1, "lrelu", 0.2, 1.0, None, False, False)[1]
    assert signs.numel() == 0


@pytest.mark.parametrize("wanted", [(True, False, False, False), (False, True, False, False),
                                    (False, False, True, False), (False, False, False, True)])  # fmt: skip
def test_only_the_wanted_gradients(wanted: tuple[bool, ...], device: str) -> None:
    tensors = [torch.randn(shape, device=device) for shape in ((2, 3, 4, 4), (3,), (2, 3), (2, 1, 4, 4))]
    for act in ("lrelu", "tanh"):
        results = []
        for impl in ("triton", "ref"):
            inputs = [t.clone().requires_grad_(w) for t, w in zip(tensors, wanted, strict=True)]
            scaled_bias_act(*inputs, act=act, impl=impl).square().sum().backward()
            results.append([t.grad for t in inputs])
        for fast, plain in zip(*results, strict=True):
            assert (fast is None) == (plain is None)
            if fast is not None:
                torch.testing.assert_close(fast, plain, atol=1e-5, rtol=1e-5)


def test_beyond_the_second_order(device: str) -> None:
    x = torch.randn(2, 3, device=device, requires_grad=True)
    for act in ("lrelu", "tanh"):
        y = bias_act(x, act=act, impl="triton") * x
        for _ in range(2):
            (y,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
        if act == "lrelu":  # its pieces have all orders
            (y,) = torch.autograd.grad(y.square().sum(), x)
        else:
            with pytest.raises(NotImplementedError, match="up to second order; use impl='ref'"):
                torch.autograd.grad(y.square().sum(), x)


@pytest.mark.parametrize("act", ["lrelu", "swish"])
def test_as_ops(act: str, device: str) -> None:
    """Schema, fakes, aliasing and autograd as PyTorch's own checker sees them."""
    for layout in (torch.contiguous_format, torch.channels_last):
        x = torch.randn(2, 3, 2, 5, device=device).to(memory_format=layout).requires_grad_()
        inputs = (x, *(torch.randn(shape, device=device, requires_grad=True) for shape in ((3,), (2, 3), (1, 1, 2, 5))))
        piecewise = act in PIECEWISE_LINEAR
        rest = (1, act, 0.2, 1.5, 0.9, layout == torch.channels_last)
        torch.library.opcheck(torch.ops.sg3.bias_act_triton, (*inputs, *rest, piecewise))
        signs = torch.ops.sg3.bias_act_triton(*inputs, *rest, piecewise)[1]
        dy = torch.randn_like(x).requires_grad_()
        u_from = (None,) * 4 if piecewise else inputs
        torch.library.opcheck(torch.ops.sg3.bias_act_grad_triton, (dy, signs, *u_from, *rest))
        if not piecewise:
            constants = [t.detach() for t in (dy, dy, *inputs)]
            torch.library.opcheck(torch.ops.sg3.bias_act_second_grad_triton, (*constants, *rest))


@pytest.mark.parametrize("act", ["lrelu", "swish"])
@pytest.mark.usefixtures("traced_gradients")
def test_compiled_gradient_of_a_gradient(act: str, device: str) -> None:
    import torch._dynamo.config

    def penalty(x: torch.Tensor, *parameters: torch.Tensor) -> torch.Tensor:
        y = scaled_bias_act(x.square(), *parameters, act=act, clamp=2.0, impl="triton")
        (dx,) = torch.autograd.grad(bias_act(y, act="tanh", impl="triton").sum(), x, create_graph=True)
        return dx.square().sum()

    shapes = ((2, 3, 4, 2), (3,), (2, 3), (2, 1, 4, 2))
    x, *parameters = (torch.randn(shape, device=device, requires_grad=True) for shape in shapes)
    value = penalty(x, *parameters)
    expected = torch.autograd.grad(value, parameters)
    compiled = torch.compile(penalty, fullgraph=True, backend="aot_eager")(x, *parameters)
    torch.testing.assert_close(compiled, value)
    torch.testing.assert_close(torch.autograd.grad(compiled, parameters), expected)


def test_bias_is_cast_only_under_autocast(device: str) -> None:
    x, b = torch.randn(2, 3, device=device).half(), torch.randn(3, device=device)
    for impl in ("triton", "ref"):
        with torch.autocast(device, dtype=torch.bfloat16):
            assert bias_act(x, b, impl=impl).dtype == torch.float16
        with pytest.raises(TypeError, match=r"b: got dtype torch\.float32, expected torch\.float16 as x"):
            bias_act(x, b, impl=impl)


def test_refuses_what_it_cannot_do(device: str) -> None:
    x = torch.zeros(2, 3, 4, 4, device=device)
    with pytest.raises(ImplUnavailableError, match="no float64"):
        bias_act(x.double(), impl="triton")
    with pytest.raises(ValueError, match=r"scale: got shape \[3\], expected \[2, 3\]"):
        scaled_bias_act(x, scale=x.new_zeros(3))
    with pytest.raises(ValueError, match=r"noise: got shape \[2, 3, 4, 4\], expected \[2, 1, 4, 4\] or"):
        scaled_bias_act(x, noise=x)
    with pytest.raises(TypeError, match=r"noise: got dtype torch\.int64"):
        scaled_bias_act(x, noise=torch.zeros(4, 4, dtype=torch.int64, device=device))


def test_twice_the_same_and_nothing_overwritten(device: str) -> None:
    x, b = torch.randn(2, 3, 4, 4, device=device, requires_grad=True), torch.randn(3, device=device, requires_grad=True)
    before = x.detach().clone()
    y = bias_act(x, b, act="swish", impl="triton")
    grads = [torch.autograd.grad(y, [x, b], torch.ones_like(y), retain_graph=True) for _ in range(2)]
    for once, again in zip(*grads, strict=True):
        assert torch.equal(once, again)
    assert torch.equal(x, before)
    y.detach().add_(1)  # the result is an ordinary tensor, in both layouts
    bias_act(x.to(memory_format=torch.channels_last), b, impl="triton").add_(1)


def test_a_layer_of_stylegan2(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole layer on Triton: demodulation, noise, bias and activation in one op, with all its gradients."""
    layer = SynthesisLayer(3, 4, 5, resolution=8, up=2, conv_clamp=256).to(device)
    layer.noise_strength.data.fill_(0.3)
    x, w = (torch.randn(shape, device=device, requires_grad=True) for shape in ((2, 3, 4, 4), (2, 5)))
    inputs = [x, w, *layer.parameters()]
    results = []
    for impl in ("triton", "ref"):
        monkeypatch.setenv("SG3_IMPL", impl)
        y = layer(x, w, noise_mode="const")
        first = torch.autograd.grad(y.square().sum(), inputs, create_graph=True)
        second = torch.autograd.grad(first[1].square().sum(), inputs, materialize_grads=True)  # as path lengths do
        results.append([y, *first, *second])
    for fast, plain in zip(*results, strict=True):
        torch.testing.assert_close(fast, plain, atol=2e-5 * float(plain.detach().abs().max() + 1e-3), rtol=0)
