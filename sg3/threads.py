"""How many threads PyTorch uses on the CPU, where others want the CPUs, too.

A parallel loop ends when its last thread has, and there are thousands of loops in a training step. On many CPUs of
which others keep some busy, each loop waits for the threads that share one. So there are as many threads as others
leave CPUs, measured before the work begins. Then their number stays: another one adds in another order, and what a
machine does besides must not show in a run that goes on. What can follow the load while it goes on does, see
`cpu_sharing`; on few CPUs that is enough, and a thread given up would be missed when the others have gone.
"""

from __future__ import annotations

import hashlib
import os
import time
from concurrent.futures import ThreadPoolExecutor

from sg3.cpu_sharing import SETTING, can_wait_briefly, share_cpus
from sg3.resources import usable_cpus

MEASURE_SECONDS = 0.25
MOSTLY_FREE = 0.9  # of the time a thread gets its CPU: nobody else wants it
FEW = 4  # CPUs, below which threads share theirs rather than be fewer
BLOCK = bytes(2**20)


def leave_cpus_to_others() -> int:
    """From now on use as many threads as others leave CPUs, and have them share these; returns how many.

    No more than this process may keep busy. Where the environment says how many (OMP_NUM_THREADS), nothing is measured,
    with SG3_THREADS=all there are as many as PyTorch takes by itself.
    """
    import torch

    if os.environ.get(SETTING) == "all":
        return torch.get_num_threads()
    most = threads_left()
    if is_free():
        torch.set_num_threads(most)
    share_cpus()
    return most


def threads_left() -> int:
    """How many threads others leave CPUs for, or as many as the environment says."""
    most = most_threads()
    if is_free() and most > 1 and (most >= FEW or not can_wait_briefly()):
        return fitting(most, share_of_cpus(most))
    return most


def most_threads() -> int:
    """How many threads this process may keep busy, or as many as the environment says."""
    import torch

    return min(torch.get_num_threads(), usable_cpus()) if is_free() else torch.get_num_threads()


def is_free() -> bool:
    """Whether the environment leaves it to sg3 how many threads there are."""
    return "OMP_NUM_THREADS" not in os.environ


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
