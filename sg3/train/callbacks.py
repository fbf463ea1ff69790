"""What a Python program hears of its run, and how it asks the run to stop: `sg3.fit(on_tick=..., on_snapshot=...)`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from sg3.run_folder import snapshot_path
from sg3.train.tick import Moment
from sg3.train.trainer import Trainer


@dataclass(frozen=True)
class Event:
    """Where a run is when its callback is called; what it reports of is written and saved by then.

    `statistics` are the means over the tick by their names in stats.jsonl (`Loss/G/loss`, `Timing/sec_per_kimg`, ...),
    `snapshot` is the network file, for `on_snapshot`.
    """

    run_dir: Path
    kimg: float
    tick: int
    statistics: Mapping[str, float]
    snapshot: Path | None
    _ask: Callable[[str], None]

    def stop(self, reason: str = "the program asked for it") -> None:
        """Let the run save its state and end after its next step; `fit` then returns, and the run can continue."""
        self._ask(reason)


@dataclass(frozen=True)
class Callbacks:
    """Called in the first process, the run's main thread. An error in one ends the run, and comes out of `fit`."""

    on_tick: Callable[[Event], object] | None = None
    on_snapshot: Callable[[Event], object] | None = None

    def __bool__(self) -> bool:
        return self.on_tick is not None or self.on_snapshot is not None


NO_CALLBACKS = Callbacks()


class Telling:
    """Calls the callbacks at the end of a tick, after all else. On rank 0."""

    what = "in the program's callback"

    def __init__(self, trainer: Trainer, run_dir: Path, callbacks: Callbacks) -> None:
        self._trainer = trainer
        self._run_dir = run_dir
        self._callbacks = callbacks
        self.asked: str | None = None  # why the program wants the run to stop

    def ask(self, reason: str) -> None:
        """Stop the run. The first wish counts."""
        self.asked = self.asked or reason

    def is_due(self, moment: Moment) -> bool:
        """At the end of a tick."""
        return moment.ends_tick and bool(self._callbacks) and self._trainer.world.is_main

    def run(self, moment: Moment) -> None:
        """Call what was given; a snapshot's callback first, as it is part of the tick."""
        t = self._trainer
        statistics = {name: entry["mean"] for name, entry in t.last_tick.items()}
        # The trainer counts the ticks that are over.
        told = Event(self._run_dir, t.nimg / 1000, t.tick - 1, statistics, None, self.ask)
        if moment.snapshot and self._callbacks.on_snapshot is not None:
            path = snapshot_path(self._run_dir, t.nimg, t.config.dataset.is_plain)
            self._callbacks.on_snapshot(replace(told, snapshot=path))
        if self._callbacks.on_tick is not None:
            self._callbacks.on_tick(told)
