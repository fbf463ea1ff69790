"""Runs that everything happens to, for minutes: other load on the machine, signals, full disks, killed processes and
ranks, readers that go away. They end where undisturbed ones end, to the last bit.

Each round takes SG3_SOAK_MINUTES (by default 1) of disturbances, and as long again for the comparison. How long a run
is left alone is counted in processor time, so that it gets as far on a machine with much to do.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from bench.busy import busy_processes
from sg3.run_folder import read_lines
from sg3.train.state import load_state
from tests.helpers.commands import children_seconds, ranks_of, spent_seconds, start
from tests.helpers.compare import assert_same
from tests.helpers.runs import TINY_ARGS
from tests.helpers.trainers import comparable

MINUTES = float(os.environ.get("SG3_SOAK_MINUTES") or 1)
DISK_BYTES = 24 * 2**20  # some states and snapshots of these runs
LEAST = 4  # lives, where minutes are too short for them
LONGEST = 20  # seconds of processor time of one: for a tick or two
PATIENCE = 600  # seconds that a process may take to end: to the end of a tick, on a machine with much to do
ROUNDS = {
    "one process": ["--cfg=stylegan3-t", "--aug=ada", "--target=0.5", "--workers=0"],
    "two ranks": ["--cfg=stylegan2", "--aug=ada", "--target=0.5", "--workers=0", "--gpus=2", "--batch-gpu=8"],
    "loaders, metrics": ["--cfg=stylegan3-r", "--aug=noaug", "--mirror=1", "--workers=2", "--metrics=eqt4_int"],
}  # fmt: skip

Disturbance = Callable[[subprocess.Popen[str], Path], set[int]]  # (process, its disk) -> exit codes that are right


def sends(number: int) -> Disturbance:
    def disturb(process: subprocess.Popen[str], _disk: Path) -> set[int]:
        process.send_signal(number)
        # Before the launcher has begun to handle signals, one ends it as it ends any process.
        return {75, 130, 128 + number, -number} if number != signal.SIGKILL else {-number}

    return disturb


def kills_a_rank(process: subprocess.Popen[str], _disk: Path) -> set[int]:
    if ranks := ranks_of(process):
        os.kill(random.Random(process.pid).choice(ranks), signal.SIGKILL)
    else:
        process.kill()
    return {-9, 70}


def fills_the_disk(process: subprocess.Popen[str], disk: Path) -> set[int]:
    with (disk / "filler").open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(2**16))
        except OSError:
            pass
    process.wait(PATIENCE)
    (disk / "filler").unlink()
    return {74}


def closes_stderr(process: subprocess.Popen[str], _disk: Path) -> set[int]:
    assert process.stderr is not None
    process.stderr.close()
    process.wait(PATIENCE)
    return {74, 75}


def does_nothing_but_stop_it(process: subprocess.Popen[str], disk: Path) -> set[int]:
    time.sleep(5)
    return sends(signal.SIGTERM)(process, disk)


DISTURBANCES: dict[str, Disturbance] = {
    **{signal.Signals(number).name: sends(number)
       for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGKILL)},
    "killed rank": kills_a_rank, "full disk": fills_the_disk, "closed stderr": closes_stderr,
    "nothing": does_nothing_but_stop_it,
}  # fmt: skip


@contextmanager
def small_disk(folder: Path) -> Iterator[bool]:
    """Inside, the folder is a file system of DISK_BYTES, if this process may make one; says whether it is."""
    folder.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(folder)]
    try:
        is_small = subprocess.run(words, capture_output=True, check=False).returncode == 0
    except OSError:
        is_small = False
    try:
        yield is_small
    finally:
        if is_small:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)


def finish(*words: object, seconds: float = 3600) -> None:
    """A command, undisturbed to its end."""
    process = start("train", *words)
    _, err = process.communicate(timeout=seconds)
    assert process.returncode == 0, err


def disturb(words: list[str], name: str, seconds: float, load: int, disk: Path) -> int:
    """One life of a run, with a disturbance after so many seconds of processor time. Returns its exit code."""
    with busy_processes(load):
        process = start("train", *words)
        try:
            while spent_seconds(process.pid) < seconds:
                assert process.poll() is None, f"ended by itself: {process.returncode}, {process.communicate()}"
                time.sleep(0.05)
            expected = DISTURBANCES[name](process, disk)
            process.wait(PATIENCE)
            err = "" if name == "closed stderr" else process.communicate()[1]
        finally:
            process.kill()
    assert process.returncode in expected, f"{name}: {process.returncode}, {err}"
    assert "Traceback" not in err
    assert "a bug in sg3" not in err
    return process.returncode


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("kind", ROUNDS)
def test_soak(kind: str, discs: Path, tmp_path: Path) -> None:
    rng = random.Random(kind)
    due: list[str] = []
    args = [*TINY_ARGS, "--batch=32", f"--data={discs}", "--keep-snapshots=2", *ROUNDS[kind]]
    happened: Counter[tuple[str, int]] = Counter()
    reached = set()
    with small_disk(tmp_path / "disk") as is_small:
        names = [name for name in DISTURBANCES if is_small or name != "full disk"]
        disk = tmp_path / "disk"
        before = children_seconds()
        finish(*args, f"--outdir={disk}", "--kimg=1")
        (run_dir,) = disk.iterdir()
        # Lives are to end before, in and after the first tick; but there are to be some.
        longest = min(2.5 * (children_seconds() - before), LONGEST, MINUTES * 60 / LEAST)
        end = time.monotonic() + MINUTES * 60
        while time.monotonic() < end or happened.total() < LEAST:
            if not due:  # each of them once before any comes again
                due = rng.sample(names, len(names))
            name = due.pop()
            words = [f"--continue={run_dir}", "--kimg=100000"]
            code = disturb(words, name, rng.uniform(1, longest), rng.randrange(4), disk)
            happened[name, code] += 1
            reached.add(load_state(run_dir, pytest.fail)["nimg"])
        kimg = max(reached) // 1000 + 1
        finish(f"--continue={run_dir}", f"--kimg={kimg}")
        print(f"{kind}: {kimg} kimg, states at {len(reached)} places; {dict(happened)}")
        finish(*args, f"--outdir={tmp_path / 'undisturbed'}", "--kimg=1")  # the end of a run is the end of a tick
        (whole,) = (tmp_path / "undisturbed").iterdir()
        finish(f"--continue={whole}", f"--kimg={kimg}")
        assert_same_run(run_dir, whole)


def assert_same_run(one: Path, two: Path) -> None:
    """State, statistics, metrics and images are the same, but for times."""
    assert_same(*(comparable(load_state(run, pytest.fail)) for run in (one, two)))
    for name in ("stats.jsonl", *(path.name for path in two.glob("metric-*.jsonl"))):
        assert_same(*([timeless(line) for line in read_lines(run / name)] for run in (one, two)), name)
    images = sorted(path.name for path in two.glob("*.png"))
    assert images == sorted(path.name for path in one.glob("*.png"))
    for name in images:
        assert (one / name).read_bytes() == (two / name).read_bytes(), name
    assert json.loads((one / "exit.json").read_text())["exit_code"] == 0


def timeless(line: dict[str, Any]) -> dict[str, Any]:
    """A line of statistics or of a metric without what the clock decides, and without hashes of files with times."""
    if "results" in line:
        return {name: line[name] for name in ("results", "metric", "snapshot_pkl")}
    return {name: value for name, value in line.items()
            if not name.startswith(("Timing/", "Resources/")) and name != "timestamp"}  # fmt: skip
