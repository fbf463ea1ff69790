"""How long the phases of a step take, on the host or between events on the GPU, without waiting for either."""

from __future__ import annotations

import time

import torch


class PhaseTimer:
    """Remembers the last run of each phase; `read` is the only one that waits."""

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        self._started: dict[str, torch.cuda.Event | float] = {}
        self._stopped: dict[str, torch.cuda.Event | float] = {}

    def start(self, phase: str) -> None:
        """The phase begins."""
        self._started[phase] = self._now()

    def stop(self, phase: str) -> None:
        """The phase has ended, or has been queued to the end."""
        self._stopped[phase] = self._now()

    def read(self) -> dict[str, float]:
        """Seconds of each phase's last run, under the original's names."""
        seconds = {}
        for phase, end in self._stopped.items():
            begin = self._started[phase]
            if isinstance(end, float) and isinstance(begin, float):
                seconds[f"Timing/{phase}"] = end - begin
            elif isinstance(end, torch.cuda.Event) and isinstance(begin, torch.cuda.Event):
                end.synchronize()
                seconds[f"Timing/{phase}"] = begin.elapsed_time(end) / 1000
        return seconds

    def _now(self) -> torch.cuda.Event | float:
        if not self._cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event
