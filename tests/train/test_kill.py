"""kill -9 at any instant: the newest state is complete, at most the one being written is lost, and the run that
continues ends bit for bit where the undisturbed one ends."""

from __future__ import annotations

import random
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from sg3.run_folder import STATES
from sg3.train.config import TrainConfig
from sg3.train.state import load_state
from tests.helpers import lives, tiny_systems
from tests.helpers.compare import assert_same
from tests.helpers.runs import tiny_config
from tests.helpers.trainers import comparable

POINTS = ("open", "write", "fsync", "rename")


@pytest.fixture
def config(discs: Path) -> TrainConfig:
    return tiny_config(discs, cfg="stylegan3-t", layers=3, kimg=1000, mirror=True)


OTHERS = [name for name in tiny_systems.NAMES if name != "stylegan3-t"]


class Run:
    """A run that lives more than once."""

    def __init__(self, config: TrainConfig, folder: Path) -> None:
        folder.mkdir()
        self.config = config
        self.folder = folder
        self.begun = lives.context.RawValue("q", 0)

    def newest(self) -> int:
        """Images up to the newest state, 0 without one. Fails if any state is damaged."""
        if not list(self.folder.glob(STATES)):
            return 0
        return int(load_state(self.folder, pytest.fail)["nimg"])

    def live(self, steps: int = 10**9, kind: str = "", number: int = 0) -> int | None:
        """One life, to its own end or to the call of that kind with that number. Returns the exit code."""
        process = lives.begin(lives.live, self.config, self.folder, self.begun, steps, kind, number)
        process.join(600)
        return self.bury(process)

    def live_for(self, saves: int, seconds: float) -> None:
        """One life, killed so many seconds after it began to save for the `saves`-th time."""
        process = lives.begin(lives.live, self.config, self.folder, self.begun, 10**9)
        goal = self.newest() + saves * self.config.batch
        lives.wait_for(lambda: self.begun.value >= goal or saves == 0, process, seconds=300)
        process.join(seconds)
        assert self.bury(process) == -9

    def bury(self, process: BaseProcess) -> int | None:
        """End a life and check what it leaves behind. Returns its exit code."""
        process.kill()
        process.join()
        lost = self.begun.value - self.newest()
        assert lost <= self.config.batch, f"{lost} images, saved at every {self.config.batch}"
        return process.exitcode


def finish(run: Run, tmp_path: Path) -> None:
    """Some more steps in peace, and the comparison with a run that had nothing but peace."""
    steps = run.newest() // run.config.batch + 3
    assert run.live(steps) == 0
    whole = Run(run.config, tmp_path / "whole")
    assert whole.live(steps) == 0
    one, two = (load_state(r.folder, pytest.fail) for r in (whole, run))
    assert one["step"] == two["step"] == steps
    assert_same(comparable(one), comparable(two))


def killed_at_some_instants(config: TrainConfig, tmp_path: Path) -> None:
    rng = random.Random(0)
    run = Run(config, tmp_path / "run")
    assert run.live(steps=2) == 0
    for _ in range(4):
        run.live_for(rng.randrange(4), rng.uniform(0, 0.1))
    for kind in ("fsync", "rename"):
        assert run.live(kind=kind, number=rng.randrange(3, 9)) == -9
    finish(run, tmp_path)


def test_killed_at_some_instants(config: TrainConfig, tmp_path: Path) -> None:
    killed_at_some_instants(config, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", OTHERS)
def test_other_systems_killed_at_some_instants(tmp_path: Path, name: str) -> None:
    killed_at_some_instants(tiny_systems.config_of(name, tmp_path, kimg=1000, mirror=True), tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_half_precision_killed_at_some_instants(discs: Path, tmp_path: Path) -> None:
    """Float16 everywhere, and factors that overflow from the first step on."""
    dynamic = {"g_scaler": "dynamic", "d_scaler": "dynamic", "loss_scale": 2**24}
    config = tiny_config(discs, cfg="stylegan2", kimg=1000, amp="global", amp_on_cpu=True, **dynamic)
    killed_at_some_instants(config, tmp_path)
    scalers = load_state(tmp_path / "run", pytest.fail)["scalers"]
    assert all(1 < scaler["scale"] < 2**24 for scaler in scalers.values())


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_killed_at_200_instants(config: TrainConfig, tmp_path: Path) -> None:
    rng = random.Random(1)
    run = Run(config, tmp_path / "run")
    reached = []
    for _ in range(200):
        run.live_for(rng.randrange(4), rng.uniform(0, 0.1))
        reached.append(run.newest())
    assert len(set(reached)) > 100, "most lives got somewhere"
    finish(run, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("kind", POINTS)
def test_killed_at_each_call(config: TrainConfig, tmp_path: Path, kind: str) -> None:
    """The first 25 calls of each kind: five states, with statistics, images and the first snapshot among them."""
    run = Run(config, tmp_path / "run")
    for number in range(1, 26):
        assert run.live(kind=kind, number=number) == -9
    finish(run, tmp_path)
