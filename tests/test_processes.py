"""Processes find each other, exchange, fail together; and what one alone does of it."""

from __future__ import annotations

import json
import multiprocessing
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import sg3.local_ranks
import sg3.processes
from sg3.errors import DataError, Sg3Error, UsageError
from sg3.processes import Place, Stopped, World, already_met, find_place, join, meet_in, slurm_address

CPU = torch.device("cpu")


def test_who_started_this_process() -> None:
    assert find_place({}) is None
    assert find_place({"RANK": "3", "WORLD_SIZE": "8", "LOCAL_RANK": "1"}) == Place(3, 8, 1)
    slurm = {"SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "16", "SLURM_PROCID": "9", "SLURM_LOCALID": "1"}
    assert find_place(slurm) == Place(9, 16, 1)
    assert find_place({"SLURM_PROCID": "0", "SLURM_NTASKS": "16"}) is None, "sbatch's own shell is one process"
    with pytest.raises(UsageError, match="RANK='x', WORLD_SIZE='8'"):
        find_place({"RANK": "x", "WORLD_SIZE": "8"})
    with pytest.raises(UsageError, match="RANK='8'"):
        find_place({"RANK": "8", "WORLD_SIZE": "8"})


@pytest.mark.parametrize(
    ("nodes", "host"),
    [("n1", "n1"), ("gpu[003-007,9]", "gpu003"), ("a,b", "a"), ("rack1-n[12,15]-ib", "rack1-n12-ib")],
)
def test_slurm_meets_on_the_first_node(nodes: str, host: str) -> None:
    assert slurm_address({"SLURM_STEP_NODELIST": nodes, "SLURM_JOB_ID": "20007"}) == (host, "12007")
    assert slurm_address({"SLURM_STEP_NODELIST": nodes, "MASTER_ADDR": "x", "MASTER_PORT": "1"}) == ("x", "1")


def test_number_of_gpus_must_match_the_processes(monkeypatch) -> None:
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match="--gpus=4: 2 processes were started"):
        join("cpu", 4)


# ---- exchange -------------------------------------------------------------------------------------------------------


def caught(work) -> list[str]:
    """The exception of `work`, in words."""
    try:
        work()
    except BaseException as error:
        return [type(error).__name__, str(error)]
    return []


def raising(error: Exception, rank: int, world: World):
    """Work that fails in one of the processes."""

    def work() -> str:
        if world.rank == rank:
            raise error
        return "done"

    return work


def exchange(rank: int, folder: Path) -> None:
    """One of two processes; writes what it has seen."""
    torch.set_num_threads(1)
    world = meet_in(folder, rank, 2, CPU)
    both = already_met(CPU)
    pending = torch.tensor([rank + 1.0])
    world.begin_to_add_up(pending).wait()
    rows = world.in_order(torch.tensor([[10.0 * rank]] * (rank + 1)), torch.tensor([[1], [2, 0]][rank]), 3)
    seen = {
        "met": [both.rank, both.size],
        "mine": list(world.mine(range(5))),
        "sum": world.add_up(torch.tensor(rank + 1.0)).item(),
        "pending": pending.item(),
        "gathered": world.gather(rank),
        "as main": world.as_main(rank == 0, rank == 1),
        "rows": None if rows is None else rows.flatten().tolist(),
        "together": world.together(lambda: rank),
        "one fails": caught(lambda: world.together(raising(DataError("broken"), 1, world))),
        "unknown": caught(lambda: world.together(raising(LookupError("x"), 0, world))),
        "stopped": caught(lambda: world.together(raising(Stopped(), 1, world))),
        "on main": world.on_main(lambda: f"from {rank}"),
        "main fails": caught(lambda: world.on_main(raising(DataError("broken"), 0, world))),
        "told once": caught(lambda: world.on_main(raising(DataError("broken"), 0, world), told_once=True)),
        "bug told once": caught(lambda: world.on_main(raising(LookupError("x"), 0, world), told_once=True)),
    }
    (folder / f"{rank}.json").write_text(json.dumps(seen))
    world.close()


def test_two_processes(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=exchange, args=(rank, tmp_path)) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    main, other = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    assert (main["met"], other["met"]) == ([0, 2], [1, 2])
    assert (main["mine"], other["mine"]) == ([0, 2, 4], [1, 3])
    assert (main["together"], other["together"]) == (0, 1)
    assert (main["rows"], other["rows"]) == ([10, 0, 10], None)
    for name, value in {"sum": 3, "pending": 3, "gathered": [0, 1], "as main": [True, False], "on main": "from 0",
                        "one fails": ["DataError", "broken"], "stopped": ["Stopped", ""],
                        "main fails": ["DataError", "broken"]}.items():  # fmt: skip
        assert main[name] == other[name] == value, name
    assert main["unknown"] == ["LookupError", "x"]
    assert other["unknown"] == ["Sg3Error", "LookupError in another process: x"]
    assert (main["told once"], other["told once"]) == (["DataError", "broken"], ["SystemExit", "65"])
    assert (main["bug told once"], other["bug told once"]) == (["LookupError", "x"], ["SystemExit", "70"])


def test_one_that_waits_for_the_others_says_so(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    place = {"RANK": 0, "LOCAL_RANK": 0, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    for name, value in place.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setattr(sg3.processes, "SAY_SECONDS", 0.1)
    monkeypatch.setattr(sg3.processes, "CONNECT_SECONDS", 2)
    with pytest.raises(Sg3Error, match=f"rank 0 of 2: cannot meet the others at 127.0.0.1:{port}"):
        join("cpu", None)
    assert capsys.readouterr().err == f"rank 0 of 2: waiting for the others at 127.0.0.1:{port}, 2 s at most\n"


def test_one_whose_launcher_has_died_ends() -> None:
    """Before the processes have met, for which they wait where the launcher was."""
    place = {"RANK": 0, "LOCAL_RANK": 0, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": 9}
    code = "import sg3.processes as p; p.LAUNCHER_SECONDS = 0.1; p.join('cpu', None)"
    environment = {**os.environ, **{name: str(value) for name, value in place.items()}, sg3.local_ranks.LAUNCHER: "0"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (70, "error: the process that started the others died; start again\n")


def test_one_alone_exchanges_nothing() -> None:
    world = already_met(CPU)
    assert (world.rank, world.size, world.store, world.is_main) == (0, 1, None, True)
    assert list(world.mine(range(3))) == [0, 1, 2]
    assert world.gather("x") == ["x"]
    assert world.as_main(True, False) == [True, False]
    assert world.in_order(torch.tensor([5.0, 6.0]), torch.tensor([1, 0]), 2).tolist() == [6, 5]
    for run in (world.together, world.on_main):
        assert run(lambda: 7) == 7
        with pytest.raises(LookupError):
            run(raising(LookupError("x"), 0, world))
    world.close()


@pytest.mark.parametrize("module", ["train", "metrics", "cli", "data", "formats", "models", "tools"])
def test_no_other_module_knows_torch_distributed(module: str) -> None:
    for path in (Path(sg3.processes.__file__).parent / module).rglob("*.py"):
        assert "torch.distributed" not in path.read_text().replace("torch.distributed group", ""), path
