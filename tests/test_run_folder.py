"""A run's folder: names, numbers, one process at a time, and what is dropped and kept."""

from __future__ import annotations

import json
import multiprocessing
import os
from pathlib import Path
from typing import Any

import pytest

import sg3
from sg3 import run_folder
from sg3.errors import DataError, MissingInputError, StorageError, UsageError


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).touch()
    return folder


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_folder_is_discarded_unless_it_holds_something_else(tmp_path: Path) -> None:
    for name in ("empty", "used"):
        (tmp_path / name).mkdir()
        touch(tmp_path / name, "training_options.json", "log.txt", "reals.png", ".lock", ".reals.png.0123abcd.tmp")
    touch(tmp_path / "used", "mine.txt")
    run_folder.discard(tmp_path / "empty")
    run_folder.discard(tmp_path / "used")
    assert names(tmp_path) == ["used"]
    assert names(tmp_path / "used") == ["mine.txt"]


def test_names_that_others_rely_on(tmp_path: Path) -> None:
    """Those of the original, and the numbers' widths."""
    assert run_folder.snapshot_path(tmp_path, 25_000_999).name == "network-snapshot-025000.pkl"
    assert run_folder.fakes_path(tmp_path, 12_000).name == "fakes000012.png"
    assert run_folder.state_path(tmp_path, 12_032).name == "training-state-0000012032.pt"
    assert run_folder.digest_path(run_folder.state_path(tmp_path, 4)).name == "training-state-0000000004.pt.sha256"
    assert run_folder.metric_path(tmp_path, "fid50k_full").name == "metric-fid50k_full.jsonl"
    assert run_folder.failure_path(tmp_path, 8).name == "failure-0000000008.json"
    known = {run_folder.OPTIONS, run_folder.LOG, run_folder.STATS, run_folder.REALS, run_folder.FAKES_INIT}
    assert known == {"training_options.json", "log.txt", "stats.jsonl", "reals.png", "fakes_init.png"}


def test_nowhere_else_are_they_spelt() -> None:
    """Outside docstrings, help texts and comments, where a reader may want to see them."""
    import ast

    package = Path(sg3.__file__).parent
    spelt = ("network-snapshot-", "training-state-", "exit.json", "training_options.json", "stats.jsonl", "log.txt",
             "reals.png", "fakes_init", "best.json", "trace.json")  # fmt: skip
    for path in package.rglob("*.py"):
        if path.name == "run_folder.py" or "compat" in path.parts or "cli" in path.parts:
            continue
        tree = ast.parse(path.read_text())
        docs = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs:
                assert not any(word in node.value for word in spelt), f"{path}:{node.lineno}: {node.value}"


def test_runs_are_numbered(tmp_path: Path) -> None:
    outdir = tmp_path / "runs"
    assert run_folder.create(outdir, "a").name == "00000-a"
    (outdir / "00007").mkdir()
    (outdir / "123456-no-run").mkdir()
    assert run_folder.create(outdir, "b").name == "00008-b"
    (outdir / "file").touch()
    with pytest.raises(StorageError, match="cannot create a run folder there"):
        run_folder.create(outdir / "file", "c")


def test_finding_a_run(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match="holds no run"):
        run_folder.find_run("latest", tmp_path)
    for name in ("00001-a", "00002-b", "00010-c"):
        (tmp_path / name).mkdir()
    touch(tmp_path / "00001-a", run_folder.OPTIONS)
    touch(tmp_path / "00002-b", run_folder.OPTIONS)
    with pytest.raises(MissingInputError, match=r"no run in .* has a training state to go on from"):
        run_folder.find_run("latest", tmp_path)
    passed_over: list[Path] = []
    touch(tmp_path / "00001-a", "training-state-0000000004.pt")
    assert run_folder.find_run("latest", tmp_path, passed_over.append).name == "00001-a"
    assert [folder.name for folder in passed_over] == ["00002-b"]  # the third one holds no run
    touch(tmp_path / "00002-b", "training-state-0000000004.pt")
    assert run_folder.find_run("latest", tmp_path).name == "00002-b"
    assert run_folder.find_run(str(tmp_path / "00001-a"), None) == tmp_path / "00001-a"
    with pytest.raises(UsageError, match="needs --outdir"):
        run_folder.find_run("latest", None)
    with pytest.raises(MissingInputError, match="there is no such folder"):
        run_folder.find_run(str(tmp_path / "x"), None)


def test_a_folder_of_runs_is_none_itself(tmp_path: Path) -> None:
    for number, files in (("00000-a", ["network-snapshot-000000.pkl"]), ("00001-b", [])):
        (tmp_path / number).mkdir()
        touch(tmp_path / number, "training_options.json", *files)
    with pytest.raises(MissingInputError, match=r"; name one of the runs in it, such as .*00000-a$"):
        run_folder.newest_snapshot(tmp_path)
    with pytest.raises(MissingInputError, match=r"is not a run folder.*; name one of the runs in it, such as .*1-b$"):
        run_folder.read_options(tmp_path)
    with pytest.raises(MissingInputError, match=r"; name a run folder, which has some, or a network file$"):
        run_folder.newest_snapshot(tmp_path / "00001-b")


def test_snapshots_go_by_their_numbers(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match=r"holds no network-snapshot-\*\.pkl"):
        run_folder.newest_snapshot(tmp_path)
    numbers = ("000000", "000100", "1000000", "999999")
    touch(tmp_path, *(f"network-snapshot-{n}.pkl" for n in numbers), "network-snapshot-best.pkl",
          ".network-snapshot-000200.pkl.ab.tmp")  # fmt: skip
    assert [run_folder.kimg_of(path.name) for path in run_folder.snapshots(tmp_path)] == [0, 100, 999999, 1000000]
    assert run_folder.newest_snapshot(tmp_path).name == "network-snapshot-1000000.pkl"
    assert run_folder.kimg_of("other.pkl") is run_folder.kimg_of(None) is None
    run_folder.drop_snapshots(tmp_path, 1, besides={"network-snapshot-000100.pkl"})
    kept = [path.name for path in run_folder.snapshots(tmp_path)]
    assert kept == ["network-snapshot-000100.pkl", "network-snapshot-1000000.pkl"]


def test_a_run_that_went_on_from_its_newest_snapshot(tmp_path: Path) -> None:
    touch(tmp_path, "network-snapshot-000012.pkl", "training-state-0000012032.pt")
    snapshot = run_folder.newest_snapshot(tmp_path)
    assert run_folder.going_on(snapshot) is None
    touch(tmp_path, "training-state-0000013500.pt", "training-state-0000013500.pt.sha256", "training-state-x.pt")
    (tmp_path / "training-state-0000099999.pt").mkdir()
    assert run_folder.going_on(snapshot) == "the run went on to 13.50 kimg; this network, its newest, is of 12 kimg"


def test_states_and_metrics(tmp_path: Path) -> None:
    touch(tmp_path, "training-state-0000000004.pt", "training-state-0000000012.pt",
          "training-state-0000000012.pt.sha256", "metric-is50k.jsonl", "metric-fid50k_full.jsonl")  # fmt: skip
    assert [path.name[-5:] for path in run_folder.states(tmp_path)] == ["12.pt", "04.pt"]
    assert run_folder.metric_names(tmp_path) == ["fid50k_full", "is50k"]


def test_lines_survive_a_crash(tmp_path: Path) -> None:
    path = tmp_path / "stats.jsonl"
    assert list(run_folder.read_lines(path)) == []
    run_folder.keep_lines(path, lambda _: True)
    assert not path.exists()
    run_folder.append_line(path, '{"n": 1}')
    path.write_text(path.read_text() + '{"n": ')  # the crash
    run_folder.append_line(path, '{"n": 2}')
    path.write_bytes(path.read_bytes() + b'[3]\n{"n": 3}\n{"n": 4, "\xff')
    assert [line["n"] for line in run_folder.read_lines(path)] == [1, 2, 3]
    assert next(run_folder.read_lines(path, newest_first=True)) == {"n": 3}
    run_folder.keep_lines(path, lambda line: line["n"] != 2)
    assert path.read_text() == '{"n": 1}\n{"n": 3}\n'
    with pytest.raises(StorageError, match=r"none/stats\.jsonl: cannot be written: No such file"):
        run_folder.append_line(tmp_path / "none" / "stats.jsonl", "{}")


def test_options_that_are_not_there_or_damaged(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match=r"is not a run folder, it has no training_options\.json"):
        run_folder.read_options(tmp_path)
    for damaged in ('{"config": ', "[1]", ""):
        (tmp_path / run_folder.OPTIONS).write_text(damaged)
        with pytest.raises(DataError, match="is not a JSON object; the run is damaged"):
            run_folder.read_options(tmp_path)
    (tmp_path / run_folder.OPTIONS).write_text(json.dumps({"config": {}}))
    assert run_folder.read_options(tmp_path) == {"config": {}}


def _try_to_lock(folder: Path, answer) -> None:
    try:
        with run_folder.locked(folder):
            answer.put("locked")
    except UsageError as error:
        answer.put(str(error))


def test_one_process_at_a_time(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    answer = context.Queue()

    def other() -> str:
        process = context.Process(target=_try_to_lock, args=(tmp_path, answer))
        process.start()
        said = answer.get(timeout=30)
        process.join(30)
        return said

    with run_folder.locked(tmp_path):
        assert "another process is training there (process " in other()
    assert other() == "locked"


@pytest.mark.parametrize("name", [run_folder.LOG, "stats.jsonl", run_folder.OPTIONS, "metric-fid50k_full.jsonl"])
def test_a_pipe_in_place_of_a_file_is_not_waited_for(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(DataError, match=f"{name}: is no file, but a device or a pipe; remove it"):
        run_folder.locked(tmp_path).__enter__()


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    good = ["training-state-0000000004.pt", "training-state-0000000004.pt.sha256", "mine.tmp", "log.txt"]
    touch(tmp_path, *good, ".training-state-0000000008.pt.new.01ab.tmp", "training-state-0000000008.pt.new",
          "training-state-0000000008.pt.sha256", ".network-snapshot-000000.pkl.01ab.tmp")  # fmt: skip
    run_folder.remove_unfinished(tmp_path)
    assert names(tmp_path) == sorted(good)


@pytest.mark.parametrize("make", [os.symlink, os.link])
def test_a_lock_that_is_a_link_empties_no_other_file(make: Any, tmp_path: Path) -> None:
    victim, folder = tmp_path / "victim", tmp_path / "run"
    victim.write_text("precious")
    folder.mkdir()
    make(victim, folder / ".lock")
    with pytest.raises(StorageError, match=r"\.lock: is a .*; remove it"), run_folder.locked(folder):
        pass
    assert victim.read_text() == "precious"
