"""How PyTorch's threads wait for each other where others want the CPUs, while no result changes with it.

The number of threads stays: another one adds in another order. How they wait touches no number. By itself GNU's OpenMP
looks for the next loop for milliseconds before it sleeps. On an idle machine that is the fastest; with others on the
CPUs it burns the time that a thread had coming. While there are more threads than CPUs it looks only 100 times, and
that is what `Brevity` makes it believe.

A thread that sleeps so often should have a CPU again as soon as there is work. Linux lets a thread trade for that: the
shorter the slices that it asks for, the sooner it gets one, of the same time altogether (EEVDF, from Linux 6.12 on).
`ask_for_short_slices` does.

On which CPUs threads run is left to the system: what a process sets for itself, its children begin with.

`python -m bench.busy` shows what this gains.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

NAME = "CPU sharing"  # of the thread
SETTING = "SG3_THREADS"  # variable: 'all' leaves the threads to PyTorch and the system
SAID_OTHERWISE = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")  # variables: the user has decided how threads wait
LOOK_SECONDS = 1.0  # between two looks at the load
KEEP_SECONDS = 5.0  # for which threads wait briefly at least
BUSY = 0.12  # share of its time for which a thread has to wait for a CPU: somebody else wants it
CALM = 0.05
SLICE = 100_000  # nanoseconds, the shortest that Linux grants
ATTRIBUTES = struct.Struct("IIQiIQQQ")  # struct sched_attr: size, policy, flags, nice, priority, runtime = slice, ...
ORDINARY = (0, 3)  # policies of sched_attr: SCHED_OTHER, SCHED_BATCH
SET_AND_GET = {"x86_64": (314, 315), "aarch64": (274, 275)}  # by machine: system calls


class Waiting:
    """For how much of the time in which threads of this process wanted a CPU they got none: one, by its native id, or
    all."""

    def __init__(self, thread: int | None = None) -> None:
        self._thread = thread
        self._before = _schedules(thread)

    def share(self) -> float:
        """Since the last call, 0 to 1; 0 where the system does not say."""
        now = _schedules(self._thread)
        ran = waited = 0
        for thread, (r, w) in now.items():
            known_r, known_w = self._before.get(thread, (0, 0))
            ran, waited = ran + r - known_r, waited + w - known_w
        self._before = now
        return waited / max(ran + waited, 1)


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
    """A thread that watches the load, and how the others wait."""

    def __init__(self, cpus: int) -> None:
        self._cpus = cpus
        self._waiting = Waiting()
        self._brevity = Brevity()

    def run(self) -> None:
        """Without an end."""
        while True:
            self.wait_until_busy()
            self.share_until_calm()

    def wait_until_busy(self) -> None:
        """As long as nobody else wants the CPUs, do nothing but look."""
        self._waiting.share()
        while self.look(LOOK_SECONDS) < BUSY:
            pass

    def share_until_calm(self) -> None:
        """Until nobody else wants them any more, wait briefly."""
        self._brevity.on(self._cpus)
        while self.look(KEEP_SECONDS) >= CALM:
            pass
        self._brevity.off()

    def look(self, seconds: float) -> float:
        """What `Waiting` says of the next seconds."""
        time.sleep(seconds)
        return self._waiting.share()


def can_wait_briefly() -> bool:
    """Whether `Brevity` has an effect here."""
    return bool(_openmp()) and not any(name in os.environ for name in SAID_OTHERWISE)


def share_cpus() -> None:
    """From now on, and until the process ends, have its threads share the CPUs with others, if there are several."""
    import torch

    if os.environ.get(SETTING) == "all" or torch.get_num_threads() == 1 or not _schedules() or not can_wait_briefly():
        return
    ask_for_short_slices()
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if cpus > 1 and not any(thread.name == NAME for thread in threading.enumerate()):
        threading.Thread(target=Sharing(cpus).run, name=NAME, daemon=True).start()


def ask_for_short_slices() -> None:
    """Ask for short slices for all threads of this process; those that they start from now on ask for the same. All
    else stays. Does nothing where the system knows no slices."""
    if not sys.platform.startswith("linux") or platform.machine() not in SET_AND_GET:
        return
    system = ctypes.CDLL(None)
    set_attributes, get_attributes = SET_AND_GET[platform.machine()]
    attributes = ctypes.create_string_buffer(ATTRIBUTES.size)
    for thread in _threads():
        if system.syscall(get_attributes, thread, attributes, ATTRIBUTES.size, 0) == 0:  # or it has ended
            size, policy, flags, nice, priority, _, *rest = ATTRIBUTES.unpack(attributes.raw)
            if policy in ORDINARY:
                ATTRIBUTES.pack_into(attributes, 0, size, policy, flags, nice, priority, SLICE, *rest)
                system.syscall(set_attributes, thread, attributes, 0)


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


def _schedules(thread: int | None = None) -> dict[int, tuple[int, int]]:
    """By thread, of all or of one: nanoseconds for which it has run, and has waited for a CPU."""
    found = {}
    for number in _threads() if thread is None else [thread]:
        with suppress(OSError, ValueError):
            ran, waited, _ = Path(f"/proc/self/task/{number}/schedstat").read_text().split()
            found[number] = int(ran), int(waited)
    return found


def _threads() -> Sequence[int]:
    try:
        return [int(name) for name in os.listdir("/proc/self/task")]
    except OSError:
        return []
