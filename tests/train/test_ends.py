"""Ends of runs at the worst moment: the state comes first, exit.json says what the process says, and the next life
makes up for what is missing."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import sg3.cli
from sg3.formats.digest import sha256_of
from sg3.invocation import sg3_command
from sg3.processes import World
from sg3.train import evaluation
from sg3.train.display import Display
from sg3.train.evaluation import Evaluation
from sg3.train.loop import Loop
from sg3.train.state import load_state
from sg3.train.tick import Moment
from tests.helpers import lives
from tests.helpers.commands import Result
from tests.helpers.runs import TINY_ARGS, tiny_config

Run = Callable[..., Result]
# Ten steps, of which the first and the last one end a tick.
ARGS = [*TINY_ARGS[1:], "--batch=100", "--mbstd-group=1", "--kimg=1", "--aug=noaug", "--metrics=eqt4_int"]


@pytest.fixture(scope="module")
def undisturbed(discs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    outdir = tmp_path_factory.mktemp("undisturbed")
    assert sg3.cli._run(["train", f"--outdir={outdir}", f"--data={discs}", *ARGS], False) == 0
    (run_dir,) = outdir.iterdir()
    return run_dir


def left_behind(run_dir: Path) -> dict:
    return json.loads((run_dir / "exit.json").read_text())


def ticks(run_dir: Path) -> list[float]:
    return [json.loads(line)["Progress/tick"]["mean"] for line in (run_dir / "stats.jsonl").read_text().splitlines()]


def measured(run_dir: Path) -> dict[str, float]:
    lines = [json.loads(line) for line in (run_dir / "metric-eqt4_int.jsonl").read_text().splitlines()]
    assert len(lines) == len({line["snapshot_pkl"] for line in lines})
    return {line["snapshot_pkl"]: line["results"]["eqt4_int"] for line in lines}


def check_complete(run_dir: Path, undisturbed: Path) -> None:
    """Everything is there that the undisturbed run has, and is the same."""
    def names(folder: Path) -> set[str]:
        return {path.name for path in folder.iterdir() if not path.name.startswith(("events.", "."))}

    assert names(run_dir) == names(undisturbed)
    for name in ("fakes000001.png", "network-snapshot-000001.pkl", "network-snapshot-000000.pkl"):
        assert sha256_of(run_dir / name) == sha256_of(undisturbed / name)
    assert ticks(run_dir) == ticks(undisturbed) == [0, 1]
    assert measured(run_dir) == measured(undisturbed)


class LastTick:
    """Whether a run has come to the end of its last tick."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.has_ended = False
        plain = Loop.moment

        def moment(loop: Loop, now: float) -> Moment:
            known = plain(loop, now)
            self.has_ended = known.ends_run
            return known

        monkeypatch.setattr(Loop, "moment", moment)


@pytest.mark.parametrize(
    "name",
    [
        "log.txt",
        "fakes000001.png",
        *(pytest.param(name, marks=pytest.mark.slow) for name in (
            "stats.jsonl", "network-snapshot-000001.pkl", "metric-eqt4_int.jsonl",
        )),
    ],
)
def test_a_disk_that_is_full_costs_no_tick(
    discs: Path, undisturbed: Path, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """At the end of the last tick, for whatever is written but the state; the next life makes up for it."""
    tick = LastTick(monkeypatch)

    def before(kind: str, path: str) -> None:
        if tick.has_ended and kind == "open" and name in Path(path).name:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)

    with lives.watched(tmp_path, before):
        stopped = run("train", f"--outdir={tmp_path}", f"--data={discs}", *ARGS)
    assert stopped.code == 74, stopped.err
    (run_dir,) = tmp_path.iterdir()
    assert f"/{name}: cannot be written: No space left on device" in stopped.error_line()
    assert left_behind(run_dir)["exit_code"] == 74
    assert f"error: {left_behind(run_dir)['message']}" == stopped.error_line()
    assert load_state(run_dir, pytest.fail)["nimg"] == 1000
    again = run("train", f"--continue={run_dir}")
    assert again.code == 0, again.err
    check_complete(run_dir, undisturbed)


def test_killed_after_the_state_costs_nothing(
    discs: Path, undisturbed: Path, run: Run, tmp_path: Path
) -> None:
    """By a signal that nobody can catch, between the state and everything that comes after it."""
    words = ["train", f"--outdir={tmp_path / 'runs'}", f"--data={discs}", *ARGS]
    process = lives.begin(lives.command, words, tmp_path, killed_before_the_report)
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    (run_dir,) = (tmp_path / "runs").iterdir()
    assert ticks(run_dir) == [0]
    assert run("train", f"--continue={run_dir}").code == 0
    check_complete(run_dir, undisturbed)


def killed_before_the_report() -> None:
    from sg3.train.report import TickReport

    plain = TickReport.run

    def report(self: TickReport, moment: Moment) -> None:
        if moment.ends_run:
            while not list(Path(self._writer.path.parent).glob("training-state-0000001000.pt")):
                time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGKILL)
        plain(self, moment)

    TickReport.run = report


@pytest.mark.parametrize("place", ["first", pytest.param("last", marks=pytest.mark.slow)])
def test_metrics_that_were_stopped_are_made_up_for(
    discs: Path, undisturbed: Path, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """Those of the first snapshot, before training goes on; those of the last one, though nothing is left to train."""
    tick, plain = LastTick(monkeypatch), evaluation.compute

    def compute(*args, stop: Callable[[], bool], **more) -> None:
        if tick.has_ended is (place == "last"):
            os.kill(os.getpid(), signal.SIGTERM)
            while not stop():
                time.sleep(0.01)
        plain(*args, stop=stop, **more)

    with monkeypatch.context() as patch:
        patch.setattr(evaluation, "compute", compute)
        stopped = run("train", f"--outdir={tmp_path}", f"--data={discs}", *ARGS)
    (run_dir,) = tmp_path.iterdir()
    assert stopped.code == (75 if place == "first" else 0), stopped.err
    again = run("train", f"--continue={run_dir}")
    assert again.code == 0
    kimg = 0 if place == "first" else 1
    assert f"network-snapshot-{kimg:06d}.pkl: measuring what an earlier life of the run has not got to: eqt4_int" in \
        again.err
    check_complete(run_dir, undisturbed)


def test_gaps_in_older_metrics_are_filled(undisturbed: Path, run: Run, tmp_path: Path) -> None:
    """From the first snapshot that was measured; a metric that is new is one of the newest snapshot alone."""
    run_dir = Path(shutil.copytree(undisturbed, tmp_path / undisturbed.name))
    for kimg in (2, 3, 4):  # (their networks are those of 0 kimg)
        shutil.copy(run_dir / "network-snapshot-000000.pkl", run_dir / f"network-snapshot-{kimg:06d}.pkl")
    e = Evaluation(tiny_config(metrics="eqt4_int,eqr4"), run_dir, World(0, 1, torch.device("cpu")), Display(None))
    names = [(name, [metric.name for metric in metrics]) for name, metrics in e._missed(3999)]
    assert names == [
        ("network-snapshot-000002.pkl", ["eqt4_int"]), ("network-snapshot-000003.pkl", ["eqt4_int", "eqr4"]),
    ]  # fmt: skip


# ---- who listens ----------------------------------------------------------------------------------------------------


def stderr_without_a_reader(_marker: Path) -> None:
    """From the image of the second tick on."""
    from sg3.train.snapshots import Snapshots

    plain = Snapshots.write
    reader, writer = os.pipe()
    os.dup2(writer, 2)
    os.close(writer)

    def write(self: Snapshots) -> None:
        if self._trainer.tick == 2:
            os.close(reader)
        plain(self)

    Snapshots.write = write


def test_a_reader_of_stderr_that_goes_away(discs: Path, run: Run, tmp_path: Path) -> None:
    """The run stops, with nothing lost, and says why where it can still be read."""
    words = ["train", f"--outdir={tmp_path / 'runs'}", f"--data={discs}", *ARGS, "--kimg=50", "--metrics=eqt4_int"]
    process = lives.begin(lives.command, words, tmp_path, stderr_without_a_reader, tmp_path)
    process.join(60)
    (run_dir,) = (tmp_path / "runs").iterdir()
    left = left_behind(run_dir)
    assert process.exitcode == left["exit_code"] == 75
    assert left["message"].startswith("stderr: Broken pipe: stopped at ")
    state = load_state(run_dir, pytest.fail)
    assert state["nimg"] == left["kimg"] * 1000 >= 1100
    assert ticks(run_dir) == list(range(state["tick"]))
    assert "exit code 75: stderr: Broken pipe" in (run_dir / "log.txt").read_text().splitlines()[-1]


def test_a_reader_of_stdout_that_goes_away_is_no_news(undisturbed: Path, tmp_path: Path) -> None:
    """The run's own end is what its exit code says."""
    run_dir = Path(shutil.copytree(undisturbed, tmp_path / undisturbed.name))
    process = lives.begin(lives.command, ["train", f"--continue={run_dir}"], tmp_path, stdout_without_a_reader)
    process.join(60)
    assert process.exitcode == left_behind(run_dir)["exit_code"] == 0, (tmp_path / "err.txt").read_text()


def stdout_without_a_reader() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    os.dup2(writer, 1)


# ---- before training ------------------------------------------------------------------------------------------------


def opening_takes_long(marker: Path) -> None:
    import sg3.train.launch

    def open_dataset(_config: object) -> None:
        marker.touch()
        time.sleep(60)

    sg3.train.launch.open_dataset = open_dataset


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_interrupted_before_training_began(discs: Path, tmp_path: Path, number: signal.Signals) -> None:
    """Nothing is there that had to be saved: it ends at once, and leaves no folder."""
    words = ["train", f"--outdir={tmp_path / 'runs'}", f"--data={discs}", *ARGS]
    code, err = interrupted(words, tmp_path, number)
    assert code == 130
    assert err.strip() == "interrupted"
    assert list((tmp_path / "runs").iterdir()) == []


def test_interrupted_before_training_went_on(undisturbed: Path, tmp_path: Path) -> None:
    run_dir = Path(shutil.copytree(undisturbed, tmp_path / undisturbed.name))
    code, err = interrupted(["train", f"--continue={run_dir}", "--kimg=2"], tmp_path, signal.SIGTERM)
    assert code == left_behind(run_dir)["exit_code"] == 75
    assert err.startswith(f"SIGTERM: stopped before training went on; the state is in {run_dir}; continue with: ")
    assert load_state(run_dir, pytest.fail)["nimg"] == 1000


def interrupted(words: list[str], folder: Path, number: signal.Signals) -> tuple[int | None, str]:
    """Exit code and stderr of a command that gets the signal while it opens the data set."""
    process = lives.begin(lives.command, words, folder, opening_takes_long, folder / "marker")
    lives.wait_for((folder / "marker").exists, process)
    assert process.pid is not None
    os.kill(process.pid, number)
    process.join(10)
    process.kill()
    return process.exitcode, (folder / "err.txt").read_text()


def test_the_newest_run_that_has_a_state_goes_on(undisturbed: Path, run: Run, tmp_path: Path) -> None:
    run_dir = Path(shutil.copytree(undisturbed, tmp_path / undisturbed.name))
    newer = tmp_path / "00003-killed-early"
    newer.mkdir()
    shutil.copy(run_dir / "training_options.json", newer)
    result = run("train", "--continue=latest", f"--outdir={tmp_path}")
    assert result.code == 0
    assert result.out == f"{run_dir}\n"
    assert f"passed over: {newer}, it has no training state" in result.err.splitlines()


def test_the_command_that_is_printed_works(undisturbed: Path, run: Run, tmp_path: Path) -> None:
    """Where sg3 is not on the PATH, and the folder's name has a space."""
    run_dir = Path(shutil.copytree(undisturbed, tmp_path / "my runs" / undisturbed.name))
    _, err = interrupted(["train", f"--continue={run_dir}", "--kimg=2"], tmp_path, signal.SIGTERM)
    command = err.strip().partition("; continue with: ")[2]
    assert command == f"{sg3_command()} train '--continue={run_dir}'"
    done = subprocess.run(f"{command} --kimg=1", shell=True, capture_output=True, text=True, check=True)
    assert "nothing to do" in done.stderr
