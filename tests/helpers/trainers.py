"""A trainer and its loop inside the test process, stopped after so many steps, and the state that is left."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from sg3.data.dataset import ImageFolderDataset
from sg3.errors import TrainingStopped
from sg3.processes import World
from sg3.train.config import TrainConfig
from sg3.train.display import Display
from sg3.train.loop import Loop
from sg3.train.state import load_state
from sg3.train.stop import StopSignals
from sg3.train.trainer import Trainer
from sg3.train.watchdog import Watchdog


def new_trainer(config: TrainConfig) -> Trainer:
    dataset = ImageFolderDataset(config.dataset.path, xflip=config.mirror, use_labels=config.cond)
    world = World(0, 1, torch.device("cpu"))
    return Trainer(config, dataset, world, Watchdog(world, 60, lambda *_: None))


class StopAfter(StopSignals):
    """Asks to stop after so many steps; `every_step` is called after each."""

    def __init__(self, steps: int, every_step: Callable[[], object] = lambda: None) -> None:
        super().__init__(World(0, 1, torch.device("cpu")))
        self.steps = steps
        self.every_step = every_step

    def reason(self, step: int) -> str | None:
        self.every_step()
        return "test" if step >= self.steps else None


def run_loop(trainer: Trainer, run_dir: Path, stop: StopSignals) -> None:
    """The loop as `sg3 train` runs it."""
    run_dir.mkdir(exist_ok=True)
    Loop(trainer, run_dir, Display(None), None).run(stop)


def train(config: TrainConfig, run_dir: Path, steps: int) -> dict:
    """Run (or go on) until `steps` steps have been taken in all; returns the saved state."""
    trainer = new_trainer(config)
    if list(run_dir.glob("training-state-*.pt")):
        trainer.load_state_dict(load_state(run_dir, pytest.fail))
    with pytest.raises(TrainingStopped):
        run_loop(trainer, run_dir, StopAfter(steps))
    return load_state(run_dir, pytest.fail)


def comparable(state: dict) -> dict:
    """Without what the clock decides, and the options that may differ."""
    timing = ("seconds", "tick_start_seconds", "config")
    statistics = {
        name: {k: v for k, v in state[name].items() if not k.startswith(("Timing/", "Resources/"))}
        for name in ("stats", "last_tick")
    }  # fmt: skip
    return {**{k: v for k, v in state.items() if k not in timing}, **statistics}
