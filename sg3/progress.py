"""How far a command is, on stderr: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Any, TypeVar

from sg3.durations import format_time_brief
from sg3.terminal import clean, console, is_live, say

T = TypeVar("T")
SECONDS_BETWEEN_LINES = 10


class Progress:
    """Shows the parts of a command, one after the other. It can be pickled as long as it has shown nothing."""

    def __init__(self) -> None:
        self._what: str | None = None
        self._began = self._said = 0.0
        self._bar: Any = None  # rich.progress.Progress
        self._task: Any = None

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.hide()

    def show(self, what: str, done: int, total: int, note: str = "") -> None:
        """So much of a part is done; another `what` begins another part. `note` is for the moment."""
        now = time.monotonic()
        is_new = what != self._what
        if is_new:
            self.hide()
            self._what, self._began, self._said = what, now, now
        if is_live():
            self._move_bar(what, done, total, note)
        elif not is_new and done < total and now - self._said >= SECONDS_BETWEEN_LINES:
            self._said = now
            left = (now - self._began) / max(done, 1) * (total - done)
            words = [f"{what}: {done} of {total}", note, f"{format_time_brief(left)} left"]
            say(", ".join(filter(None, words)))

    def hide(self) -> None:
        """Take the bar away, before something else is printed or at the end."""
        if self._bar is not None:
            self._bar.stop()
        self._what = self._bar = self._task = None

    def _move_bar(self, what: str, done: int, total: int, note: str) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        if self._bar is None:
            self._bar = Progress(
                TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(),
                TimeRemainingColumn(), TextColumn("{task.fields[note]}", markup=False),
                console=console(stderr=True), transient=True,
                # What is printed meanwhile goes above the bar, but only if it is for the terminal and not for a file.
                redirect_stdout=sys.stdout.isatty(),
            )  # fmt: skip
            self._task = self._bar.add_task(clean(what), total=total, note="")
            self._bar.start()
        self._bar.update(self._task, completed=done, total=total, note=clean(note))


def track(items: Iterable[T], what: str, total: int) -> Iterator[T]:
    """Pass the items on, showing how many of `total` have been worked on."""
    with Progress() as progress:
        progress.show(what, 0, total)
        for done, item in enumerate(items, 1):
            yield item
            progress.show(what, done, total)
