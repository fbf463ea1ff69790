"""How many processes train on CPUs, where the user leaves it to sg3."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import sg3.cli
from sg3.device import choose_device
from sg3.errors import UsageError
from sg3.train import sharing, spawn
from sg3.train.recipes import options_of, presets
from sg3.train.sharing import shared_out
from tests.helpers.image_files import write_dataset
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
    started: list[tuple[int, list[str]]] = []

    def start(count: int, said: list[str]) -> int:
        started.append((count, said))
        return 0

    monkeypatch.setattr(spawn, "start_processes", start)
    assert sg3.cli._run(words, False) == 0
    ((count, said),) = started
    assert count == 2
    assert {"--gpus=2", "--threads=1", "--workers=1"} <= set(said)
