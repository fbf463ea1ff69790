"""How many threads PyTorch uses on the CPU, where others want the CPUs, too.

A parallel loop ends when its last thread has, and there are thousands of loops in a training step. Two threads that
share two CPUs with four endless processes do not get a third of their speed but a tenth: each loop waits for the thread
that waits for its CPU, and the other one burns the time that it had coming while it looks for the next loop. One thread
waits for nobody.

So there are as many threads as others leave CPUs, measured before the work begins. Then their number stays: another one
adds in another order, and what a machine does besides must not show in a run that goes on. `python -m bench.busy`
measures it all, on an idle machine and on a busy one.
"""

from __future__ import annotations

import hashlib
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

SETTING = "SG3_THREADS"  # variable: 'all' for as many threads as PyTorch takes by itself
MEASURE_SECONDS = 0.25
MOSTLY_FREE = 0.9  # of the time a thread gets its CPU: nobody else wants it
BLOCK = bytes(2**20)
# How often a thread of GNU's OpenMP that is done looks for the next loop before it sleeps: for a tenth of a millisecond
# or two. By itself it takes 300000 looks, milliseconds that somebody else could use.
SPIN = "10000"
SAID_OTHERWISE = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")


def wait_briefly() -> None:
    """Have OpenMP's threads sleep soon where they wait, unless the environment says how they wait. It is read when
    PyTorch is imported: call this before."""
    if not any(name in os.environ for name in SAID_OTHERWISE):
        os.environ["GOMP_SPINCOUNT"] = SPIN


def leave_cpus_to_others() -> int:
    """From now on use as many threads as others leave CPUs; returns how many. Where the environment says how many
    (OMP_NUM_THREADS, SG3_THREADS=all), or there is one anyway, nothing is measured and nothing changes."""
    import torch

    most = torch.get_num_threads()
    if most > 1 and "OMP_NUM_THREADS" not in os.environ and os.environ.get(SETTING) != "all":
        torch.set_num_threads(fitting(most, share_of_cpus(most)))
    return torch.get_num_threads()


def share_of_cpus(threads: int, seconds: float = MEASURE_SECONDS) -> float:
    """The share of its time, 0 to 1, for which each of so many threads gets a CPU now."""

    def work(_: int) -> float:
        began, ran = time.perf_counter(), time.thread_time()
        while (elapsed := time.perf_counter() - began) < seconds:
            hashlib.sha256(BLOCK)  # for a millisecond, without Python's lock
        return (time.thread_time() - ran) / elapsed

    with ThreadPoolExecutor(threads) as pool:
        return sum(pool.map(work, range(threads))) / threads


def fitting(most: int, share: float) -> int:
    """How many threads of `most` to use where each of `most` would get its CPU for that share of the time.

    Where n threads get a share s, n (1 - s) / s others are at work; each of them takes the place of one. Half of the
    threads stay: with as many others as CPUs, a share of each CPU is still to be had.
    """
    if share >= MOSTLY_FREE:
        return most
    others = most * (1 - share) / max(share, 1e-3)
    return max(most - round(others), most // 2, 1)


class Waiting:
    """Which share of its time the calling thread could have run and had to wait for a CPU."""

    def __init__(self) -> None:
        self._before = _schedule()

    def share(self) -> float:
        """Since the last call; 0 where the system does not say."""
        now, before = _schedule(), self._before
        self._before = now
        ran, waited = now[0] - before[0], now[1] - before[1]
        return waited / max(ran + waited, 1)


def _schedule() -> tuple[int, int]:
    """Nanoseconds that the calling thread has run, and has waited for a CPU."""
    try:
        ran, waited, _ = Path("/proc/thread-self/schedstat").read_text().split()
        return int(ran), int(waited)
    except (OSError, ValueError):
        return 0, 0
