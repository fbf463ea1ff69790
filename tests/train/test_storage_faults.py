"""Disks that are full, broken or forbidden, at every call by which a run writes: it goes on, or ends with exit code 74
and the path, and what was saved before stays as it was."""

from __future__ import annotations

import errno
import json
import os
import re
import resource
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import sg3.cli
from sg3.errors import StorageError
from sg3.invocation import sg3_command
from sg3.train.state import load_state, save_state
from tests.helpers import lives, tiny_systems
from tests.helpers.commands import Result
from tests.helpers.runs import TINY_ARGS

ERRORS = (errno.ENOSPC, errno.EIO, errno.EACCES)
ARGS = [*TINY_ARGS, "--aug=noaug", "--cfg=stylegan3-t", "--metrics=eqt4_int"]
Run = Callable[..., Result]


@pytest.fixture(scope="module")
def started(discs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one step, and room to continue it."""
    return one_step(discs, tmp_path_factory.mktemp("started"), ARGS)


def one_step(data: Path, outdir: Path, words: list[str]) -> Path:
    assert sg3.cli._run(["train", f"--outdir={outdir}", f"--data={data}", "--minutes=0.0001", *words], False) == 0
    (run_dir,) = outdir.iterdir()
    return run_dir


def one_more_step(run_dir: Path) -> list[str]:
    """Words that continue the run for a step, at the end of which everything is written."""
    seconds = load_state(run_dir, pytest.fail)["seconds"]
    return ["train", f"--continue={run_dir}", f"--minutes={(seconds + 0.001) / 60}"]


def continue_with(run_dir: Path) -> str:
    return f"continue with: {sg3_command()} train --continue={run_dir}"


def calls_of(run: Run, folder: Path, words: list[str]) -> list[tuple[str, str]]:
    """All calls that change something in `folder` while the command runs: (kind, name of the file)."""
    seen: list[tuple[str, str]] = []
    with lives.watched(folder, lambda kind, path: seen.append((kind, kind_of_file(path)))):
        result = run(*words)
    assert result.code == 0, result.err
    return seen


def kind_of_file(path: str) -> str:
    """The name without what differs from file to file."""
    name = re.sub(r"\.[0-9a-f]{8}\.tmp$", "", Path(path).name.removeprefix("."))
    return re.sub(r"\d{4,}", "N", name)


class Failing:
    """Fails at a call, counted from 0, and unless `once` at all that follow, but for those that remove a file."""

    def __init__(self, number: int, code: int, once: bool) -> None:
        self.remaining = number
        self.code = code
        self.once = once

    def __call__(self, kind: str, path: str) -> None:
        self.remaining -= 1
        if self.remaining == -1 or (self.remaining < 0 and not self.once and kind != "unlink"):
            names = [] if kind in ("write", "fsync") else [path]  # as the system does
            raise OSError(self.code, os.strerror(self.code), *names)


def continue_with_fault(run: Run, started: Path, folder: Path, number: int, code: int, once: bool) -> Result:
    """Continue a copy of the run, with a call that fails, and check what it leaves behind."""
    run_dir = Path(shutil.copytree(started, folder / started.name))
    words = one_more_step(run_dir)
    (before,) = run_dir.glob("training-state-*.pt")
    content, left = before.read_bytes(), (run_dir / "exit.json").read_bytes()
    with lives.watched(run_dir, Failing(number, code, once)):
        result = run(*words)
    assert result.code in (0, 74), result.err
    if result.code == 74:
        (line,) = [line for line in result.err.splitlines() if line.startswith("error: ")]
        assert str(run_dir) in line
        assert os.strerror(code) in line
        assert "Traceback" not in result.err
    if (run_dir / "exit.json").exists() and (run_dir / "exit.json").read_bytes() != left:
        ended = json.loads((run_dir / "exit.json").read_text())
        assert ended["exit_code"] == result.code
        assert result.code == 0 or ended["message"].endswith(f"; once that is mended, {continue_with(run_dir)}")
    assert before.read_bytes() == content
    assert not list(run_dir.glob(".*.tmp"))
    load_state(run_dir, pytest.fail)
    shutil.rmtree(run_dir)
    return result


def every_kind_of_file_can_fail(run: Run, started: Path, tmp_path: Path, *more: str) -> None:
    """A call on each kind of file, the kinds of calls and the three errors in turns, failing once or from then on."""
    probe = Path(shutil.copytree(started, tmp_path / "probe" / started.name))
    calls = calls_of(run, probe, one_more_step(probe))
    assert {name for _, name in calls} >= {
        "log.txt", "stats.jsonl", "fakesN.png", "network-snapshot-N.pkl", "training-state-N.pt",
        "training-state-N.pt.new", "training-state-N.pt.sha256", "exit.json", *more,
    }  # fmt: skip
    by_file = {name: sorted({kind for kind, other in calls if other == name}) for _, name in calls}
    for index, (name, kinds) in enumerate(by_file.items()):
        number = calls.index((kinds[index % len(kinds)], name))
        continue_with_fault(run, started, tmp_path, number, ERRORS[index % 3], once=index % 2 == 1)


def test_every_kind_of_file_can_fail(run: Run, started: Path, tmp_path: Path) -> None:
    every_kind_of_file_can_fail(run, started, tmp_path, "metric-eqt4_int.jsonl")


@pytest.mark.slow
def test_every_kind_of_file_of_r3gan_can_fail(run: Run, discs: Path, tmp_path: Path) -> None:
    """Its snapshots hold optimizers; averages for later lie beside them."""
    started = one_step(discs, tmp_path / "runs", [*tiny_systems.ARGS["r3gan"], "--posthoc-ema"])
    every_kind_of_file_can_fail(run, started, tmp_path, "power-ema-N.pt")


def test_a_state_that_cannot_get_its_name_is_named(tmp_path: Path) -> None:
    def before(kind: str, path: str) -> None:
        if (kind, Path(path).name) == ("rename", "training-state-0000000020.pt"):
            raise OSError(errno.EIO, os.strerror(errno.EIO), path)

    save_state(tmp_path, {"nimg": 10})
    with (
        lives.watched(tmp_path, before),
        pytest.raises(StorageError, match=r"/training-state-0000000020.pt: Input/output error"),
    ):
        save_state(tmp_path, {"nimg": 20})
    assert load_state(tmp_path, pytest.fail)["nimg"] == 10


@pytest.mark.slow
@pytest.mark.parametrize("code", ERRORS)
@pytest.mark.parametrize("once", [True, False])
def test_every_single_write_can_fail(run: Run, started: Path, tmp_path: Path, code: int, once: bool) -> None:
    probe = Path(shutil.copytree(started, tmp_path / "probe" / started.name))
    calls = calls_of(run, probe, one_more_step(probe))
    assert len(calls) > 60
    outcomes = [continue_with_fault(run, started, tmp_path, n, code, once).code for n in range(len(calls))]
    assert outcomes.count(74) > len(calls) / 2


def test_a_new_run_names_what_it_cannot_write(discs: Path, run: Run, tmp_path: Path) -> None:
    """Including the files that only a new run writes."""
    words = ["train", f"--data={discs}", "--minutes=0.0001", *ARGS]
    calls = calls_of(run, tmp_path / "probe", [*words, f"--outdir={tmp_path / 'probe'}"])
    for name in ("training_options.json", "reals.png", "fakes_init.png"):
        outdir = tmp_path / name
        number = calls.index(("write", name))
        with lives.watched(outdir, Failing(number, errno.ENOSPC, once=False)):
            result = run(*words, f"--outdir={outdir}")
        assert result.code == 74
        assert re.search(rf"error: .*/{name}: cannot be written: No space left on device", result.err)
        assert "continue with" not in result.err, "there is no state to go on from"


@pytest.mark.parametrize(("largest", "name"), [(30_000, "network-snapshot-000000.pkl"),
                                               (100_000, "training-state-0000000008.pt.new")])  # fmt: skip
def test_a_file_that_the_system_itself_refuses(
    run: Run, started: Path, tmp_path: Path, largest: int, name: str
) -> None:
    """The same without a stand-in: a limit on the size of files, which torch's own error must not hide."""
    run_dir = Path(shutil.copytree(started, tmp_path / started.name))
    words = one_more_step(run_dir)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest, before[1]))
    try:
        result = run(*words)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert result.code == 74
    cause = f"error: {run_dir / name}: cannot be written: File too large"
    assert f"{cause}; once that is mended, {continue_with(run_dir)}" in result.err
    assert load_state(run_dir, pytest.fail)["nimg"] == 4
    assert run(*words).code == 0, "with the limit gone it goes on"


def test_space_is_looked_at_before_the_run(discs: Path, run: Run, tmp_path: Path, monkeypatch) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage._replace(free=100_000))
    result = run("train", f"--data={discs}", f"--outdir={tmp_path}", "--minutes=0.0001", *ARGS)
    assert result.code == 74
    assert re.search(r": 0\.1 MiB free on this disk, training states need [\d.]+ MiB; make room", result.error_line())


def test_what_a_killed_process_left_is_removed(started: Path, run: Run, tmp_path: Path) -> None:
    """An unfinished state is as large as a state, and runs that are often killed would fill the disk with them."""
    run_dir = Path(shutil.copytree(started, tmp_path / started.name))
    rubbish = [
        ".training-state-0000000008.pt.new.0123abcd.tmp", "training-state-0000000008.pt.new",
        "training-state-0000000012.pt.sha256", ".network-snapshot-000000.pkl.0123abcd.tmp",
    ]  # fmt: skip
    for name in rubbish:
        (run_dir / name).write_bytes(b"x")
    (run_dir / "mine.tmp").write_bytes(b"x")
    assert run("train", f"--continue={run_dir}").code == 0
    assert not [name for name in rubbish if (run_dir / name).exists()]
    assert (run_dir / "mine.tmp").exists()
    assert len(list(run_dir.glob("training-state-*"))) == 2


def test_what_cannot_be_removed_is_named(started: Path, run: Run, tmp_path: Path) -> None:
    """An error of the system that nobody turned into one of ours: the same code in exit.json as from the process."""
    run_dir = Path(shutil.copytree(started, tmp_path / started.name))
    rubbish = run_dir / ".training-state-0000000008.pt.new.0123abcd.tmp"
    rubbish.write_bytes(b"x")

    def before(kind: str, path: str) -> None:
        if (kind, path) == ("unlink", str(rubbish)):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), path)

    with lives.watched(run_dir, before):
        result = run("train", f"--continue={run_dir}")
    assert result.code == json.loads((run_dir / "exit.json").read_text())["exit_code"] == 74
    assert result.error_line() == (
        f"error: {rubbish}: Read-only file system; once that is mended, {continue_with(run_dir)}"
    )
