"""What a person sees of a running training: a live status line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections import deque
from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from sg3.durations import format_time_brief
from sg3.errors import StorageError


class Display:
    """Messages go to stderr and into a file; on a terminal, a bar with speed, remaining time and losses stays below.

    Use it as a context manager. If the run has a time limit, set `budget_seconds` to the seconds left of it when the
    display is made: `remaining` then takes it into account. With `quiet` nothing is shown or written; only the first
    rank's display is not quiet, so that each line appears once.
    """

    def __init__(self, log_path: Path | None, total_nimg: int, quiet: bool = False) -> None:
        self._log_path = log_path
        self._quiet = quiet
        self._total = total_nimg
        self.budget_seconds: float | None = None
        self._console = Console(stderr=True, highlight=False, soft_wrap=True)
        self._recent: deque[tuple[float, int]] = deque(maxlen=64)  # (time, nimg), for speed
        self._started = time.monotonic()
        self._bar: Progress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> Display:
        if sys.stderr.isatty() and not self._quiet:
            self._bar = Progress(
                TextColumn("{task.fields[kimg]}"), BarColumn(bar_width=24), TextColumn("{task.fields[status]}"),
                console=self._console, transient=True, refresh_per_second=4,
            )  # fmt: skip
            self._task = self._bar.add_task("", total=self._total, kimg="starting", status="")
            self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.stop()

    def message(self, text: str) -> None:
        """Show one line on stderr and append it to the log. Raises StorageError if the log cannot be written."""
        if self._quiet:
            return
        self._console.print(text, markup=False)
        if self._log_path is not None:
            try:
                with open(self._log_path, "a") as file:
                    file.write(text + "\n")
            except OSError as error:
                raise StorageError(f"{self._log_path}: cannot be written: {error.strerror}") from error

    @property
    def is_live(self) -> bool:
        """Whether somebody is looking at the bar."""
        return self._bar is not None

    def count(self, nimg: int) -> None:
        """Note how far training has come, for speed and remaining time."""
        self._recent.append((time.monotonic(), nimg))

    def progress(self, nimg: int, losses: dict[str, float]) -> None:
        """Update the bar with the images so far and the losses by network, if there is a bar."""
        if self._bar is None or self._task is None:
            return
        parts = [f"{self.speed():.1f} img/s", f"{format_time_brief(self.remaining(nimg))} left"]
        parts += [f"{name} {value:.3f}" for name, value in losses.items()]
        kimg = f"{nimg / 1000:.2f} / {self._total / 1000:g} kimg"
        self._bar.update(self._task, completed=nimg, kimg=kimg, status="  ".join(parts))

    def speed(self) -> float:
        """Images per second over the last steps."""
        if len(self._recent) < 2:
            return 0.0
        (t0, n0), (t1, n1) = self._recent[0], self._recent[-1]
        return (n1 - n0) / max(t1 - t0, 1e-9)

    def remaining(self, nimg: int) -> float:
        """Seconds until the end of the run, by images or by time, whichever comes first."""
        speed = self.speed()
        by_images = (self._total - nimg) / speed if speed else float("inf")
        by_time = float("inf")
        if self.budget_seconds is not None:
            by_time = self.budget_seconds - (time.monotonic() - self._started)
        return max(min(by_images, by_time), 0.0)
