"""Processes that a command starts on this machine: told of signals, and ended together."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from sg3 import local_ranks
from sg3.errors import Sg3Error
from sg3.local_ranks import can_meet, start_processes

RANK = """
import os, signal, sys, time
rank, how = os.environ["RANK"], sys.argv[1]
def note(number, _):
    with open(f"{sys.argv[2]}/{rank}", "a") as file:
        file.write(f"{number} ")
    if how != "stubborn":
        sys.exit(75)
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
    signal.signal(number, note)
open(f"{sys.argv[2]}/{rank}", "a").close()
if how == "end":
    sys.exit(0)
if how == "fail" and rank == "1":
    sys.exit(65)
if how == "die" and rank == "1":
    os.kill(os.getpid(), signal.SIGKILL)
time.sleep(60)
"""
START = """
import sys
from sg3 import local_ranks
popen = local_ranks.subprocess.Popen
local_ranks.subprocess.Popen = lambda command, **more: popen([sys.executable, "-c", RANK, *command[3:]], **more)
local_ranks.ENDING_SECONDS = 0.5
sys.exit(local_ranks.start_processes(2, sys.argv[1:]))
"""


def launcher(how: str, folder: Path) -> subprocess.Popen[str]:
    code = START.replace("RANK,", f"{RANK!r},")
    return subprocess.Popen([sys.executable, "-c", code, how, str(folder)], stderr=subprocess.PIPE, text=True)


def heard(folder: Path, process: subprocess.Popen[str]) -> list[list[int]]:
    process.wait(60)
    return [[int(word) for word in (folder / str(rank)).read_text().split()] for rank in range(2)]


def both_run(folder: Path) -> None:
    deadline = time.monotonic() + 60
    while len(list(folder.iterdir())) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize(("how", "code"), [("end", 0), ("fail", 65), ("die", 70)])
def test_ends(tmp_path: Path, how: str, code: int) -> None:
    """Whoever fails takes the others along, which are asked to end first; the code is that of the failure."""
    process = launcher(how, tmp_path)
    process.wait(60)
    assert process.returncode == code
    if how == "end":
        assert heard(tmp_path, process) == [[], []]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_a_signal_goes_to_all(tmp_path: Path, number: signal.Signals) -> None:
    process = launcher("wait", tmp_path)
    both_run(tmp_path)
    process.send_signal(number)
    assert heard(tmp_path, process) == [[number], [number]]
    assert process.returncode == 128 + number
    assert process.communicate()[1] == ""


def test_who_does_not_listen_is_killed_when_a_signal_comes_again(tmp_path: Path) -> None:
    process = launcher("stubborn", tmp_path)
    both_run(tmp_path)
    process.send_signal(signal.SIGTERM)
    time.sleep(1)
    assert process.poll() is None  # a state may take long to save
    process.send_signal(signal.SIGINT)
    assert heard(tmp_path, process) == [[signal.SIGTERM, signal.SIGINT]] * 2
    assert process.returncode == 128 + signal.SIGTERM


def test_where_processes_cannot_meet(monkeypatch) -> None:
    assert can_meet()

    def nowhere(*_: Any, **__: Any) -> None:
        raise OSError(99, "Cannot assign requested address")

    monkeypatch.setattr(local_ranks.socket, "create_server", nowhere)
    assert not can_meet()
    with pytest.raises(Sg3Error, match=r"--gpus=2: processes cannot meet at 127\.0\.0\.1: .*Cannot assign"):
        start_processes(2, ["train"])


def test_where_handles_run_out() -> None:
    """torch would try to connect for minutes, or abort."""
    resource = pytest.importorskip("resource", reason="no such limits here")
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 5, before[1]))
    try:
        with pytest.raises(Sg3Error, match="too few file handles") as caught:
            start_processes(2, ["train"])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert caught.value.exit_code == 71


def test_handlers_are_as_before() -> None:
    before = {number: signal.getsignal(number) for number in local_ranks.FORWARDED}
    with local_ranks._told_of_signals([]) as told:
        os.kill(os.getpid(), signal.SIGUSR1)
        time.sleep(0.01)
    assert told == [signal.SIGUSR1]
    assert {number: signal.getsignal(number) for number in local_ranks.FORWARDED} == before
