"""How many processes train on CPUs, where the user leaves it to sg3."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import sg3.cli
from sg3.device import choose_device
from sg3.errors import UsageError
from sg3.resources import usable_cpus
from sg3.train import launch, sharing, spawn
from sg3.train.launch import CHOSEN, read_run, start
from sg3.train.recipes import options_of, presets
from sg3.train.sharing import shared_out
from tests.helpers.image_files import write_dataset
from tests.helpers.runs import TINY_ARGS, tiny_options
from tests.helpers.tiny_systems import ARGS

GIB = 2**30


@pytest.fixture
def machine(monkeypatch) -> Any:
    """A machine without a GPU, with so many CPUs, of which others leave so many, and so much memory."""

    def made(cpus: int, left: int | None = None, memory: int | None = 64 * GIB) -> None:
        monkeypatch.setattr(sharing, "most_threads", lambda: cpus)
        monkeypatch.setattr(sharing, "threads_left", lambda: cpus if left is None else left)
        monkeypatch.setattr(sharing, "memory", lambda: None if memory is None else (memory, memory // 2))

    monkeypatch.setattr(sharing, "choose_device", lambda name: choose_device("cpu" if name == "auto" else name))
    return made


def shares(**said: Any) -> tuple[int | None, int | None, int | None]:
    """Processes, threads and loaders of each."""
    options = shared_out(options_of({"cfg": "stylegan2", "batch": 16, **said}))
    return options.gpus, options.threads, options.workers


@pytest.mark.parametrize(
    ("cpus", "left", "said", "expected"),
    [
        (1, 1, {}, (None, None, None)),
        (2, 2, {}, (2, 1, 1)),
        (2, 1, {}, (2, 1, 1)),  # processes of one thread need no CPU of their own
        (3, 3, {}, (2, 1, 1)),  # three do not divide the batch
        (4, 2, {}, (4, 1, 1)),
        (16, 16, {}, (4, 4, 1)),
        (16, 9, {}, (4, 2, 1)),
        (16, 2, {}, (4, 1, 1)),
        (16, 16, {"batch": 12}, (3, 5, 1)),
        (16, 16, {"batch": 8}, (2, 8, 1)),  # four images each
        (4, 4, {"batch": 4}, (None, None, None)),
        (4, 4, {"batch": 7}, (None, None, None)),
        (4, 4, {"mbstd_group": 8}, (2, 2, 1)),
        (4, 4, {"mbstd_group": 16}, (None, None, None)),
        (4, 4, {"batch_gpu": 8}, (2, 2, 1)),
        (4, 4, {"batch_gpu": 4}, (4, 1, 1)),
        (4, 4, {"cfg": "r3gan"}, (4, 1, 1)),
        (4, 4, {"cfg": "fastgan"}, (None, None, None)),  # whose batch normalisation looks at the whole batch
        (4, 4, {"workers": 0}, (4, 1, 0)),
        (4, 4, {"gpus": 1}, (1, None, None)),
        (4, 4, {"threads": 2}, (None, 2, None)),
    ],
)
def test_shares(machine: Any, cpus: int, left: int, said: dict[str, Any], expected: tuple[int, int, int]) -> None:
    machine(cpus, left)
    assert shares(**said) == expected


@pytest.mark.parametrize(("memory", "expected"), [(3 * GIB, None), (7 * GIB, 2), (8 * GIB, 4), (None, 4)])
def test_each_needs_memory(machine: Any, memory: int | None, expected: int | None) -> None:
    machine(4, memory=memory)
    assert shares()[0] == expected


def test_a_process_among_others_stays_one(machine: Any, monkeypatch) -> None:
    machine(4)
    monkeypatch.setenv("SG3_THREADS", "all")
    assert shares()[0] is None
    monkeypatch.delenv("SG3_THREADS")
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert shares()[0] is None


@pytest.mark.skipif(torch.cuda.is_available(), reason="looks for a GPU that is not there")
def test_a_gpu_that_is_asked_for_is_missed_elsewhere(machine: Any) -> None:
    machine(4)
    with pytest.raises(UsageError, match="--device=cuda"):
        shares(device="cuda")


def test_the_demos_can_be_shared_out(machine: Any) -> None:
    machine(2)
    for name in ("demo", "demo-stylegan3", "demo-r3gan"):
        assert shared_out(presets()[name].options).gpus == 2, name


def test_the_command_says_and_does_it(machine: Any, monkeypatch, capsys, tmp_path: Path) -> None:
    """In the plan, and to the processes that it starts."""
    machine(2)
    data = write_dataset(tmp_path / "discs.zip", size=16)
    words = ["train", f"--outdir={tmp_path}", f"--data={data}", *ARGS["r3gan"], "--batch=8"]
    words = [word for word in words if not word.startswith(("--batch-gpu", "--workers", "--gpus", "--threads"))]
    assert sg3.cli._run([*words, "--dry-run"], False) == 0
    plan = json.loads(capsys.readouterr().out.partition("Options")[0])
    assert (plan["gpus"], plan["threads"], plan["batch_gpu"], plan["workers"]) == (2, 1, 4, 1)
    started: list[tuple[int, list[str], str]] = []

    def start(count: int, said: list[str]) -> int:
        started.append((count, said, os.environ[CHOSEN]))
        return 0

    monkeypatch.setattr(spawn, "start_processes", start)
    assert sg3.cli._run(words, False) == 0
    assert sg3.cli._run([*words, "--workers=2"], False) == 0
    assert sg3.cli._run([*words, "--gpus=2"], False) == 0
    assert CHOSEN not in os.environ
    assert [count for count, _, _ in started] == [2, 2, 2]
    assert {"--gpus=2", "--threads=1", "--workers=1"} <= set(started[0][1])
    assert [chosen for _, _, chosen in started] == ["gpus,threads,workers", "gpus,threads", ""]


def test_what_was_chosen_for_cpus_is_left_behind_on_a_gpu(discs: Path, tmp_path: Path, monkeypatch) -> None:
    """Both for the run that continues and for one that takes up its options; what the user has said stays."""
    monkeypatch.setenv(CHOSEN, "gpus,threads,workers")
    run_dir = start(tiny_options(discs, gpus=1, threads=1, workers=0, minutes=0.0001), tmp_path)
    monkeypatch.delenv(CHOSEN)
    file = run_dir / "training_options.json"
    record = json.loads(file.read_text())
    assert not {"gpus", "threads", "workers"} & set(record["options"])
    record["config"] |= {"gpus": 2, "batch_gpu": 2, "workers": 1}  # as rank 0 of two processes leaves it
    file.write_text(json.dumps(record))

    counts = []
    monkeypatch.setattr(spawn, "start_processes", lambda count, _: counts.append(count) or 0)
    run, longer = str(run_dir), {"minutes": 0.0002}
    if not torch.cuda.is_available():
        spawn.run_on(run, None, longer)
        assert counts == [2]  # here it goes on as it was
    monkeypatch.setattr(spawn, "can_share", lambda device: False)
    spawn.run_on(run, None, {**longer, "gpus": 3})
    assert counts[-1] == 3
    file.write_text(json.dumps({**record, "config": {**record["config"], "chosen": []}}))
    spawn.run_on(run, None, longer)
    assert counts[-1] == 2  # which the user has said
    file.write_text(json.dumps(record))

    monkeypatch.setattr(launch, "loaders", lambda: 0)
    assert spawn.run_on(run, None, longer).code == 0
    config, _ = read_run(run_dir)
    assert (config.gpus, config.batch_gpu, config.workers, config.chosen, config.minutes) == (1, 2, 0, (), 0.0002)
    log = (run_dir / "log.txt").read_text()
    assert "changed: --gpus 2 -> 1 (sums are taken in another order, which changes their rounding)" in log
    assert "changed: --workers 1 -> 0" in log


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="begins where there is no GPU")
def test_a_run_moves_from_two_processes_to_one(discs: Path, tmp_path: Path, monkeypatch) -> None:
    """Begun by the command itself, with nothing said; continued as it is where there is a GPU."""
    if usable_cpus() < 2 or not sharing.can_share("cpu"):
        pytest.skip("this machine trains in one process")
    args = [word for word in TINY_ARGS if not word.startswith(("--batch=", "--workers", "--device"))]
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}

    def train(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "sg3", "train", *words]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        assert done.returncode == 0, done.stderr
        return done

    run_dir = Path(train(f"--outdir={tmp_path}", f"--data={discs}", *args, "--batch=200", "--kimg=1").stdout.strip())
    assert read_run(run_dir)[0].chosen == ("gpus", "threads", "workers")
    done = train(f"--continue={run_dir}", "--kimg=2")
    assert read_run(run_dir)[0].gpus == 2
    assert "changed: --gpus" not in done.stderr
    monkeypatch.setattr(spawn, "can_share", lambda device: False)
    assert spawn.run_on(str(run_dir), None, {"kimg": 3}).code == 0
    config, _ = read_run(run_dir)
    assert (config.gpus, config.batch_gpu, config.chosen) == (1, 100, ())
    assert "finished at 3.00 kimg" in (run_dir / "log.txt").read_text()
