"""What only a GPU can show: graph capture, streams, compiled code around the kernels, time to the first image."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
import torch

from sg3.kernels import filtered_lrelu, upfirdn2d
from sg3.kernels.filtered_lrelu import marching, marching_plan, symmetric, symmetric_plan
from sg3.kernels.filtered_lrelu.banded import PlanCache
from sg3.kernels.fir import design_lowpass_filter
from sg3.kernels.repeats import repeats
from sg3.models.stylegan3 import Generator

pytestmark = pytest.mark.gpu


@pytest.fixture
def call() -> tuple[torch.Tensor, torch.Tensor, dict]:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    f = design_lowpass_filter(12, cutoff=9, width=14, fs=64)
    assert f is not None
    x = torch.randn(2, 8, 52, 52, dtype=torch.float16, device="cuda", requires_grad=True)
    return x, f.cuda(), {"up": 2, "down": 2, "padding": [9, 8, 9, 8], "clamp": 1.0, "impl": "triton"}


def test_a_captured_graph_replays_value_and_gradient(call) -> None:
    x, f, kwargs = call

    def step() -> tuple[torch.Tensor, torch.Tensor]:
        y = filtered_lrelu(x, f, f, **kwargs)
        y = upfirdn2d(y, f, padding=5, impl="triton")
        return y, torch.autograd.grad(y, x, torch.ones_like(y))[0]

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    with torch.no_grad():
        x.copy_(torch.randn_like(x))
    graph.replay()
    for got, expected in zip(captured, step(), strict=True):
        assert torch.equal(got, expected)


def test_new_filters_cannot_be_captured(call) -> None:
    x, f, kwargs = call
    other = f.clone()
    graph = torch.cuda.CUDAGraph()
    with pytest.raises(RuntimeError, match="once before the capture"), torch.cuda.graph(graph):
        filtered_lrelu(x, other, other, **kwargs)


def test_the_current_stream_is_the_one_used(call) -> None:
    """Work queued behind a long wait on a side stream sees what was written there before it."""
    x, f, kwargs = call
    expected = filtered_lrelu(x.detach() * 2, f, f, **kwargs)
    side = torch.cuda.Stream()
    late = torch.zeros_like(x)
    torch.cuda.synchronize()
    with torch.cuda.stream(side):
        torch.cuda._sleep(50_000_000)
        late.copy_(x.detach() * 2)
        y = filtered_lrelu(late, f, f, **kwargs)
    side.synchronize()
    assert torch.equal(y, expected)


@pytest.mark.parametrize(("kind", "dtype", "radial"), [
    pytest.param(marching, torch.float16, False, id="marching"),
    pytest.param(symmetric, torch.float32, True, id="symmetric"),
])  # fmt: skip
def test_a_dropped_plan_outlives_the_stream_that_uses_it(
    kind, dtype: torch.dtype, radial: bool, call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its memory is not given away, and overwritten, while a kernel on another stream waits to read it."""
    x, fu, kwargs = call
    x = x.detach().to(dtype)
    fd = design_lowpass_filter(12, cutoff=9, width=14, fs=64, radial=radial)
    assert fd is not None
    fd = fd.cuda()
    expected = filtered_lrelu(x, fu, fd, **kwargs)
    monkeypatch.setattr(marching, "plans", PlanCache(1, marching_plan.build))
    monkeypatch.setattr(symmetric, "plans", PlanCache(1, symmetric_plan.build))
    repeats.forget()
    filtered_lrelu(x, fu, fd, **kwargs)  # built on this stream
    assert None not in kind.plans._plans.values()
    side = torch.cuda.Stream()
    torch.cuda.synchronize()
    with torch.cuda.stream(side):
        torch.cuda._sleep(50_000_000)
        y = filtered_lrelu(x, fu, fd, **kwargs)
    filtered_lrelu(x, fu * 2, fd, **kwargs)  # takes the plan's place
    repeats.forget()  # which keep plans, too
    rubbish = [torch.full((2**size,), float("nan"), dtype=x.dtype, device="cuda") for size in range(9, 18)]
    side.synchronize()
    assert torch.equal(y, expected)
    assert len(rubbish) == 9


def test_inductor_around_the_kernels(call) -> None:
    x, f, kwargs = call

    def function(x: torch.Tensor) -> torch.Tensor:
        return filtered_lrelu(x * 1.5, f, f, **kwargs).square().mean()

    compiled = torch.compile(function, fullgraph=True)
    (eager,), (got,) = (torch.autograd.grad(each(x), x) for each in (function, compiled))
    torch.testing.assert_close(got, eager, rtol=2e-3, atol=2e-3 * float(eager.abs().max()))


def test_time_to_the_first_image_of_a_large_generator(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """All kernels of StyleGAN3-T at 1024 pixels, forward and backward, compile in less than a minute."""
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    monkeypatch.delenv("SG3_IMPL", raising=False)
    G = Generator(512, 0, 512, 1024, 3).cuda()
    start = time.perf_counter()
    G(torch.randn(1, 512, device="cuda")).sum().backward()
    torch.cuda.synchronize()
    seconds = time.perf_counter() - start
    with capsys.disabled():
        print(f"\nfirst step of StyleGAN3-T 1024: {seconds:.1f} s, {os.cpu_count()} CPU cores")
    assert seconds < 60
