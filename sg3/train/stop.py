"""Signals that ask a run to stop: noted here, acted upon between two steps, on all ranks between the same two."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

from sg3.portable import signals
from sg3.processes import World

SIGNALS = signals("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGXCPU")
REPEATED = signals("SIGXCPU")  # every second, once a process has had its processor time (ulimit -t)
# A terminal sends Ctrl-C to the whole process group, and a launcher that gets it sends it on: one wish, not two.
SAME_WISH_SECONDS = 2.0


class WaitInterruptedError(BaseException):
    """A signal came while nothing was going on that had to be finished, such as the wait for images.

    No Exception, as KeyboardInterrupt is none: what handles errors must not take it for one.
    """


class StopSignals:
    """While active, notes the first of SIGNALS; a second one, seconds later, acts as usual.

    What is ignored, as SIGHUP is under nohup, stays so.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._caught: str | None = None
        self._caught_at = 0.0
        self._is_waiting = False
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is not threading.main_thread():  # no other one may hear signals
            return self
        heard = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
        self._previous = {number: signal.signal(number, self._note) for number in heard}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if number in REPEATED:
            self._previous[signal.Signals(number)] = signal.SIG_IGN  # also from the end on
        if self._caught is None:
            self._caught, self._caught_at = signal.Signals(number).name, time.monotonic()
            if self._is_waiting:
                raise WaitInterruptedError
        elif time.monotonic() - self._caught_at > SAME_WISH_SECONDS and number not in REPEATED:
            self._restore()
            signal.raise_signal(number)

    def ask(self, reason: str) -> None:
        """As a signal does. The first wish counts."""
        if self._caught is None:
            self._caught, self._caught_at = reason, time.monotonic()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Inside, a signal raises WaitInterruptedError. Not with several ranks, of which one cannot leave alone."""
        if self._world.size > 1:
            yield
            return
        self._is_waiting = True
        try:
            if self._caught is not None:
                raise WaitInterruptedError
            yield
        finally:
            self._is_waiting = False

    @property
    def is_asked(self) -> bool:
        """Whether this process was asked to stop, or another one's wish has arrived here."""
        store = self._world.store
        return self._caught is not None or (store is not None and store.check(["stop"]))

    def reason(self, step: int) -> str | None:
        """Why to stop after `step` steps, None to go on.

        With several ranks all call it together and get the same answer, that of rank 0, which hears of the others'
        wishes through the store. A rank can be steps behind another one, so none decides for itself.
        """
        store = self._world.store
        if store is None:
            return self._caught
        if self._caught is not None:
            store.compare_set("stop", "", self._caught)  # the first wish counts
        (stop,) = self._world.as_main(self._world.is_main and store.check(["stop"]))
        return store.get("stop").decode() if stop else None
