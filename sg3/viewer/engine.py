"""The one thread that touches networks, and which work comes next.

Frames come first, one client after the other: a client waits for its frame before it asks for another, and which state
that frame shows is decided when its turn comes, so that it is the newest. If a newer one comes while the frame is made,
`outdate` tells the work, which may give up. Long work (a projection, a drag) is an iterator, taken a step further
whenever no frame waits, one after the other in turns, so that none holds up the others. Where it needs something that
is made on another thread, it yields a future of that, and has its next turn when that is done.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from sg3.errors import Sg3Error

MOST_WAITING = 128  # frames of different clients
MOST_TASKS = 4
ENDING_SECONDS = 5.0

IsStale = Callable[[], bool]
Steps = Iterator[Future[Any] | None]


class Stale(Exception):
    """A newer state has come; nobody wants this frame any more."""


class Busy(Sg3Error):
    """More is asked for than can be queued."""

    exit_code = 70


@dataclass
class _Job:
    work: Callable[[IsStale], Any]
    future: Future[Any] = field(default_factory=Future)
    stale: threading.Event = field(default_factory=threading.Event)


class Engine:
    """Runs work on a thread of its own."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: OrderedDict[Hashable, _Job] = OrderedDict()
        self._running: tuple[Hashable, _Job] | None = None
        self._tasks: OrderedDict[Hashable, Steps] = OrderedDict()
        self._awaited: dict[Steps, Future[Any]] = {}  # by tasks that have no turn until it is done
        self._ending = False
        self._thread = threading.Thread(target=self._run, name="sg3-networks", daemon=True)
        self._thread.start()

    def submit(self, place: Hashable, work: Callable[[IsStale], Any]) -> Future[Any]:
        """Have `work` done when its turn comes; it is given a function that says whether it is out of date, and may
        then raise Stale. Raises Busy, also if something waits at this place already."""
        job = _Job(work)
        with self._changed:
            if self._ending or place in self._waiting or len(self._waiting) >= MOST_WAITING:
                raise Busy("the server is busy: too many pictures wait; try again in a moment")
            self._waiting[place] = job
            self._changed.notify()
        return job.future

    def outdate(self, place: Hashable) -> None:
        """There is something newer than what is being made at this place."""
        with self._changed:
            if self._running is not None and self._running[0] == place:
                self._running[1].stale.set()

    def forget(self, place: Hashable) -> None:
        """A client is gone: drop what waits at its place, and what is being made for it."""
        with self._changed:
            job = self._waiting.pop(place, None)
            if self._running is not None and self._running[0] == place:
                self._running[1].stale.set()
        if job is not None:
            _fail(job, Stale())

    def start(self, name: Hashable, steps: Steps) -> None:
        """Take up long work; it replaces one of the same name. It reports and fails by itself. Raises Busy."""
        with self._changed:
            if self._ending or (name not in self._tasks and len(self._tasks) >= MOST_TASKS):
                raise Busy("the server is busy: other projections or drags run; try again when they are done")
            self._tasks[name] = steps
            self._changed.notify()

    def close(self) -> bool:
        """End the thread; what waits fails. Whether it has ended: a layer, or a step of a projection, may take long."""
        with self._changed:
            self._ending = True
            if self._running is not None:
                self._running[1].stale.set()
            self._changed.notify()
        self._thread.join(ENDING_SECONDS)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while (item := self._next()) is not None:
            name, work = item
            if isinstance(work, _Job):
                self._do(work)
                with self._changed:
                    self._running = None
            else:
                self._step(name, work)
        for job in self._waiting.values():
            _fail(job, Stale())

    def _next(self) -> tuple[Hashable, _Job | Steps] | None:
        with self._changed:
            while not self._ending:
                if self._waiting:
                    self._running = self._waiting.popitem(last=False)
                    return self._running
                for name, steps in self._tasks.items():
                    if steps not in self._awaited:
                        self._tasks.move_to_end(name)
                        return name, steps
                self._changed.wait()
            return None

    def _do(self, job: _Job) -> None:
        if not job.future.set_running_or_notify_cancel():
            return
        try:
            job.future.set_result(job.work(job.stale.is_set))
        except BaseException as error:  # whatever it is, whoever waits hears of it, and the thread lives on
            job.future.set_exception(error)

    def _step(self, name: Hashable, steps: Steps) -> None:
        try:
            awaited = next(steps)
        except BaseException:  # StopIteration: it is done. Anything else it has reported by itself.
            with self._changed:
                if self._tasks.get(name) is steps:
                    del self._tasks[name]
        else:
            if awaited is not None:
                with self._changed:
                    self._awaited[steps] = awaited
                awaited.add_done_callback(lambda _: self._go_on(steps))
        time.sleep(0)

    def _go_on(self, steps: Steps) -> None:
        """What it has waited for is done."""
        with self._changed:
            self._awaited.pop(steps, None)
            self._changed.notify()


def _fail(job: _Job, error: Exception) -> None:
    with suppress(Exception):  # whoever waited has gone
        if job.future.set_running_or_notify_cancel():
            job.future.set_exception(error)
