"""What a run says while it goes on: the live line on a terminal, and at the end of a tick its statistics."""

from __future__ import annotations

import threading
from pathlib import Path

import torch

from sg3.cpu_sharing import Waiting
from sg3.train.display import Display, Progress
from sg3.train.log import StatsWriter, Tick, memory_usage
from sg3.train.outlook import Outlook
from sg3.train.tick import Moment
from sg3.train.trainer import Trainer

BUSY = 0.3  # share of the time that training waits for a CPU


class LiveLine:
    """Progress and losses below the messages, where somebody looks at a terminal."""

    what = "waiting for the device"

    def __init__(self, trainer: Trainer, display: Display, outlook: Outlook) -> None:
        self._trainer = trainer
        self._display = display
        self._outlook = outlook
        self._shown = 0.0

    def is_due(self, moment: Moment) -> bool:
        """Once a second: reading losses waits for the device."""
        return self._display.is_live and (moment.ends_tick or moment.now - self._shown > 1)

    def run(self, moment: Moment) -> None:
        """Show it anew."""
        self._shown = moment.now
        losses = {name: self._trainer.stats.mean(f"Loss/{name}/loss") for name in "GD"}
        o = self._outlook
        self._display.progress(Progress(o.in_words(), o.share(), o.speed(), o.remaining(moment.snapshot), losses))


class TickEnd:
    """Ends a tick: its statistics are taken, on rank 0 from all ranks, and the trainer's next one begins.

    Until the next tick ends they are a part of the training state, so that another life can make up for `TickReport`.
    """

    what = "adding up statistics"

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer
        self.tick: Tick | None = None  # the last one
        self.data_seconds = 0.0  # spent waiting for images since the last tick
        self.maintenance = 0.0  # seconds that the end of the last tick took
        self.waited = 0.0  # share of the last tick for which this thread wanted a CPU and got none
        self._waiting = Waiting(threading.get_native_id())

    def is_due(self, moment: Moment) -> bool:
        """At the end of a tick."""
        return moment.ends_tick

    def run(self, moment: Moment) -> None:
        """Take the statistics. All ranks call it."""
        t = self._trainer
        self.waited = self._waiting.share()
        t.stats.add_up(t.world)
        if t.world.is_main:
            images, seconds = t.nimg - t.tick_start_nimg, t.seconds - t.tick_start_seconds
            self.tick = Tick(
                t.tick, t.nimg, images, t.seconds, seconds, self.maintenance, t.augmentation.p, memory_usage(t.device)
            )
            facts = {**self.tick.statistics(), **t.timer.read(), "Timing/data_sec": self.data_seconds}
            for name, value in facts.items():
                t.stats.report(name, value)
        t.end_tick(t.stats.flush())
        self.data_seconds = 0.0

    def waited_for_images(self, seconds: float) -> None:
        """Add to the time spent waiting for images."""
        self.data_seconds += seconds


class TickReport:
    """Statistics in stats.jsonl and one status line, for each tick. On rank 0."""

    what = "writing statistics"

    def __init__(self, trainer: Trainer, run_dir: Path, display: Display, outlook: Outlook, end: TickEnd) -> None:
        self._trainer = trainer
        self._display = display
        self._outlook = outlook
        self._end = end
        self._writer = StatsWriter(run_dir, trainer.nimg)
        self._is_warned = False

    def is_due(self, moment: Moment) -> bool:
        """At the end of a tick."""
        return moment.ends_tick

    def run(self, moment: Moment) -> None:
        """Report the tick that has ended."""
        t, tick = self._trainer, self._end.tick
        assert tick is not None
        self._writer.write(t.last_tick)
        left = self._outlook.remaining(moment.snapshot) if tick.number > 0 and not moment.ends_run else None
        self._display.message(tick.line(left))
        if self._end.waited > BUSY and torch.get_num_threads() > 1 and t.device.type == "cpu" and not self._is_warned:
            self._is_warned = True
            self._display.message(
                f"warning: others want the CPUs, training waited for one {self._end.waited:.0%} of the time"
            )
        if t.augmentation.is_capped:
            self._display.message(
                "warning: augmentation probability is at its limit of 1: D overfits, more images help"
            )

    def make_up(self) -> None:
        """Write the statistics of the last tick, should the life that ended it not have got to that."""
        t = self._trainer
        if t.last_tick and not self._writer.has(t.last_tick):
            self._writer.write(t.last_tick)
