"""filtered_lrelu's kernel for CPUs against the reference."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from math import lcm
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sg3.kernels import filtered_lrelu
from sg3.kernels.filtered_lrelu.op import filtered_lrelu_numba, filtered_lrelu_ref
from tests.conftest import ROOT
from tests.helpers.compare import assert_within_budget
from tests.helpers.filtered_lrelu_cases import CANVASES, CASES, F64, Case, between_filters, gradient

numba = pytest.importorskip("numba", reason="impl='numba' needs sg3's extra 'cpu'")
kernel = pytest.importorskip("sg3.kernels.filtered_lrelu.impl_numba")
pytestmark = pytest.mark.usefixtures("poisoned")
F32 = torch.float32


@pytest.fixture(params=["whole", "small tiles"])
def tiles(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """As large as they come, or so small that every test has several, in all directions."""
    if request.param != "whole":
        monkeypatch.setattr(kernel, "tile_size", lambda y, phases: (2, -(-5 // phases) * phases, 3))
    return request.param


def signs_of(plane: torch.Tensor, up: int, down: int, lanes: int) -> torch.Tensor:
    """As the kernel lays them out -> [N, C, rows, columns]."""
    n, c, rows, columns = plane.shape
    period, planes = lcm(up, down), []
    for image in plane.reshape(n, -1):
        for channel in range(0, c, lanes):
            block = image[channel * rows * columns : (channel + lanes) * rows * columns]
            parts = block.reshape(rows, period, columns // period, -1)  # [row, phase, position, lane]
            planes.append(parts.permute(3, 0, 2, 1).flatten(2))
    return torch.cat(planes).reshape(n, c, rows, columns)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=["nchw", "nhwc"])
@pytest.mark.parametrize("case", (CASES | CANVASES).values(), ids=(CASES | CANVASES).keys())
def test_value_signs_and_gradients(case: Case, memory_format: torch.memory_format, tiles: str) -> None:
    fu, fd = case.filters("cpu")
    x, b = case.inputs(F32, "cpu")
    x = x.contiguous(memory_format=memory_format).requires_grad_()
    y, plane = filtered_lrelu_numba(x, fu, fd, b, *case.arguments(), True)
    exact_b = None if b is None else b.double()
    exact = filtered_lrelu_ref(x.double(), fu, fd, exact_b, *case.arguments())
    assert_within_budget(y, filtered_lrelu_ref(x, fu, fd, b, *case.arguments()), exact, "y")

    v = between_filters(case, x.detach().double(), exact_b, fu)
    taps = [1, 1] if fd is None else [fd.shape[0], fd.shape[-1]]
    height, width = ((size - 1) * case.down + n for size, n in zip(y.shape[2:], taps, strict=True))
    v = v[:, :, :height, :width]
    expected = torch.where(v > 0, 0, 1)
    if case.clamp is not None:
        expected[v.abs() > case.clamp] = 2
    signs = signs_of(plane, case.up, case.down, lanes=2 if tiles == "small tiles" else x.shape[1])
    assert signs.shape[2] == height
    assert width <= signs.shape[3] < width + lcm(case.up, case.down)
    assert (signs <= 2).all()  # everywhere: memory is poisoned beforehand
    signs = signs[..., :width]
    edge = 16 * torch.finfo(F32).eps * v.abs().max()
    unsure = v.abs() < edge
    if case.clamp is not None:
        unsure |= (v.abs() - case.clamp).abs() < edge
    assert torch.equal(signs[~unsure], expected.to(torch.uint8)[~unsure])

    # With these signs the gradient op is linear, and so is its own gradient op.
    factor = torch.tensor([1.0, case.slope, 0.0])[signs.long()]
    g = torch.randn(y.shape, requires_grad=True)
    (dx,) = torch.autograd.grad(y, x, g, create_graph=True)
    exact, eager = (gradient(case, factor.to(t), fu, fd, g.to(t), x.to(t)) for t in (F64, F32))
    assert_within_budget(dx, eager, exact, "dx")

    h = torch.randn_like(x)
    (dg,) = torch.autograd.grad(dx, g, h)
    left, right = (dg.double() * g.double()).sum(), (h.double() * exact).sum()
    scale = (dg.double() * g.double()).abs().sum() + (h.double() * exact).abs().sum()
    assert abs(left - right) <= torch.finfo(F32).eps * 2 * scale, "adjoint"


@pytest.mark.parametrize("channels", [1, 16, 64, 65, 130])
def test_blocks_of_channels(channels: int) -> None:
    case = Case(shape=(2, channels, 9, 7))
    fu, fd = case.filters("cpu")
    x, b = case.inputs(F32, "cpu")
    x.requires_grad_()
    y = filtered_lrelu(x, fu, fd, b, 2, 2, case.padding, clamp=1.0, impl="numba")
    plain = filtered_lrelu(x, fu, fd, b, 2, 2, case.padding, clamp=1.0, impl="torch")
    torch.testing.assert_close(y, plain, rtol=0, atol=1e-5)
    g = torch.randn_like(y)
    (dx,), (plain_dx,) = (torch.autograd.grad(t, x, g) for t in (y, plain))
    torch.testing.assert_close(dx, plain_dx, rtol=0, atol=2e-5)


def test_real_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """An image that is cut in both directions, and the same in one piece: equal bits, gradient included."""
    x = torch.randn(1, 64, 80, 300, requires_grad=True)
    fu, fd = Case().filters("cpu")
    results = []
    for whole in (False, True):
        if whole:
            monkeypatch.setattr(kernel, "tile_size", lambda y, phases: (64, y.shape[3], y.shape[2]))
        else:
            lanes, columns, rows = kernel.tile_size(x, 1)
            assert lanes == 64
            assert columns < 300
            assert rows < 80
        y = filtered_lrelu(x, fu, fd, None, 2, 2, 11, clamp=1.0, impl="numba")
        results.append((y, *torch.autograd.grad(y.square().sum(), x)))
    for cut, in_one_piece in zip(*results, strict=True):
        assert torch.equal(cut, in_one_piece)


def test_a_layer_of_512_by_384() -> None:
    """The widest layer of such a StyleGAN3, 532 x 404 with its margins, against PyTorch's path."""
    x = torch.randn(1, 2, 406, 534, requires_grad=True)  # after a 3 x 3 convolution
    fu, fd = Case().filters("cpu")
    padding = [9, 8, 9, 8]
    y, plain = (filtered_lrelu(x, fu, fd, None, 2, 2, padding, clamp=1.0, impl=impl) for impl in ("numba", "torch"))
    assert y.shape == (1, 2, 404, 532)
    torch.testing.assert_close(y, plain, rtol=0, atol=1e-5)
    g = torch.randn_like(y)
    (dx,), (plain_dx,) = (torch.autograd.grad(t, x, g) for t in (y, plain))
    torch.testing.assert_close(dx, plain_dx, rtol=0, atol=2e-5)


def test_the_number_of_threads_does_not_show() -> None:
    x, (fu, fd) = torch.randn(3, 5, 40, 40, requires_grad=True), Case().filters("cpu")
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            y = filtered_lrelu(x, fu, fd, None, 2, 2, 11, impl="numba")
            results.append((y, *torch.autograd.grad(y.square().sum(), x)))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_the_users_number_of_numba_threads_stays() -> None:
    x, (fu, fd) = torch.randn(1, 2, 9, 9), Case().filters("cpu")
    before = numba.get_num_threads()
    numba.set_num_threads(1)
    try:
        filtered_lrelu(x, fu, fd, None, 2, 2, 11, impl="numba")
        assert numba.get_num_threads() == 1
    finally:
        numba.set_num_threads(before)
        torch.set_num_threads(1)  # with OpenMP as its pool, this was PyTorch's number, too


def child(script: str, **variables: str) -> str:
    """What another process prints on both of its streams. `run()` and what it needs are there."""
    start = """
import os, torch, numba
from sg3.kernels import filtered_lrelu
torch.set_num_threads(2)
x, f = torch.ones(2, 3, 9, 9), torch.ones(12) / 12
def run():
    return filtered_lrelu(x, f, f, None, 2, 2, 11, impl="numba")
"""
    done = subprocess.run([sys.executable, "-c", start + script], cwd=ROOT, capture_output=True, text=True,
                          env={**os.environ, **variables}, timeout=400)  # fmt: skip
    return done.stdout + done.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_child_runs_it_too() -> None:
    """A data loader's worker, for example: OpenMP ends a child that uses the threads of its parent."""
    assert child("""
expected = run()
if os.fork() == 0:
    print("same" if torch.equal(run(), expected) else "other", flush=True)
    os._exit(0)
print(os.wait()[1])
""").split() == ["same", "0"]


def test_pytorchs_number_of_threads_stays() -> None:
    """Numba's pool can be OpenMP's, and the number of its threads then is PyTorch's, too."""
    four = {"NUMBA_NUM_THREADS": "4", "OMP_NUM_THREADS": "4"}
    assert child("run(); print(torch.get_num_threads(), numba.get_num_threads())", **four).split() == ["2", "4"]


def test_calls_from_several_threads() -> None:
    """As from a viewer: Numba's simplest thread pool would end the process."""
    x, (fu, fd) = torch.randn(2, 4, 30, 30), Case().filters("cpu")
    expected = filtered_lrelu(x, fu, fd, None, 2, 2, 11, impl="numba")
    wrong: list[int] = []

    def work() -> None:
        for _ in range(30):
            y = filtered_lrelu(x, fu, fd, None, 2, 2, 11, impl="numba")
            if not torch.equal(y, expected):
                wrong.append(1)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_the_kinks_have_the_formulas_gradients() -> None:
    """At 0 (of either sign) the slope, at the clamp's edge 1, beyond it 0: bit for bit what the formula gives."""
    v = torch.tensor([-9.0, -2.5, -2.0, -1.0, -0.0, 0.0, 0.1, 0.5, 0.6]).reshape(1, 1, 1, -1)
    grads = []
    for impl in ("numba", "ref"):
        x = v.clone().requires_grad_()
        y = filtered_lrelu(x, gain=1.0, slope=0.25, clamp=0.5, impl=impl)
        grads.append((y, torch.autograd.grad(y.sum(), x)[0]))
    assert torch.equal(grads[0][0], grads[1][0])
    assert torch.equal(grads[0][1], grads[1][1])


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_stays_and_spoils_no_other_plane(value: float) -> None:
    x = torch.zeros(2, 3, 20, 20)
    x[0, 1, 10, 10] = value
    fu, fd = Case().filters("cpu")
    y = filtered_lrelu(x, fu, fd, up=2, down=2, padding=11, impl="numba")
    assert not y[0, 1, 10, 10].isfinite()
    y[0, 1] = 0
    assert y.isfinite().all()
    clamped = filtered_lrelu(x, fu, fd, up=2, down=2, padding=11, clamp=1.0, impl="numba")
    assert clamped[0, 1, 10, 10].isnan() or value == float("inf")


def test_memory_layouts(tiles: str) -> None:
    """Any strides in, expanded gradients in, channels_last in and out, empty batches, biases with strides."""
    case = Case(shape=(2, 3, 9, 11))
    fu, fd = case.filters("cpu")
    x, b = case.inputs(F32, "cpu")

    def run(x: torch.Tensor, b: torch.Tensor = b) -> tuple[torch.Tensor, torch.Tensor]:
        x = x.detach().requires_grad_()
        y = filtered_lrelu(x, fu, fd, b, 2, 2, case.padding, impl="numba")
        (dx,) = torch.autograd.grad(y.sum(), x)  # an expanded gradient: all strides are 0
        return y.detach(), dx

    y, dx = run(x)
    last = x.contiguous(memory_format=torch.channels_last)
    wide = torch.zeros(2, 3, 18, 44)
    wide[:, :, ::2, ::4] = x
    for other in (last, wide[:, :, ::2, ::4], x.transpose(2, 3).contiguous().transpose(2, 3)):
        y_other, dx_other = run(other)
        assert torch.equal(y_other, y)
        assert torch.equal(dx_other, dx)
    last.requires_grad_()
    y_last = filtered_lrelu(last, fu, fd, b, 2, 2, case.padding, impl="numba")
    (dx_last,) = torch.autograd.grad(y_last, last, torch.ones_like(y_last))
    assert all(t.is_contiguous(memory_format=torch.channels_last) for t in (y_last, dx_last))
    assert y.is_contiguous()
    apart = torch.zeros(6)
    apart[::2] = b
    assert torch.equal(run(x, apart[::2])[0], y)

    empty = torch.zeros(0, 3, 9, 11, requires_grad=True)
    result = filtered_lrelu(empty, fu, fd, b, 2, 2, case.padding, impl="numba")
    assert result.shape == (0, *y.shape[1:])
    assert torch.autograd.grad(result.sum(), empty)[0].shape == empty.shape


def test_only_what_is_needed() -> None:
    """No signs without gradients; only the bias asked for."""
    case = Case()
    fu, fd = case.filters("cpu")
    x, b = case.inputs(F32, "cpu")
    assert filtered_lrelu_numba(x, fu, fd, b, *case.arguments(), False)[1].numel() == 0
    assert not filtered_lrelu(x, fu, fd, b, 2, 2, case.padding, impl="numba").requires_grad
    b.requires_grad_()
    (db,) = torch.autograd.grad(filtered_lrelu(x, fu, fd, b, 2, 2, case.padding, impl="numba").square().sum(), b)
    exact_b = b.detach().double().requires_grad_()
    exact = filtered_lrelu(x.double(), fu, fd, exact_b, 2, 2, case.padding, impl="ref")
    (exact_db,) = torch.autograd.grad(exact.square().sum(), exact_b)
    torch.testing.assert_close(db.double(), exact_db, rtol=1e-5, atol=1e-5 * float(exact_db.abs().max()))


GEOMETRY = {
    "up": st.integers(1, 4), "down": st.integers(1, 4), "up_taps": st.integers(1, 32), "down_taps": st.integers(1, 32),
    "size": st.tuples(*[st.integers(1, 12)] * 2), "low": st.tuples(*[st.integers(-40, 40)] * 2),
    "out": st.tuples(*[st.integers(1, 9)] * 2), "flip": st.booleans(), "clamp": st.sampled_from([None, 0.7]),
    "flat": st.booleans(),
}  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(**GEOMETRY)
def test_any_geometry(up, down, up_taps, down_taps, size, low, out, flip, clamp, flat) -> None:
    (h, w), (x0, y0) = size, low
    span = up_taps + down_taps - 2
    x1, y1 = ((o - 1) * down + 1 + span - n * up - p for o, n, p in ((out[1], w, x0), (out[0], h, y0)))
    case = Case(up, 12, down, 12, (x0, x1, y0, y1), (1, 2, h, w), clamp, flip=flip)
    torch.manual_seed(0)
    fu, fd = torch.randn(up_taps) / up_taps**0.5, torch.randn(down_taps) / down_taps**0.5
    if not flat:  # as general filters of two dimensions
        fu, fd = torch.outer(fu, fu), torch.outer(fd, fd)
    x, b = case.inputs(F32, "cpu")
    x.requires_grad_()
    y, plane = filtered_lrelu_numba(x, fu, fd, b, *case.arguments(), True)
    exact = filtered_lrelu_ref(x.double(), fu, fd, b.double(), *case.arguments())
    assert y.shape[2:] == out
    whole = filtered_lrelu_ref(x.double().abs(), *(abs(t.double()) for t in (fu, fd, b)), up, down, case.padding, 1.3,
                               1.0, None, flip)  # fmt: skip
    close(y, exact, whole)

    signs = signs_of(plane, up, down, lanes=2)[..., : (out[1] - 1) * down + down_taps]
    factor = torch.tensor([1.0, case.slope, 0.0], dtype=F64)[signs.clamp(max=2).long()]  # unneeded rows are not made
    g = torch.randn(y.shape)
    (dx,) = torch.autograd.grad(y, x, g)
    exact = gradient(case, factor, fu, fd, g.double(), x.double())
    close(dx, exact, gradient(case, factor, abs(fu), abs(fd), g.double().abs(), x.double()))


def close(result: torch.Tensor, exact: torch.Tensor, whole: torch.Tensor) -> None:
    """By how much a few roundings of everything that is summed, `whole`, may move the result. (Of a handful of pixels
    float32's reference may have all right by luck, so it is no measure.)"""
    error = (result.detach().double() - exact).abs().max()
    assert error <= 4 * torch.finfo(F32).eps * whole.abs().max(), f"{float(error):.2e}"


def test_no_index_leaves_its_array(tmp_path: Path) -> None:
    """Every access checked: real layers and odd geometries, both ways, in a process of its own."""
    script = """
import random, torch
from sg3.kernels import filtered_lrelu
from tests.helpers.filtered_lrelu_cases import CASES
from sg3.kernels.filtered_lrelu import impl_numba as kernel
from sg3.kernels.filtered_lrelu.impl_numba import _weigh
import numpy as np
try:
    _weigh(np.zeros(4, np.float32), np.zeros(8, np.float32), np.arange(6), 1, np.zeros(6, np.float32), False)
except IndexError:
    pass
else:
    raise SystemExit("indices are not checked")
calls = [((c.shape, *c.filters("cpu"), c.up, c.down, c.padding)) for c in CASES.values()]
random.seed(1)
for _ in range(200):
    up, down, up_taps, down_taps = (random.randint(1, n) for n in (4, 4, 32, 32))
    h, w, out_h, out_w = (random.randint(1, 12) for _ in range(4))
    x0, y0 = random.randint(-40, 40), random.randint(-40, 40)
    x1, y1 = ((o - 1) * down + 1 + up_taps + down_taps - 2 - n * up - p for o, n, p in ((out_w, w, x0), (out_h, h, y0)))
    calls.append(((2, random.choice([1, 3, 65]), h, w), torch.rand(up_taps), torch.rand(down_taps), up, down,
                  (x0, x1, y0, y1)))
for number, (shape, fu, fd, up, down, padding) in enumerate(calls):
    if number % 2:
        kernel.tile_size = lambda y, phases: (2, -(-5 // phases) * phases, 3)
    x = torch.randn(shape, requires_grad=True)
    y = filtered_lrelu(x, fu, fd, torch.randn(shape[1]), up, down, padding, clamp=1.0, impl="numba")
    torch.autograd.grad(y.sum(), x)
print("all inside")
"""
    environment = {**os.environ, "NUMBA_BOUNDSCHECK": "1", "NUMBA_CACHE_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.stdout.strip() == "all inside", done.stderr[-3000:]


@pytest.mark.slow
def test_machine_code_that_cannot_be_read(tmp_path: Path) -> None:
    """A disk that was full, or a machine that lost power while it was written."""
    script = "run(); print('ran')"
    assert child(script, NUMBA_CACHE_DIR=str(tmp_path)) == "ran\n"
    files = list(tmp_path.rglob("*.nbc"))
    assert files
    for file in files:
        file.write_bytes(b"")
    ran, warning = child(script, NUMBA_CACHE_DIR=str(tmp_path)).splitlines()
    assert ran == "ran"
    assert warning.startswith("sg3: Numba cannot keep or read its machine code (Ran out of input); compiling anew")


def test_without_a_place_for_machine_code() -> None:
    """A package folder that cannot be written to and no home: compiled anew in every process, and works."""
    script = """
import numba.core.caching, numpy as np
places = [kind for kind in vars(numba.core.caching).values() if getattr(kind, "_locator_classes", None)]
for kind in places:
    kind._locator_classes = []
try:
    numba.njit(cache=True)(lambda: 1)
except RuntimeError:
    pass
else:
    raise SystemExit("there still is a place")
from sg3.kernels.filtered_lrelu.impl_numba import Bend, _bend
v = np.float32([-1, 2, 9])
_bend(v, Bend(np.float32(1), np.float32(0.5), np.float32(4)))
print(v.tolist())
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "[-0.5, 2.0, 4.0]", done.stderr[-3000:]
