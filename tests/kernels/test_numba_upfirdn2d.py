"""upfirdn2d's kernel for CPUs against the reference."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sg3.kernels import conv2d_resample, setup_filter, upfirdn2d
from sg3.kernels.dispatch import ImplUnavailableError, explain
from tests.conftest import ROOT

numba = pytest.importorskip("numba", reason="impl='numba' needs sg3's extra 'cpu'")
kernel = pytest.importorskip("sg3.kernels.upfirdn2d.impl_numba")
op = sys.modules["sg3.kernels.upfirdn2d.op"]  # the package's attribute is the function
pytestmark = pytest.mark.usefixtures("poisoned")
LAST = torch.channels_last
FIR = setup_filter([1, 3, 3, 1])


@st.composite
def resamplings(draw) -> dict:
    """Arguments of upfirdn2d with at least one output pixel."""
    h, w = draw(st.integers(1, 20)), draw(st.integers(1, 20))
    up, down = ([draw(st.integers(1, 4)) for _ in range(2)] for _ in range(2))
    separable = draw(st.booleans())
    taps_x = draw(st.integers(1, 13))
    taps_y = taps_x if separable else draw(st.integers(1, 7))
    pads = [draw(st.integers(-7, 30)) for _ in range(4)]
    pads[1] = max(pads[1], taps_x - w * up[0] - pads[0])
    pads[3] = max(pads[3], taps_y - h * up[1] - pads[2])
    return {
        "shape": (draw(st.integers(1, 2)), draw(st.integers(1, 5)), h, w), "taps": (taps_y, taps_x), "up": up,
        "separable": separable, "down": down, "padding": pads, "flip_filter": draw(st.booleans()),
        "gain": draw(st.sampled_from([1.0, 4.0, 0.3])), "last": draw(st.booleans()),
    }  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(resamplings())
def test_value_and_two_gradients(case: dict) -> None:
    torch.manual_seed(0)
    f = torch.randn(case["taps"][1]) if case["separable"] else torch.randn(case["taps"])
    x = torch.randn(case["shape"])
    x = x.contiguous(memory_format=LAST) if case["last"] else x
    kwargs = {k: case[k] for k in ("up", "down", "padding", "flip_filter", "gain")}

    def three(x: torch.Tensor, f: torch.Tensor, impl: str) -> list[torch.Tensor]:
        x = x.detach().requires_grad_()
        y = upfirdn2d(x, f, impl=impl, **kwargs)
        g = torch.linspace(-1, 1, y.numel()).reshape(y.shape).to(y.dtype).requires_grad_()
        (dx,) = torch.autograd.grad(y, x, g, create_graph=True)
        (dg,) = torch.autograd.grad(dx, g, torch.ones_like(dx))
        return [t.detach() for t in (y, dx, dg)]

    results = three(x, f, "numba")
    exact = three(x.double(), f.double(), "ref")
    # What a few roundings of all that is summed may make of it: the taps are rounded, too.
    scale = float(f.abs().sum() ** (3 - f.ndim)) * max(float(x.abs().max()), 1.0) * kwargs["gain"]
    for result, truth in zip(results, exact, strict=True):
        assert result.shape == truth.shape
        assert (result.double() - truth).abs().max() <= 8 * torch.finfo(torch.float32).eps * scale


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, LAST], ids=["nchw", "nhwc"])
@pytest.mark.parametrize(("up", "down"), [(1, 1), (2, 1), (1, 2), (3, 2)])
@pytest.mark.usefixtures("threads")
def test_the_number_of_threads_does_not_show(
    memory_format: torch.memory_format, up: int, down: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernel, "AT_LEAST", 1000)
    made: list[tuple[int, int]] = []
    rows = kernel._rows

    def noting(*arguments) -> None:
        made.append(arguments[-2:])
        rows(*arguments)

    monkeypatch.setattr(kernel, "_rows", noting)
    base = torch.randn(3, 5, 45, 45).contiguous(memory_format=memory_format)
    results = []
    for count in (1, 2):
        torch.set_num_threads(count)
        x = base.clone(memory_format=torch.preserve_format).requires_grad_()
        y = upfirdn2d(x, FIR, up, down, 2, impl="numba")
        results.append((y, *torch.autograd.grad(y.square().sum(), x)))
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
    assert len(made) == (6 if numba.config.NUMBA_NUM_THREADS > 1 else 4)


def test_what_a_thread_raises_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not only noticed in what it did not write."""
    monkeypatch.setattr(kernel, "AT_LEAST", 1)
    monkeypatch.setattr(numba, "get_num_threads", lambda: 2)

    def rows(*arguments) -> None:
        if arguments[-2] > 0:
            raise MemoryError("no room")

    monkeypatch.setattr(kernel, "_rows", rows)
    with pytest.raises(MemoryError, match="no room"):
        kernel._rows_by_threads(None, torch.zeros(20), (1, 4, 5, 1), (4, 5))


def test_memory_layouts() -> None:
    """Any strides in, expanded gradients in, channels_last in and out, empty batches, one pixel, a filter's strides."""

    def run(x: torch.Tensor, f: torch.Tensor = FIR) -> tuple[torch.Tensor, torch.Tensor]:
        x = x.detach().requires_grad_()
        y = upfirdn2d(x, f, up=2, padding=[2, 1, -1, 3], impl="numba")
        return y.detach(), torch.autograd.grad(y.sum(), x)[0]  # an expanded gradient: all strides are 0

    x = torch.randn(2, 3, 9, 11)
    y, dx = run(x)
    assert y.is_contiguous()
    wide = torch.zeros(2, 3, 18, 44)
    wide[:, :, ::2, ::4] = x
    turned = x.transpose(2, 3).contiguous().transpose(2, 3)
    for other in (x.contiguous(memory_format=LAST), wide[:, :, ::2, ::4], turned):
        y_other, dx_other = run(other)
        torch.testing.assert_close(y_other, y, rtol=0, atol=1e-6)
        torch.testing.assert_close(dx_other, dx, rtol=0, atol=1e-6)
    assert run(x.contiguous(memory_format=LAST))[0].is_contiguous(memory_format=LAST)
    assert torch.equal(run(x, FIR.t().contiguous().t())[0], y)

    empty = torch.zeros(0, 3, 9, 11, requires_grad=True)
    result = upfirdn2d(empty, FIR, padding=2, impl="numba")
    assert result.shape == (0, 3, 10, 12)
    assert torch.autograd.grad(result.sum(), empty)[0].shape == empty.shape
    assert torch.equal(upfirdn2d(torch.ones(1, 1, 1, 1), None, impl="numba"), torch.ones(1, 1, 1, 1))
    assert (upfirdn2d(x, None, up=3, padding=40, impl="numba")[:, :, :30] == 0).all()


def test_filters_that_are_no_product() -> None:
    """Of full rank, of zeros, with negative gain. One that is not finite makes NaN of everything, as the formula."""
    x = torch.randn(1, 2, 7, 6)
    f = torch.tensor([[0.0, 1, 0], [2, 0, 0], [0, 0, 3], [0, 0, 0]])
    for taps, gain in ((f, 1.0), (f, -2.0), (0 * f, 1.0), (f[:, :1], 1.0)):
        fast, plain = (upfirdn2d(x, taps, padding=3, gain=gain, impl=impl) for impl in ("numba", "ref"))
        torch.testing.assert_close(fast, plain, rtol=0, atol=4e-6)
    assert upfirdn2d(x, f / 0, impl="numba").isnan().all()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, LAST], ids=["nchw", "nhwc"])
def test_what_is_not_finite_stays_and_spoils_no_other_plane(value: float, memory_format: torch.memory_format) -> None:
    x = torch.zeros(2, 3, 12, 12).contiguous(memory_format=memory_format)
    x[0, 1, 5, 5] = value
    for up, down in ((1, 1), (2, 1), (1, 2)):
        fast, plain = (upfirdn2d(x, FIR, up, down, 2, impl=impl) for impl in ("numba", "ref"))
        if up == 1:  # the formula multiplies the zeros that upsampling inserts
            assert torch.equal(fast.isfinite(), plain.isfinite())
        assert not fast[0, 1].isfinite().all()
        fast[0, 1] = 0
        assert (fast == 0).all()


def test_opcheck() -> None:
    x = torch.randn(2, 3, 5, 6).contiguous(memory_format=LAST).requires_grad_()
    arguments = (x, FIR, [2, 1], [1, 2], [2, 1, -1, 4], False, 2.0, True)
    torch.library.opcheck(torch.ops.sg3.upfirdn2d_numba, arguments)


@pytest.mark.usefixtures("traced_gradients")
def test_gradient_of_a_gradient_in_one_graph() -> None:
    x, w = torch.randn(2, 4, 6, 6), torch.randn(3, 4, 3, 3, requires_grad=True)

    def penalty(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        (g,) = torch.autograd.grad(conv2d_resample(x, w, FIR, down=2, padding=1, impl="numba").square().sum(), x,
                                   create_graph=True)  # fmt: skip
        return g.square().sum()

    compiled = torch.compile(penalty, fullgraph=True, backend="aot_eager", dynamic=False)
    eager, traced = (torch.autograd.grad(p(x.clone().requires_grad_(), w), w)[0] for p in (penalty, compiled))
    torch.testing.assert_close(traced, eager, rtol=1e-5, atol=1e-5 * float(eager.abs().max()))


def test_what_auto_leaves_to_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many short rows. By name, and for what lies channels last, it is always Numba."""
    ran: list[str] = []

    def noting(name: str, function: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        def call(*args, **kwargs) -> torch.Tensor:
            ran.append(name)
            return function(*args, **kwargs)

        return call

    for name in ("numba", "torch"):
        function = f"upfirdn2d_{name}"
        monkeypatch.setattr(op, function, noting(name, getattr(op, function)))
    monkeypatch.delenv("SG3_IMPL", raising=False)
    short = torch.randn(4, 128, 8, 8)
    long = torch.randn(1, 64, 40, 40)
    for x in (short, short.contiguous(memory_format=LAST), short[:, :3], long, short[:1], short[:0]):
        upfirdn2d(x, FIR, padding=2)
    assert ran == ["torch", "numba", "numba", "numba", "torch", "torch"], "whatever the size of the batch"
    ran.clear()
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    upfirdn2d(long, FIR, padding=2)
    assert ran == ["torch"], "it is slower on two threads"
    assert explain("upfirdn2d", torch.device("cpu")) == ("torch", "the fastest on several threads")
    ran.clear()
    upfirdn2d(short, FIR, padding=2, impl="numba")
    conv2d_resample(short, torch.randn(2, 128, 3, 3), FIR, down=2)
    conv2d_resample(short, torch.randn(2, 128, 3, 3), FIR, down=2, impl="numba")
    assert ran == ["numba", "torch", "numba"]


def test_other_types_are_pytorchs() -> None:
    x = torch.randn(1, 2, 5, 5)
    for dtype in (torch.float64, torch.float16, torch.bfloat16):
        assert upfirdn2d(x.to(dtype), FIR, padding=2).dtype == dtype
        with pytest.raises(ImplUnavailableError, match="upfirdn2d: impl='numba' has no"):
            upfirdn2d(x.to(dtype), FIR, padding=2, impl="numba")


@pytest.mark.slow
def test_no_index_leaves_its_array(tmp_path: Path) -> None:
    """Every access checked, in a process of its own."""
    script = """
import random, torch
import numpy as np
from sg3.kernels import upfirdn2d
from sg3.kernels.upfirdn2d.impl_numba import _weigh
u, a = np.uint64, np.zeros(4, np.float32)
try:
    _weigh(a, u(0), u(4), a.copy(), np.ones(1, np.uint64), np.ones(1, np.float32), u(1), False)
except IndexError:
    pass
else:
    raise SystemExit("indices are not checked")
random.seed(1)
done = 0
while done < 300:
    r = random.randint
    f = random.choice([None, torch.rand(r(1, 13)), torch.rand(r(1, 6), r(1, 6))])
    x = torch.randn(2, r(1, 4), r(1, 12), r(1, 12), requires_grad=True)
    if r(0, 1):
        x = x.detach().contiguous(memory_format=torch.channels_last).requires_grad_()
    try:
        y = upfirdn2d(x, f, [r(1, 4), r(1, 4)], [r(1, 4), r(1, 4)], [r(-8, 30) for _ in range(4)], impl="numba")
    except ValueError:
        continue
    torch.autograd.grad(y.sum(), x)
    done += 1
print("all inside")
"""
    environment = {**os.environ, "NUMBA_BOUNDSCHECK": "1", "NUMBA_CACHE_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.stdout.strip() == "all inside", done.stderr[-3000:]
