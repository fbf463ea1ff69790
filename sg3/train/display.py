"""What a person sees of a running training: a live line on a terminal, plain lines elsewhere, and log.txt."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from rich.console import RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from sg3.durations import format_time_brief
from sg3.errors import StorageError
from sg3.terminal import clean, console, is_live, say
from sg3.train.run_log import RunLog

REFRESH_SECONDS = 0.25
WORTH_SAYING = 0.5  # seconds that something must have taken to appear in the live line
LONG_STEP = 1.0  # seconds after which the live line says for how long a step has been going on


@dataclass(frozen=True)
class Progress:
    """Where training is: in words, as a share of the run, images per second, seconds left, losses by network."""

    words: str
    share: float
    speed: float
    left: float
    losses: dict[str, float]
    at: float = field(default_factory=lambda: time.monotonic())


class Display:
    """Messages go to stderr and, with the time, into a file; on a terminal a line below them says what goes on.

    Use it as a context manager. Saying something never fails: if nobody can read stderr any more, `lost` says why, and
    if the log cannot be written, `failed` has the error; the loop looks at both when the run can stop without loss.
    With `quiet` nothing is shown or written: only the first rank's display is not, so that each line appears once.
    """

    def __init__(self, log_path: Path | None, quiet: bool = False) -> None:
        self.lost: str | None = None
        self.failed: StorageError | None = None
        self._log = RunLog(log_path)
        self._quiet = quiet
        self._progress: Progress | None = None
        self._doing: tuple[str, float] | None = None  # what goes on beside training, and since when
        self._stepped = time.monotonic()
        self._live: Live | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._keep_fresh, name="live line", daemon=True)

    def __enter__(self) -> Display:
        if not self._quiet and is_live():
            self._live = Live(
                get_renderable=self._line, console=console(stderr=True, soft_wrap=True), auto_refresh=False,
                transient=True,
                # What is printed meanwhile goes above the line, but only if it is for the terminal and not for a file.
                redirect_stdout=sys.stdout is not None and sys.stdout.isatty(),
            )  # fmt: skip
            with self._losing():
                self._live.start()
            self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._live is not None:
            self._ended.set()
            self._thread.join()
            with self._losing():
                self._live.stop()

    # ---- lines ------------------------------------------------------------------------------------------------------

    def message(self, text: str) -> None:
        """Show one line on stderr and append it to the log."""
        if self._quiet:
            return
        if self.lost is None and sys.stderr is not None:
            with self._losing():
                if self._live is not None:
                    self._live.console.print(clean(text))
                else:
                    say(text)
        self.note(text)

    def note(self, text: str) -> None:
        """Append one line to the log alone."""
        if self._quiet:
            return
        try:
            self._log.write(clean(text))
        except StorageError as error:
            self.failed = self.failed or error

    @contextmanager
    def _losing(self) -> Iterator[None]:
        """A terminal that was closed or a pipe that nobody reads is noted, and replaced by one that takes everything:
        other threads, warnings and Python's own end write there, too."""
        try:
            yield
        except (OSError, ValueError) as error:  # (ValueError: the file object is closed)
            self.lost = self.lost or f"stderr: {getattr(error, 'strerror', None) or error}"
            with suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())

    # ---- the live line ----------------------------------------------------------------------------------------------

    @property
    def is_live(self) -> bool:
        """Whether somebody is looking at the live line."""
        return self._live is not None

    def step_done(self) -> None:
        """A step of training is over."""
        self._stepped = time.monotonic()

    def progress(self, progress: Progress) -> None:
        """What the live line shows from now on."""
        self._progress = progress

    @contextmanager
    def doing(self, what: str) -> Iterator[None]:
        """Inside, the live line says what goes on, and for how long by now."""
        before, self._doing = self._doing, (what, time.monotonic())
        try:
            yield
        finally:
            self._doing, self._stepped = before, time.monotonic()

    def specify(self, what: str) -> None:
        """Say what goes on in other words; it began when it began."""
        if self._doing is not None:
            self._doing = (what, self._doing[1])

    def _keep_fresh(self) -> None:
        while not self._ended.wait(REFRESH_SECONDS):
            assert self._live is not None
            with self._losing():
                self._live.refresh()
            if self.lost is not None:
                return

    def _line(self) -> RenderableType:
        p = self._progress
        row = Table.grid(padding=(0, 1))
        if p is None:
            row.add_row(Text("  ".join(self._words(p))))
        else:
            bar = ProgressBar(total=1.0, completed=p.share, width=24)
            row.add_row(Text(p.words), bar, Text("  ".join(self._words(p)), no_wrap=True, overflow="ellipsis"))
        return row

    def _words(self, p: Progress | None) -> list[str]:
        """What the live line says beside the bar. Something in it changes every second, whatever goes on."""
        now, doing = time.monotonic(), self._doing
        words = []
        if doing is not None and (p is None or now - doing[1] >= WORTH_SAYING):
            words.append(f"{doing[0]}, {format_time_brief(now - doing[1])}")
        elif p is not None:
            words += [f"{p.speed:.1f} img/s"] if p.speed else []
            if now - self._stepped >= LONG_STEP:
                words.append(f"this step {format_time_brief(now - self._stepped)}")
        if p is not None:
            left = p.left - (now - p.at)
            words += [f"{format_time_brief(max(left, 0.0))} left"] if left < float("inf") else []
            words += [f"{name} {value:.3f}" for name, value in p.losses.items()] if doing is None else []
        return words
