"""Threads give way to others and come back, second by second, and no result changes with it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time

import pytest

from sg3 import cpu_sharing
from sg3.cpu_sharing import Cpus, Sharing, Usage, arrangements

pytestmark = pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="threads cannot be placed here")
ALL: Cpus = frozenset({0, 1, 2, 3})
LOW, HIGH = frozenset({0, 1}), frozenset({2, 3})


class Machine(Sharing):
    """What the system would say, by place: (CPUs that run, share of waiting); a list is used up, its last one stays."""

    def __init__(self, says: dict[Cpus, list[tuple[float, float]]]) -> None:
        super().__init__(ALL)
        self.says = says
        self.did: list[str] = []
        self._brevity.on = lambda cpus: self.did.append(f"brief {cpus}")
        self._brevity.off = lambda: self.did.append("as usual")

    def look(self, seconds: float) -> tuple[float, float]:
        known = self.says[self._place]
        return known.pop(0) if len(known) > 1 else known[0]

    def move(self, place: Cpus) -> None:
        if place != self._place:
            self.did.append({ALL: "all", LOW: "low", HIGH: "high"}[place])
        self._place = place


@pytest.fixture(autouse=True)
def _can_wait_briefly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_sharing, "can_wait_briefly", lambda: True)


def test_nothing_is_done_while_nobody_else_wants_the_cpus() -> None:
    machine = Machine({ALL: [(4, 0.01), (4, 0.11), (3, 0.0), (2, 0.3)]})
    machine.wait_until_busy()
    assert machine.did == []
    assert machine.says[ALL] == [(2, 0.3)]


def test_the_best_place_is_found_by_trying() -> None:
    for best, place in (("low", LOW), ("high", HIGH)):
        machine = Machine({ALL: [(1.2, 0.5)], LOW: [(1.0, 0.1)], HIGH: [(1.0, 0.1)], place: [(1.5, 0.2)]})
        assert machine.best() == {"low": LOW, "high": HIGH}[best]


def test_a_little_better_is_not_worth_to_move() -> None:
    machine = Machine({ALL: [(1.4, 0.5)], LOW: [(1.5, 0.1)], HIGH: [(1.6, 0.1)]})
    assert machine.best() == ALL
    machine.move(LOW)
    assert machine.best() == LOW


def test_threads_come_back_when_the_others_have_gone() -> None:
    busy, calm = (1.0, 0.5), (3.9, 0.01)
    machine = Machine({ALL: [busy, calm], LOW: [(1.9, 0.4)], HIGH: [(1.0, 0.5)]})
    machine.share_until_calm()
    assert machine.did == ["brief 4", "low", "high", "low", "all", "as usual"]


def test_halves_of_the_cpus() -> None:
    assert arrangements(ALL) == [ALL, LOW, HIGH]
    assert arrangements(frozenset({5, 7})) == [{5, 7}, {5}, {7}]
    assert arrangements(frozenset({1, 2, 9})) == [{1, 2, 9}, {1}, {2, 9}]


def test_usage_is_that_of_all_threads() -> None:
    """Of a thread other than the one that asks, too, as long as it lives."""
    usage = Usage()
    worked, asked = threading.Event(), threading.Event()

    def work() -> None:
        until = time.thread_time() + 0.05
        while time.thread_time() < until:
            pass
        worked.set()
        asked.wait()

    began = time.monotonic()
    thread = threading.Thread(target=work)
    thread.start()
    worked.wait()
    ran, waited = usage.since()
    asked.set()
    thread.join()
    assert ran * (time.monotonic() - began) >= 0.045
    assert 0 <= waited <= 1


# The same steps of training, undisturbed and while everything that there is to arrange is arranged all the time.
TRAIN = """
import os, sys, threading, time
from pathlib import Path
os.environ.pop("OMP_NUM_THREADS", None)
import torch
from sg3 import cpu_sharing
from tests.helpers.runs import tiny_config
from tests.helpers.trainers import new_trainer

torch.set_num_threads(2)
if sys.argv[2] == "disturbed":
    sharing = cpu_sharing.Sharing(frozenset(os.sched_getaffinity(0)))
    def disturb():
        while True:
            for place in cpu_sharing.arrangements(sharing._cpus):
                sharing._brevity.on(2)
                sharing.move(place)
                time.sleep(0.01)
                sharing._brevity.off()
    threading.Thread(target=disturb, daemon=True).start()
trainer = new_trainer(tiny_config(sys.argv[1], batch=16, layers=3, cmax=32, cbase=2048))
for step in range(3):
    images = torch.full((16, 3, 16, 16), 40 * step, dtype=torch.uint8)
    trainer.train_step(images, torch.zeros(16, 0))
import hashlib
print(hashlib.sha256(b"".join(t.numpy().tobytes() for t in trainer.G.state_dict().values())).hexdigest(), flush=True)
print(torch.get_num_threads(), flush=True)
os._exit(0)
"""


@pytest.mark.slow
def test_results_do_not_change(discs) -> None:
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("needs two CPUs")
    found = [
        subprocess.run([sys.executable, "-c", TRAIN, str(discs), how], capture_output=True, text=True, check=True)
        for how in ("undisturbed", "disturbed")
    ]
    assert found[0].stdout.split()[0] == found[1].stdout.split()[0]
    assert [result.stdout.split()[1] for result in found] == ["2", "2"]


WAITS = """
import os, threading, time
os.environ.pop("OMP_NUM_THREADS", None)
import torch
from sg3 import cpu_sharing

torch.set_num_threads(2)
x = torch.randn(256, 256)
def spent():
    x @ x
    before = time.process_time()
    for _ in range(100):
        (x @ x).sum()
        time.sleep(0.002)
    return time.process_time() - before
brevity = cpu_sharing.Brevity()
usual = spent()
for _ in range(3):  # and no harm in doing it again
    brevity.on(len(os.sched_getaffinity(0)))
    brief = spent()
    brevity.off()
print(cpu_sharing.can_wait_briefly(), usual, brief, flush=True)
os._exit(0)
"""


@pytest.mark.slow
def test_waiting_is_brief_on_demand() -> None:
    """Between loops that are two milliseconds apart, threads of GNU's OpenMP burn most of that, or nothing."""
    environment = {name: value for name, value in os.environ.items() if name not in cpu_sharing.SAID_OTHERWISE}
    words = [sys.executable, "-c", WAITS]
    done = subprocess.run(words, capture_output=True, text=True, check=True, env=environment)
    can, usual, brief = done.stdout.split()
    if can != "True" or len(os.sched_getaffinity(0)) < 2:
        pytest.skip("needs two CPUs and GNU's OpenMP")
    print(f"{usual} s as usual, {brief} s")
    assert float(brief) < 0.7 * float(usual)


def test_it_begins_where_there_are_several_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    begun: list[str] = []
    monkeypatch.setattr(Sharing, "run", lambda self: begun.append(threading.current_thread().name))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    monkeypatch.setattr(os, "register_at_fork", lambda **_: None)
    monkeypatch.delenv(cpu_sharing.SETTING, raising=False)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    cpu_sharing.share_cpus()
    assert begun == []
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    monkeypatch.setenv(cpu_sharing.SETTING, "all")
    cpu_sharing.share_cpus()
    assert begun == []
    monkeypatch.delenv(cpu_sharing.SETTING)
    cpu_sharing.share_cpus()
    for thread in threading.enumerate():
        if thread.name == cpu_sharing.NAME:
            thread.join(5)
    assert begun == [cpu_sharing.NAME]
