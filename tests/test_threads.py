"""As many threads as there are CPUs to be had, and the same number for the rest of a run."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time

import pytest

from sg3.cpu_sharing import Waiting
from sg3.threads import fitting, share_of_cpus


@pytest.mark.parametrize(
    ("most", "share", "expected"),
    [
        (2, 1.0, 2), (2, 0.9, 2), (2, 0.85, 2),
        (2, 2 / 3, 1), (2, 2 / 4, 1), (2, 2 / 6, 1), (2, 0.0, 1),  # beside 1, 2 and 4 endless processes
        (8, 8 / 9, 7), (8, 8 / 11, 5), (8, 8 / 16, 4), (8, 0.1, 4),
    ],
)  # fmt: skip
def test_what_others_leave(most: int, share: float, expected: int) -> None:
    assert fitting(most, share) == expected


def test_shares_are_measured() -> None:
    began = time.monotonic()
    share = share_of_cpus(2, 0.1)
    assert 0 < share <= 1.05  # the clocks of threads and machine differ in the microseconds
    assert time.monotonic() - began < 5
    waiting = Waiting(threading.get_native_id())
    while time.thread_time() < 0.01:
        pass
    assert 0 <= waiting.share() <= 1


CHOOSE = """
import os, torch
from sg3 import threads
torch.set_num_threads(2)
threads.share_of_cpus = lambda count: 0.5
threads.usable_cpus = lambda: 2
threads.share_cpus = lambda: None
os.environ.pop("OMP_NUM_THREADS", None)
for briefly in (False, True):
    torch.set_num_threads(2)
    threads.can_wait_briefly = lambda: briefly
    print(threads.leave_cpus_to_others(), torch.get_num_threads())
torch.set_num_threads(2)
threads.usable_cpus = lambda: 1  # of a container's quota
print(threads.leave_cpus_to_others())
torch.set_num_threads(2)
for name, value in (("OMP_NUM_THREADS", "2"), ("SG3_THREADS", "all")):
    os.environ[name] = value
    print(threads.leave_cpus_to_others())
    del os.environ[name]
"""


def test_threads_are_chosen_unless_the_environment_has_chosen() -> None:
    done = subprocess.run(
        [sys.executable, "-c", CHOOSE], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["1", "1", "2", "2", "1", "2", "2"]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_idle_and_busy_machines() -> None:
    """On an otherwise idle machine of two CPUs: `python -m bench.busy`."""
    from bench.busy import WORKS, measure, problems

    if os.getloadavg()[0] > 0.5 or len(os.sched_getaffinity(0)) < 2:
        pytest.skip("needs an idle machine of two CPUs")
    results = measure(list(WORKS), [0, 2, 4], rounds=2, seconds=10, beside=["sg3"])
    print(results)
    assert problems(results) == []
