"""How PyTorch's threads share the CPUs with others, second by second, without a change to any result.

The number of threads stays: another one adds in another order. Two things follow the load instead, and neither touches
a number.

How threads wait for each other. By itself GNU's OpenMP looks for the next loop for milliseconds before it sleeps. On an
idle machine that is the fastest; with others on the CPUs it burns the time that a thread had coming. While there are
more threads than CPUs it looks only 100 times, and that is what `Brevity` makes it believe.

Where threads run. Beside endless processes, threads spread over all CPUs keep waiting for the one whose CPU somebody
else has; kept close together on half of the CPUs, they leave the other half to the others. Which gives more depends on
the others, so it is measured: the arrangement with the most processor time per second is kept for a while.

`python -m bench.busy` shows what all this gains.
"""

from __future__ import annotations

import ctypes
import os
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

NAME = "CPU sharing"  # of the thread
SETTING = "SG3_THREADS"  # variable: 'all' leaves the threads to PyTorch and the system
SAID_OTHERWISE = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")  # variables: the user has decided how threads wait
LOOK_SECONDS = 1.0  # between two looks at the load
TRY_SECONDS = 0.5  # that an arrangement is tried for
KEEP_SECONDS = 15.0  # before others are tried again
BUSY = 0.12  # share of its time for which a thread has to wait for a CPU: somebody else wants it
CALM = 0.05
BETTER = 1.15  # times as much processor time, for which it is worth to move

Cpus = frozenset[int]


class Usage:
    """Processor time of this process's threads, and the time for which they wanted a CPU and got none."""

    def __init__(self) -> None:
        self._before, self._at = _schedules(), time.monotonic()

    def since(self) -> tuple[float, float]:
        """(CPUs that ran for it, share of the time that its threads wanted to run and could not), since the last
        call; (0, 0) where the system does not say."""
        now, at = _schedules(), time.monotonic()
        ran = waited = 0
        for thread, (r, w) in now.items():
            known_r, known_w = self._before.get(thread, (0, 0))
            ran, waited = ran + r - known_r, waited + w - known_w
        seconds, self._before, self._at = at - self._at, now, at
        return ran / 1e9 / max(seconds, 1e-9), waited / max(ran + waited, 1)


class Brevity:
    """Has GNU's OpenMP wait briefly, while it is on: a thread beside has a team larger than the number of CPUs, which
    sleeps. Does nothing where another OpenMP is in use."""

    def __init__(self) -> None:
        self._ended: threading.Event | None = None

    def on(self, cpus: int) -> None:
        """From now on, if it is not yet."""
        if self._ended is None:
            self._ended, begun = threading.Event(), threading.Event()
            thread = threading.Thread(target=_lead, args=(cpus + 1, begun, self._ended), name=NAME, daemon=True)
            thread.start()
            begun.wait()

    def off(self) -> None:
        """As OpenMP waits by itself. The team goes with its leader."""
        if self._ended is not None:
            self._ended.set()
            self._ended = None


class Sharing:
    """A thread that watches the load, and arranges the others; see above."""

    def __init__(self, cpus: Cpus) -> None:
        self._cpus = cpus
        self._usage = Usage()
        self._brevity = Brevity()
        self._place = cpus

    def run(self) -> None:
        """Without an end."""
        while True:
            self.wait_until_busy()
            self.share_until_calm()

    def wait_until_busy(self) -> None:
        """As long as nobody else wants the CPUs, do nothing but look."""
        self._usage.since()
        while self.look(LOOK_SECONDS)[1] < BUSY:
            pass

    def share_until_calm(self) -> None:
        """Until nobody else wants them any more, wait briefly and keep where most is to be had."""
        if can_wait_briefly():
            self._brevity.on(len(self._cpus))
        while True:
            self.move(self.best())
            _, waited = self.look(KEEP_SECONDS)
            if self._place == self._cpus and waited < CALM:
                break
        self._brevity.off()

    def best(self) -> Cpus:
        """The arrangement with the most processor time, by a try of each; the present one unless another is better."""
        found: dict[Cpus, float] = {}
        present = self._place
        for place in arrangements(self._cpus):
            self.move(place)
            ran, waited = self.look(TRY_SECONDS)
            if place == self._cpus and waited < CALM:
                return place
            found[place] = ran * (BETTER if place == present else 1)
        return max(found, key=lambda place: found[place])

    def look(self, seconds: float) -> tuple[float, float]:
        """What `Usage` says of the next seconds."""
        time.sleep(seconds)
        return self._usage.since()

    def move(self, place: Cpus) -> None:
        """Have all threads of this process run there."""
        if place != self._place:
            for thread in _threads():
                with suppress(OSError):  # it has ended, or the system no longer grants that CPU
                    os.sched_setaffinity(thread, place)
            self._place = place
        self._usage.since()


def can_wait_briefly() -> bool:
    """Whether `Brevity` has an effect here."""
    return bool(_openmp()) and not any(name in os.environ for name in SAID_OTHERWISE)


def share_cpus() -> None:
    """From now on, and until the process ends, have its threads share the CPUs with others, if there are several.
    Processes that it forks begin with all of them."""
    import torch

    if os.environ.get(SETTING) == "all" or torch.get_num_threads() == 1 or not _is_possible():
        return
    cpus = frozenset(os.sched_getaffinity(0))
    if len(cpus) > 1 and not any(thread.name == NAME for thread in threading.enumerate()):
        os.register_at_fork(after_in_child=lambda: _take_back(cpus))
        threading.Thread(target=Sharing(cpus).run, name=NAME, daemon=True).start()


def arrangements(cpus: Cpus) -> list[Cpus]:
    """All of the CPUs, and either half of them."""
    ordered = sorted(cpus)
    half = len(ordered) // 2
    return [cpus, frozenset(ordered[:half]), frozenset(ordered[half:])]


def _lead(size: int, begun: threading.Event, ended: threading.Event) -> None:
    for path in _openmp():
        with suppress(OSError, AttributeError):
            library = ctypes.CDLL(path)
            nothing = ctypes.cast(library.omp_get_thread_num, ctypes.c_void_p)  # what the team does
            library.GOMP_parallel(nothing, None, ctypes.c_uint(size), ctypes.c_uint(0))
    begun.set()
    ended.wait()


def _openmp() -> list[str]:
    """GNU's OpenMP, as it is loaded in this process: files."""
    try:
        lines = Path("/proc/self/maps").read_text().splitlines()
    except OSError:
        return []
    return sorted({line.split()[-1] for line in lines if Path(line.split()[-1]).name.startswith("libgomp")})


def _take_back(cpus: Cpus) -> None:
    with suppress(OSError):
        os.sched_setaffinity(0, cpus)


def _is_possible() -> bool:
    return hasattr(os, "sched_setaffinity") and bool(_schedules())


def _threads() -> Sequence[int]:
    try:
        return [int(name) for name in os.listdir("/proc/self/task")]
    except OSError:
        return []


def _schedules() -> dict[int, tuple[int, int]]:
    """By thread: nanoseconds for which it has run, and has waited for a CPU."""
    found = {}
    for thread in _threads():
        with suppress(OSError, ValueError):
            ran, waited, _ = Path(f"/proc/self/task/{thread}/schedstat").read_text().split()
            found[thread] = int(ran), int(waited)
    return found
