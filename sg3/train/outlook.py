"""How much of a run is done and how long the rest will take: by images or by time, whichever comes first."""

from __future__ import annotations

from collections import deque
from math import ceil

from sg3.durations import format_time_brief
from sg3.train.config import TrainConfig
from sg3.train.trainer import Trainer

STEPS = 64  # over which speed is measured


class Outlook:
    """Looks at a trainer's counters. `--minutes` counts training alone; what the ends of ticks take, the saving and
    measuring of snapshots, is added as the last ones of their kind took it."""

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer
        self._config: TrainConfig = trainer.config
        self._recent: deque[tuple[float, int]] = deque(maxlen=STEPS)  # (seconds of training, images)
        self._tick_seconds = 0.0  # the end of a tick
        self._snapshot_seconds = 0.0  # of one with a snapshot

    def step_done(self) -> None:
        """Note how far training has come."""
        self._recent.append((self._trainer.seconds, self._trainer.nimg))

    def tick_took(self, seconds: float, with_snapshot: bool) -> None:
        """Note what the end of a tick took."""
        if with_snapshot:
            self._snapshot_seconds = seconds
        else:
            self._tick_seconds = seconds

    def speed(self) -> float:
        """Images per second of training, over the last steps."""
        if len(self._recent) < 2:
            return 0.0
        (t0, n0), (t1, n1) = self._recent[0], self._recent[-1]
        return (n1 - n0) / max(t1 - t0, 1e-9)

    def share(self) -> float:
        """How much of the run is done, 0 to 1."""
        return min(max(self._shares()), 1.0)

    def _shares(self) -> tuple[float, float]:
        by_images = self._trainer.nimg / (self._config.kimg * 1000)
        return by_images, self._trainer.seconds / (self._config.minutes * 60) if self._config.minutes else 0.0

    def in_words(self) -> str:
        """What is done of what is asked for, in the unit that will end the run."""
        t, c = self._trainer, self._config
        by_images, by_time = self._shares()
        if c.minutes is not None and by_time > by_images:
            return f"{t.nimg / 1000:.2f} kimg, {format_time_brief(t.seconds)} / {format_time_brief(c.minutes * 60)}"
        return f"{t.nimg / 1000:.2f} / {c.kimg:g} kimg"

    def remaining(self, snapshot_is_due: bool = False) -> float:
        """Seconds until the run's end, infinity where that cannot be known yet; with the snapshot that is due now."""
        t, c = self._trainer, self._config
        speed = self.speed()
        by_time = float("inf") if c.minutes is None else c.minutes * 60 - t.seconds
        if not speed:
            return max(by_time, 0.0)
        training = max(min((c.kimg * 1000 - t.nimg) / speed, by_time), 0.0)
        ends = max(ceil((t.nimg + training * speed - t.tick_start_nimg) / (c.tick * 1000)), 1)
        # Ticks t.tick ... t.tick + ends - 1: every snap-th has a snapshot, and the last one.
        snapshots = (t.tick + ends - 2) // c.snap - (t.tick - 1) // c.snap + 1
        plain = ends - snapshots
        return training + plain * self._tick_seconds + (snapshots + snapshot_is_due) * self._snapshot_seconds
