"""How many processes train where there is no GPU, and with how many threads each.

Threads of one process meet after every loop, thousands of times in a step, and where other programs want the CPUs they
mostly wait for the one of them that has none. Processes meet where they add up gradients, a few times in a step, and
keep nearly all of their share. On an idle machine both are as fast (docs/busy-machines.md).
"""

from __future__ import annotations

import dataclasses
import os
import sys

from sg3.cpu_sharing import SETTING
from sg3.device import choose_device
from sg3.local_ranks import can_meet
from sg3.processes import backends, find_place
from sg3.resources import memory
from sg3.threads import most_threads, threads_left
from sg3.train.options import Options

MOST = 4  # processes: each has networks, optimisers and a Python of its own
FEWEST_IMAGES = 4  # of a step, in each: with fewer, small networks take as long as with more
MEMORY_BYTES = 2 * 2**30  # of the machine's, for each


def shared_out(options: Options) -> Options:
    """The same, with the processes and threads for this machine's CPUs, where the run is for these and the user says
    nothing of either; loaders, too, since every process has its own."""
    said = options.gpus, options.threads, find_place(os.environ), os.environ.get(SETTING)
    if said != (None, None, None, None):
        return options
    if not can_share(options.device or "auto"):
        return options
    cpus, there = most_threads(), memory()
    most = min(cpus, MOST, MOST if there is None else there[0] // MEMORY_BYTES)
    count = next((count for count in range(most, 1, -1) if _fits(options, count)), 1)
    if count == 1:
        return options
    threads = 1 if count == cpus else max(threads_left() // count, 1)
    workers = 1 if options.workers is None else options.workers
    return dataclasses.replace(options, gpus=count, threads=threads, workers=workers)


def can_share(device: str) -> bool:
    """Whether a run on that device is for CPUs whose processes can meet. Raises UsageError where it is not there."""
    on_cpus = sys.platform != "win32" and choose_device(device).type == "cpu"
    return on_cpus and backends()["gloo"] and can_meet()


def _fits(options: Options, count: int) -> bool:
    """Whether so many processes can have the same part of each step."""
    each, rest = divmod(options.with_defaults().batch, count)
    together = options.batch_gpu or options.images_together()
    return rest == 0 and each >= FEWEST_IMAGES and each % together == 0
