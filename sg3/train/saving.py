"""When a training state is saved: with every snapshot, when the last one is long ago, and when the run has to stop."""

from __future__ import annotations

import time
from pathlib import Path
from types import TracebackType

from sg3.train.state import StateWriter
from sg3.train.tick import Moment
from sg3.train.trainer import Trainer

STATE_MINUTES = 15  # between two states at most


class Saving:
    """Saves the trainer's state in the background; a context that lets a begun one be completed."""

    what = "saving the state"

    def __init__(self, trainer: Trainer, run_dir: Path) -> None:
        self._trainer = trainer
        self._writer = StateWriter(run_dir)
        self._last = time.monotonic()

    def __enter__(self) -> Saving:
        self._writer.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._writer.__exit__(kind, error, tb)

    def is_overdue(self, now: float) -> bool:
        """Whether the last state is long ago, by this rank's clock."""
        return now - self._last > STATE_MINUTES * 60

    def is_due(self, moment: Moment) -> bool:
        """With every snapshot, and where `is_overdue` of rank 0 asks for it."""
        return moment.snapshot or moment.state

    def run(self, moment: Moment) -> None:
        """Begin to save."""
        self.save()

    def save(self) -> None:
        """Begin to save the state of now. All ranks call it, rank 0 writes."""
        state = self._trainer.state_dict()
        if self._trainer.world.is_main:
            self._writer.save(state)
        self._last = time.monotonic()

    def finish(self) -> None:
        """Wait until the last state is in place. Raises what went wrong with it."""
        self._writer.finish()

    def raise_if_failed(self) -> None:
        """Raises what went wrong in the background, if anything has; does not wait."""
        self._writer.raise_if_failed()
