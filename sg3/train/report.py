"""What a run says while it goes on: the live line on a terminal, and at the end of a tick its statistics."""

from __future__ import annotations

from pathlib import Path

from sg3.train.display import Display
from sg3.train.log import StatsWriter, Tick, memory_usage
from sg3.train.tick import Moment
from sg3.train.trainer import Trainer


class LiveLine:
    """Progress and losses below the messages, where somebody looks at a terminal."""

    def __init__(self, trainer: Trainer, display: Display) -> None:
        self._trainer = trainer
        self._display = display
        self._shown = 0.0

    def is_due(self, moment: Moment) -> bool:
        """Once a second: reading losses waits for the device."""
        return self._display.is_live and moment.now - self._shown > 1

    def run(self, moment: Moment) -> None:
        """Show it anew."""
        self._shown = moment.now
        losses = {name: self._trainer.stats.mean(f"Loss/{name}/loss") for name in "GD"}
        self._display.progress(self._trainer.nimg, losses)


class TickReport:
    """Statistics in stats.jsonl and one status line, for each tick."""

    def __init__(self, trainer: Trainer, run_dir: Path, display: Display) -> None:
        self._trainer = trainer
        self._display = display
        self._writer = StatsWriter(run_dir, trainer.nimg) if trainer.world.is_main else None
        self.data_seconds = 0.0  # spent waiting for images since the last tick
        self.maintenance = 0.0  # seconds that the end of the last tick took

    def is_due(self, moment: Moment) -> bool:
        """At the end of a tick."""
        return moment.ends_tick

    def run(self, moment: Moment) -> None:
        """Report the tick, on rank 0 with what the others have to say; the trainer's next one begins."""
        t = self._trainer
        t.stats.add_up(t.world)
        if self._writer is None:
            t.stats.flush()
        else:
            self._report(self._writer, moment)
        self.data_seconds = 0.0
        t.end_tick()

    def _report(self, writer: StatsWriter, moment: Moment) -> None:
        t = self._trainer
        images, seconds = t.nimg - t.tick_start_nimg, t.seconds - t.tick_start_seconds
        tick = Tick(t.tick, t.nimg, images, t.seconds, seconds, self.maintenance, t.augmentation.p)
        memory = memory_usage(t.device)
        facts = {**tick.statistics(), **memory, **t.timer.read(), "Timing/data_sec": self.data_seconds}
        for name, value in facts.items():
            t.stats.report(name, value)
        writer.write(t.stats.flush(), t.nimg)
        left = self._display.remaining(t.nimg) if t.tick > 0 and not moment.ends_run else None
        self._display.message(tick.line(memory, left))
        if t.augmentation.is_capped:
            self._display.message(
                "warning: augmentation probability is at its limit of 1: D overfits, more images help"
            )

    def tick_took(self, seconds: float) -> None:
        """What all parts of a tick's end took together, for the next report."""
        self.maintenance = seconds

    def waited_for_images(self, seconds: float) -> None:
        """Add to the time spent waiting for images."""
        self.data_seconds += seconds
