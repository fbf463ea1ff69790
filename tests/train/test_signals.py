"""Asked to stop, wherever it is: a run saves its state within 20 seconds and ends with exit code 75."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TypeAlias

import pytest

from sg3.data.dataset import ImageFolderDataset
from sg3.invocation import sg3_command
from sg3.train.feed import real_batches
from sg3.train.state import load_state
from tests.helpers import lives
from tests.helpers.runs import TINY_ARGS

ARGS = [*TINY_ARGS, "--aug=noaug", "--kimg=50", "--snap=100000"]
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)
Place: TypeAlias = tuple[Callable[[Path], None], list[str]]  # preparation, words


# ---- where it is: prepared in the run's process; `marker` appears when it is there -----------------------------------


def in_a_step(marker: Path) -> None:
    from sg3.train.trainer import Trainer

    plain = Trainer.run_phase

    def run_phase(self, phase, *args):
        if self.step >= 2:
            marker.touch()
        return plain(self, phase, *args)

    Trainer.run_phase = run_phase


def waiting_for_data(marker: Path) -> None:
    """Each loader has images for one step, then the disk hangs: a pipe that nobody writes to."""
    plain, pipe, seen = ImageFolderDataset.__getitem__, marker.with_suffix(".pipe"), 0
    os.mkfifo(pipe)

    def getitem(self, index):
        nonlocal seen
        seen += 1
        if seen > 6 + 4:  # the grid's, and a batch
            marker.touch()
            pipe.read_bytes()
        return plain(self, index)

    ImageFolderDataset.__getitem__ = getitem


def in_the_metrics(marker: Path) -> None:
    import sg3.train.evaluation

    plain = sg3.train.evaluation.compute

    def compute(*args, **more):
        marker.touch()
        return plain(*args, **more)

    sg3.train.evaluation.compute = compute


def in_a_save(marker: Path, seconds: float = 1) -> None:
    import sg3.train.saving

    plain = os.fsync
    sg3.train.saving.STATE_MINUTES = -1

    def fsync(handle):
        name = Path(os.readlink(f"/proc/self/fd/{handle}")).name
        if name.startswith(".training-state-0000000008.pt.new"):
            marker.touch()
            time.sleep(seconds)
        plain(handle)

    os.fsync = fsync


def where_nothing_goes_on(marker: Path) -> None:
    """The disk hangs in a save, and the step that goes on meanwhile hangs, too."""
    import sg3.train.stop
    from sg3.train.trainer import Trainer

    sg3.train.stop.SAME_WISH_SECONDS = 0.3
    in_a_save(marker, seconds=60)
    plain = Trainer.train_step

    def train_step(self, *args):
        if self.step >= 2:
            time.sleep(60)
        return plain(self, *args)

    Trainer.train_step = train_step


PLACES: dict[str, Place] = {
    "step": (in_a_step, []),
    "data": (waiting_for_data, []),
    "loader": (waiting_for_data, ["--workers=5"]),
    "metrics": (in_the_metrics, ["--metrics=eqt50k_int", "--snap=1"]),
    "save": (in_a_save, []),
}
HANGING = (where_nothing_goes_on, [])


def start(discs: Path, folder: Path, place: Place) -> BaseProcess:
    """A run that has arrived at the place."""
    prepare, words = place
    words = ["train", f"--outdir={folder / 'runs'}", f"--data={discs}", *ARGS, *words]
    process = lives.begin(lives.command, words, folder, prepare, folder / "marker")
    lives.wait_for((folder / "marker").exists, process)
    return process


def children_of(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []


def stop_and_check(process: BaseProcess, folder: Path, number: signal.Signals) -> None:
    began = time.monotonic()
    assert process.pid is not None
    os.kill(process.pid, number)
    process.join(20)
    took = time.monotonic() - began
    children = children_of(process.pid)
    for pid in (*children, process.pid):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    err = (folder / "err.txt").read_text()
    assert process.exitcode == 75, err
    assert took < 20
    assert children == [], "loader processes are left"
    (run_dir,) = (folder / "runs").iterdir()
    last = err.strip().splitlines()[-1]
    assert last.startswith(f"{number.name}: stopped at ")
    assert last.endswith(f"continue with: {sg3_command()} train --continue={run_dir}")
    left = json.loads((run_dir / "exit.json").read_text())
    assert left["exit_code"] == 75
    assert load_state(run_dir, pytest.fail)["nimg"] == left["kimg"] * 1000
    assert not list(run_dir.glob(".*.tmp"))


@pytest.mark.parametrize(
    ("place", "number"),
    [("data", signal.SIGINT), ("metrics", signal.SIGHUP), ("save", signal.SIGTERM)],
)
def test_stopped_anywhere(discs: Path, tmp_path: Path, place: str, number: signal.Signals) -> None:
    stop_and_check(start(discs, tmp_path, PLACES[place]), tmp_path, number)


@pytest.mark.slow
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("number", SIGNALS)
def test_stopped_anywhere_by_any_signal(discs: Path, tmp_path: Path, place: str, number: signal.Signals) -> None:
    stop_and_check(start(discs, tmp_path, PLACES[place]), tmp_path, number)


def test_loader_processes_that_hang_are_ended(discs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the time for one of them, and with none left, whom the process's own end would wait for."""
    monkeypatch.setattr(ImageFolderDataset, "__getitem__", ImageFolderDataset.__getitem__)  # put back afterwards
    waiting_for_data(tmp_path / "marker")
    batches = real_batches(ImageFolderDataset(discs), batch=10, seed=0, start=0, workers=2, pin_memory=False)
    next(batches)
    while not (tmp_path / "marker").exists():
        time.sleep(0.01)
    time.sleep(0.3)
    began = time.monotonic()
    batches.close()
    assert time.monotonic() - began < 5
    assert multiprocessing.active_children() == []


def test_a_second_interrupt_ends_it_at_once(discs: Path, tmp_path: Path) -> None:
    """The disk hangs for a minute; whoever asks again does not want to wait."""
    process = start(discs, tmp_path, HANGING)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGINT)
    time.sleep(0.5)
    os.kill(process.pid, signal.SIGINT)
    process.join(2)
    ended = process.exitcode
    process.kill()
    assert ended == 130
    assert (tmp_path / "err.txt").read_text().strip().splitlines()[-1] == "interrupted"
    (run_dir,) = (tmp_path / "runs").iterdir()
    assert load_state(run_dir, pytest.fail)["nimg"] == 4
    assert json.loads((run_dir / "exit.json").read_text())["exit_code"] == 130
