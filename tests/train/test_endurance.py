"""Runs that take long, and damage by the thousand."""

from __future__ import annotations

import json
import os
import random
import resource
from pathlib import Path

import pytest

from sg3.device import choose_device
from sg3.errors import TrainingStopped
from sg3.train.config import TrainConfig
from sg3.train.state import load_state, save_state
from tests.helpers import lives
from tests.helpers.runs import tiny_config
from tests.helpers.trainers import StopAfter, new_trainer, run_loop

MIB = 2**20


def count_steps(config: TrainConfig, folder: Path, steps: int, every: int) -> None:
    """Train, and write down this process's memory in bytes and its open files now and then: usage.json."""
    choose_device("cpu")  # with what it asks of the allocator
    trainer = new_trainer(config)
    usage: list[tuple[int, int, int]] = []

    def note() -> None:
        if trainer.step % every == 0:
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            usage.append((trainer.step, pages * resource.getpagesize(), len(os.listdir("/proc/self/fd"))))

    try:
        run_loop(trainer, folder, StopAfter(steps, note))
    except TrainingStopped:
        (folder / "usage.json").write_text(json.dumps(usage))


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_5000_steps_take_no_more_than_500(discs: Path, tmp_path: Path) -> None:
    """Memory and open files, with ten ticks and their snapshots and states."""
    config = tiny_config(discs, layers=3, batch=2, kimg=1000, keep_snapshots=2, aug="ada")
    process = lives.begin(count_steps, config, tmp_path / "run", 5000, 100)
    process.join(3500)
    process.kill()
    usage = json.loads((tmp_path / "run" / "usage.json").read_text())
    settled = [entry for entry in usage if entry[0] >= 500]
    growth = max(memory for _, memory, _ in settled) - settled[0][1]
    print(f"memory {settled[0][1] / MIB:.1f} MiB after 500 steps, at most {growth / MIB:.2f} MiB more until 5000")
    assert growth < 20e6
    assert len({files for _, _, files in settled}) == 1
    assert len(list((tmp_path / "run").glob("*.pkl"))) == 2


@pytest.mark.slow
def test_1000_truncations_and_1000_flipped_bits(discs: Path, tmp_path: Path) -> None:
    """Of a real state; each is noticed, and the one before is used."""
    trainer = new_trainer(tiny_config(discs, layers=3))
    save_state(tmp_path, trainer.state_dict())
    trainer.nimg = 4
    newest = save_state(tmp_path, trainer.state_dict())
    good = newest.read_bytes()
    rng = random.Random(0)
    for place in rng.sample(range(len(good)), 1000):
        newest.write_bytes(good[:place])
        expect_the_one_before(newest)
    for place in rng.sample(range(len(good)), 1000):
        damaged = bytearray(good)
        damaged[place] ^= 1 << rng.randrange(8)
        newest.write_bytes(damaged)
        expect_the_one_before(newest)


def expect_the_one_before(newest: Path) -> None:
    said: list[str] = []
    assert load_state(newest.parent, said.append)["nimg"] == 0
    assert said == [f"{newest}: damaged or incomplete (its SHA-256 does not match); trying the one before"]
