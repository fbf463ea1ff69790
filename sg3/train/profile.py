"""A trace of a few training steps (`--profile`), for chrome://tracing or Perfetto."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile, schedule

from sg3.run_folder import TRACE

WARM_UP = 3  # steps: the first ones compile kernels and choose algorithms


@contextmanager
def profiling(steps: int, run_dir: Path, message: Callable[[str], None]) -> Iterator[Callable[[], object]]:
    """Yields what to call after each step. Steps 4 ... 3 + `steps` go to trace.json; with 0 steps nothing happens."""
    if steps == 0:
        yield lambda: None
        return

    def write(trace: profile) -> None:
        path = run_dir / TRACE
        trace.export_chrome_trace(str(path))
        message(f"{path}: trace of {steps} steps; open it in https://ui.perfetto.dev")

    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * torch.cuda.is_available()
    plan = schedule(wait=WARM_UP - 1, warmup=1, active=steps, repeat=1)
    with profile(activities=activities, schedule=plan, on_trace_ready=write) as trace:
        yield trace.step
