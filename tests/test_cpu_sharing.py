"""Threads wait briefly while others want the CPUs, and no result changes with it."""

from __future__ import annotations

import ctypes
import os
import platform
import subprocess
import sys
import threading
import time

import pytest

from sg3 import cpu_sharing
from sg3.cpu_sharing import Sharing, Waiting

pytestmark = pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system does not say who waits")


class Machine(Sharing):
    """What the system would say of waiting, look by look."""

    def __init__(self, says: list[float]) -> None:
        super().__init__(4)
        self.says = says
        self.did: list[str] = []
        self._brevity.on = lambda cpus: self.did.append(f"brief {cpus}")
        self._brevity.off = lambda: self.did.append("as usual")

    def look(self, seconds: float) -> float:
        return self.says.pop(0)


def test_nothing_is_done_while_nobody_else_wants_the_cpus() -> None:
    machine = Machine([0.01, 0.11, 0.0, 0.3, 0.5])
    machine.wait_until_busy()
    assert machine.did == []
    assert machine.says == [0.5]


def test_waiting_is_brief_until_the_others_have_gone() -> None:
    machine = Machine([0.5, 0.06, 0.04, 0.5])
    machine.share_until_calm()
    assert machine.did == ["brief 4", "as usual"]
    assert machine.says == [0.5]


def test_usage_is_that_of_all_threads() -> None:
    """Of a thread other than the one that asks, too, as long as it lives."""
    waiting = Waiting()
    worked, asked = threading.Event(), threading.Event()

    def work() -> None:
        until = time.thread_time() + 0.05
        while time.thread_time() < until:
            pass
        worked.set()
        asked.wait()

    thread = threading.Thread(target=work)
    thread.start()
    worked.wait()
    ran = sum(now[0] - waiting._before.get(thread, (0, 0))[0] for thread, now in cpu_sharing._schedules().items())
    waited = waiting.share()
    asked.set()
    thread.join()
    assert ran >= 0.045e9
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
    brevity = cpu_sharing.Brevity()
    def disturb():
        while True:
            brevity.on(2)
            time.sleep(0.01)
            brevity.off()
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


SLICES = """
import ctypes, os, platform, threading
from sg3 import cpu_sharing

def attributes():
    found = ctypes.create_string_buffer(cpu_sharing.ATTRIBUTES.size)
    number = cpu_sharing.SET_AND_GET[platform.machine()][1]
    assert ctypes.CDLL(None).syscall(number, 0, found, len(found), 0) == 0
    return cpu_sharing.ATTRIBUTES.unpack(found.raw)

def show():
    print(*attributes(), flush=True)

def wait_and_show():
    asked.wait()
    show()

os.nice(1)
cpu_sharing.SLICE, short = 3_000_000, cpu_sharing.SLICE  # a child begins with the slices of the process of the tests
cpu_sharing.ask_for_short_slices()
cpu_sharing.SLICE = short
asked = threading.Event()
running = threading.Thread(target=wait_and_show)
running.start()
show()
cpu_sharing.ask_for_short_slices()
show()
asked.set()
running.join()
new = threading.Thread(target=show)
new.start()
new.join()
"""


@pytest.mark.skipif(platform.machine() not in cpu_sharing.SET_AND_GET, reason="its system calls are not known")
def test_slices_become_short_and_nothing_else_changes() -> None:
    """Those of the thread that asks, of one that was there, and of one that is started later."""
    done = subprocess.run([sys.executable, "-c", SLICES], capture_output=True, text=True, check=True)
    before, *after = [[int(word) for word in line.split()] for line in done.stdout.splitlines()]
    if before[5] == 0:
        pytest.skip("this system knows no slices")
    assert before[5] > cpu_sharing.SLICE
    assert before[3] == min(os.nice(0) + 1, 19)
    assert after == [[*before[:5], cpu_sharing.SLICE, *before[6:]]] * 3


def test_threads_of_other_policies_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[int, int]] = []

    class System:
        def syscall(self, number: int, thread: int, attributes: ctypes.Array[ctypes.c_char], *_: int) -> int:
            calls.append((number, thread))
            cpu_sharing.ATTRIBUTES.pack_into(attributes, 0, 48, {1: 0, 2: 1, 3: 3}.get(thread, 0), 0, 0, 0, 0, 0, 0)
            return -1 if thread == 4 else 0  # which has ended

    monkeypatch.setattr(cpu_sharing, "_threads", lambda: [1, 2, 3, 4])
    monkeypatch.setattr(ctypes, "CDLL", lambda _: System())
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    cpu_sharing.ask_for_short_slices()
    assert calls == [(315, 1), (314, 1), (315, 2), (315, 3), (314, 3), (315, 4)]
    calls.clear()
    monkeypatch.setattr(platform, "machine", lambda: "another")
    cpu_sharing.ask_for_short_slices()
    assert calls == []


def test_it_begins_where_there_are_several_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    begun: list[str] = []
    monkeypatch.setattr(Sharing, "run", lambda self: begun.append(threading.current_thread().name))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    monkeypatch.setattr(cpu_sharing, "can_wait_briefly", lambda: True)
    monkeypatch.setattr(cpu_sharing, "ask_for_short_slices", lambda: begun.append("slices"))
    monkeypatch.setattr(cpu_sharing, "NAME", "CPU sharing of this test")  # a command may have begun it in this process
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
    assert begun == ["slices", cpu_sharing.NAME]
