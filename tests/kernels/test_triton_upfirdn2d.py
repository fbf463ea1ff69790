"""upfirdn2d's Triton kernel against the reference in float64. On a machine with a GPU the same tests run there."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sg3.kernels import conv2d_resample, downsample2d, upfirdn2d, upsample2d
from sg3.kernels.dispatch import ImplUnavailableError
from tests.conftest import ROOT
from tests.helpers.compare import assert_within_budget

F64 = torch.float64


def run(impl: str, x: torch.Tensor, f: torch.Tensor | None, v: torch.Tensor, w: torch.Tensor, **kwargs: Any):
    """Value, gradient for upstream v, and the gradient for v of the gradient's product with w."""
    x, v = x.detach().requires_grad_(), v.detach().requires_grad_()
    y = upfirdn2d(x, f, impl=impl, **kwargs)
    (dx,) = torch.autograd.grad(y, x, v, create_graph=True)
    (dv,) = torch.autograd.grad(dx, v, w)
    return y, dx, dv


def check(shape, f, dtype: torch.dtype, device: str = "cpu", layout=torch.contiguous_format, **kwargs: Any) -> None:
    """All orders within the budget, and in the layout of the input."""
    x, w = (torch.randn(shape, device=device).to(dtype).to(memory_format=layout) for _ in range(2))
    f = f if f is None else f.to(device)
    v = torch.randn(upfirdn2d(x, f, impl="ref", **kwargs).shape, device=device).to(dtype)
    results = run("triton", x, f, v, w, **kwargs)
    eager = run("ref", x, f, v, w, **kwargs)
    exact = run("ref", x.double(), f, v.double(), w.double(), **kwargs)
    for what, *each in zip(("y", "dx", "dv"), results, eager, exact, strict=True):
        assert_within_budget(*each, what)
        assert each[0].is_contiguous(memory_format=layout), what


CASES = {  # shape, filter, arguments: every kind of size, factor, padding and filter
    "stylegan2 blur": ((2, 3, 9, 8), (4, 4), {"padding": [2, 1, 2, 1], "gain": 4}),
    "stylegan2 up": ((1, 3, 5, 7), (4, 4), {"up": 2, "padding": [2, 1, 2, 1], "gain": 4}),
    "stylegan2 down": ((1, 3, 7, 10), (4, 4), {"down": 2, "padding": 1}),
    "separable": ((2, 2, 6, 5), (12,), {"up": 2, "down": 2, "padding": [11, 10, 9, 12], "flip_filter": True}),
    "any length": ((1, 2, 5, 6), (13,), {"up": [3, 1], "down": [2, 5], "padding": [14, 9, 13, 6], "gain": 3.7}),
    "any size": ((1, 2, 4, 5), (3, 5), {"up": [1, 2], "down": [3, 1], "padding": [2, 4, -1, 3]}),
    "crop": ((1, 1, 8, 9), (2, 3), {"padding": [-3, -1, -2, 0], "flip_filter": True}),
    "crop beyond": ((1, 1, 4, 4), None, {"padding": [-6, 9, 0, 0]}),
    "no filter": ((1, 2, 3, 4), None, {"up": [2, 3], "padding": 1}),
    "canvas of 36 x 29": ((1, 1, 29, 36), (4, 4), {"up": 2, "padding": [2, 1, 2, 1], "gain": 4}),
    "one pixel": ((1, 1, 1, 1), (8,), {"up": 8, "down": 7, "padding": 8}),
}


def filter_of(shape: tuple[int, ...] | None) -> torch.Tensor | None:
    return None if shape is None else torch.randn(shape)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.usefixtures("poisoned")
def test_all_orders_equal_the_reference(name: str, device: str) -> None:
    shape, taps, kwargs = CASES[name]
    for layout in (torch.contiguous_format, torch.channels_last):
        check(shape, filter_of(taps), torch.float32, device, layout, **kwargs)


def test_an_empty_batch(device: str) -> None:
    x, f = torch.zeros(0, 2, 4, 4, device=device, requires_grad=True), torch.randn(4, device=device)
    y = upfirdn2d(x, f, up=2, padding=2, impl="triton")
    assert y.shape == (0, 2, 9, 9)
    (dx,) = torch.autograd.grad(y.sum(), x, create_graph=True)
    assert dx.shape == x.shape


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", ["stylegan2 blur", "separable", "any size"])
@pytest.mark.usefixtures("poisoned")
def test_half_precision_is_rounded_once(name: str, dtype: torch.dtype, device: str) -> None:
    """The interpreter cuts bfloat16 off: an error of 1 ulp at most, of which the budget has 2."""
    shape, taps, kwargs = CASES[name]
    check(shape, filter_of(taps), dtype, device, **kwargs)


@st.composite
def resamplings(draw) -> dict[str, Any]:
    """Arguments with at least one output pixel."""
    h, w = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    up, down = ([draw(st.integers(1, 8)) for _ in range(2)] for _ in range(2))
    taps = draw(st.sampled_from([(1,), (4,), (7,), (1, 1), (2, 3), (4, 4), (1, 12)]))
    pads = [draw(st.integers(-9, 20)) for _ in range(4)]
    pads[1] = max(pads[1], taps[-1] - w * up[0] - pads[0])
    pads[3] = max(pads[3], taps[0] - h * up[1] - pads[2])
    return {
        "shape": (draw(st.integers(1, 2)), draw(st.integers(1, 3)), h, w), "taps": taps, "up": up, "down": down,
        "padding": pads, "flip_filter": draw(st.booleans()), "seed": draw(st.integers(0, 9)),
    }  # fmt: skip


@settings(max_examples=12, deadline=None, derandomize=True)
@given(resamplings())
def test_the_gradient_is_the_adjoint(case: dict[str, Any]) -> None:
    """<A x, y> = <x, A^T y>, and A x is right."""
    device = "cpu" if os.environ.get("TRITON_INTERPRET") else "cuda"
    torch.manual_seed(case["seed"])
    f = torch.randn(case["taps"], device=device)
    x = torch.randn(case["shape"], device=device, requires_grad=True)
    kwargs = {k: case[k] for k in ("up", "down", "padding", "flip_filter")}
    y = upfirdn2d(x, f, impl="triton", **kwargs)
    exact = upfirdn2d(x.double(), f, impl="ref", **kwargs)
    assert_within_budget(y, upfirdn2d(x, f, impl="ref", **kwargs), exact)
    v = torch.randn_like(y)
    (dx,) = torch.autograd.grad(y, x, v)
    left, right = (y.double() * v).sum(), (x.double() * dx).sum()
    scale = y.double().norm() * v.norm() + 1e-30
    assert abs(left - right) <= 1e-5 * scale


@pytest.mark.usefixtures("poisoned")
def test_any_strides(device: str) -> None:
    f, base = torch.randn(4, 4, device=device), torch.randn(2, 6, 9, 8, device=device)
    views = {
        "slice": base[:, 1::2, ::2, 1:], "transposed": base.transpose(2, 3), "swapped": base.transpose(0, 1),
        "expanded": base[:1, :1].expand(2, 3, 9, 8),
        "channels_last slice": base.to(memory_format=torch.channels_last)[:, 1:4],
    }  # fmt: skip
    for name, x in views.items():
        y, dense = (upfirdn2d(t, f, up=2, padding=3, impl="triton") for t in (x, x.contiguous()))
        assert torch.equal(y, dense), name
    x = base.to(memory_format=torch.channels_last).requires_grad_()
    y = upfirdn2d(x, f, down=2, padding=2, impl="triton")
    (dx,) = torch.autograd.grad(y.sum(), x)  # an expanded upstream gradient, which has no layout
    (expected,) = torch.autograd.grad(upfirdn2d(x, f, down=2, padding=2, impl="ref").sum(), x)
    torch.testing.assert_close(dx, expected, atol=1e-5, rtol=0)
    assert dx.stride() == x.stride()


@pytest.mark.parametrize("axis", range(4))
def test_offsets_beyond_32_bits(axis: int, device: str) -> None:
    """Strides that fit into 32 bits, their products with the indices do not; in buffers of which few pages are used."""
    from sg3.kernels.upfirdn2d.impl_triton import filter_into

    shape, strides, step = (3, 3, 3, 3), [27, 9, 3, 1], 2**30 + 24
    strides[axis] = step
    try:
        buffers = [torch.empty(2 * step + 81, dtype=torch.float16, device=device) for _ in range(2)]
    except RuntimeError:  # where memory is not overcommitted
        pytest.skip("no room for two buffers of 4 GB of address space")
    plain, f = torch.randn(shape, device=device).half(), torch.randn(4, 4, device=device)
    x, y = (buffer.as_strided(shape, strides) for buffer in buffers)
    x.copy_(plain)
    filter_into(y, x, f, (1, 1), (1, 1), (0, 0), False, 1.0)
    expected = upfirdn2d(plain.float(), f, padding=[0, 3, 0, 3], impl="ref")
    torch.testing.assert_close(y.float(), expected, atol=1e-2, rtol=0)


def test_the_number_of_taps_compiles_nothing_new() -> None:
    """StyleGAN3-R's blur goes from 61 taps to 1 while it trains. Counted on Triton's own cache keys, without a GPU."""
    code = """
import torch, triton
from triton.runtime.jit import JITFunction
from sg3.kernels import triton_aot as aot
from sg3.kernels.upfirdn2d import impl_triton
triton.runtime.driver.set_active(aot.Target(90))
keys = set()
triton.knobs.runtime.jit_cache_hook = lambda key, **_: keys.add(key) or True  # True: do not compile
plain = JITFunction.run
JITFunction.run = lambda self, *args, warmup, **kwargs: plain(self, *args, warmup=True, **kwargs)
x = torch.empty(1, 3, 48, 48)
for size in (range(61, 0, -2), range(60, 0, -2)):
    for taps in size:
        out = 48 + taps % 7, 48 + taps % 5  # and padding of all kinds
        impl_triton.forward(x, torch.empty(taps), (1, 1), (1, 1), (taps // 2, taps - 20), False, 1.0, out, False)
    print(len(keys))
"""
    environ = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"} | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    odd, all_of_them = map(int, done.stdout.split())
    # Two passes, each for widths divisible by 16 and not; kernels for any length and for 1, 4, 8 and 12 taps.
    assert odd <= 2 * 2 * 2
    assert all_of_them <= 2 * 2 * 5


def test_as_an_op(device: str) -> None:
    """Schema, fakes, aliasing and autograd as PyTorch's own checker sees them."""
    f = torch.randn(3, 4, device=device)
    for layout in (torch.contiguous_format, torch.channels_last):
        x = torch.randn(1, 2, 4, 5, device=device).to(memory_format=layout).requires_grad_()
        args = (x, f, [2, 1], [1, 2], [2, 1, 0, 3], False, 1.5, layout == torch.channels_last)
        torch.library.opcheck(torch.ops.sg3.upfirdn2d_triton, args)


@pytest.mark.usefixtures("traced_gradients")
def test_compiled_gradient_of_a_gradient(device: str) -> None:
    import torch._dynamo.config

    f, w = torch.randn(4, 4, device=device), torch.randn(2, 2, 1, 1, device=device, requires_grad=True)

    def penalty(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        y = upfirdn2d(conv2d_resample(x, w, impl="triton"), f, up=2, padding=2, impl="triton")
        (dx,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
        return dx.square().sum()

    x = torch.randn(1, 2, 4, 4, device=device, requires_grad=True)
    value = penalty(x, w)
    (dw,) = torch.autograd.grad(value, w)
    compiled = torch.compile(penalty, fullgraph=True, backend="aot_eager")(x, w)
    (dw_compiled,) = torch.autograd.grad(compiled, w)
    torch.testing.assert_close(compiled, value)
    torch.testing.assert_close(dw_compiled, dw)


def test_follows_its_input_under_autocast(device: str) -> None:
    x, f = torch.randn(1, 1, 4, 4, device=device).half(), torch.randn(4, device=device)
    plain = upfirdn2d(x, f, padding=2, impl="triton")
    with torch.autocast(device, dtype=torch.bfloat16):
        y = upfirdn2d(x, f, padding=2, impl="triton")
    assert y.dtype == torch.float16
    assert torch.equal(y, plain)  # and twice the same


def test_refuses_float64(device: str) -> None:
    with pytest.raises(ImplUnavailableError, match="no float64"):
        upfirdn2d(torch.zeros(1, 1, 2, 2, dtype=F64, device=device), None, impl="triton")


def test_what_is_made_of_it(device: str) -> None:
    """conv2d_resample hands the implementation on, and so do the wrappers."""
    x, f = torch.randn(1, 2, 6, 6, device=device), torch.randn(4, 4, device=device)
    w = torch.randn(2, 2, 3, 3, device=device)
    for function in (
        lambda impl: conv2d_resample(x, w, f, up=2, padding=1, impl=impl),
        lambda impl: conv2d_resample(x, w, f, down=2, padding=1, impl=impl),
        lambda impl: upsample2d(x, f, impl=impl),
        lambda impl: downsample2d(x, f, impl=impl),
    ):
        torch.testing.assert_close(function("triton"), function("ref"), atol=2e-5, rtol=1e-5)
