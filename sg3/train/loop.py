"""The training loop: data in, a step, and then whatever is due. Every rank runs it; rank 0 writes the files.

Its parts, in the order in which they are asked after each step:

    LiveLine       every second, on a terminal           report.py
    BadStepsWatch  every 50 steps and at a tick's end    failure.py
    TickEnd        at a tick's end                       report.py
    Agreement      before a snapshot                     snapshots.py
    Saving         with a snapshot, and every 15 minutes saving.py
    TickReport     at a tick's end                       report.py
    Snapshots      every --snap ticks and at the end     snapshots.py
    Measuring      after a snapshot                      snapshots.py
    Pruning        after a snapshot                      snapshots.py
    Forwarding     at a tick's end, to --log-to          forwarding.py
    Telling        at a tick's end, callbacks            callbacks.py

The state comes before everything that is only shown: whatever ends the run there, the tick is not lost, and another
life makes up for what it finds missing (`catch_up`).
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import closing, nullcontext
from itertools import islice
from pathlib import Path

import torch

from sg3.errors import RestartDue, TrainingStopped
from sg3.train.callbacks import NO_CALLBACKS, Callbacks, Telling
from sg3.train.display import Display
from sg3.train.evaluation import Evaluation
from sg3.train.failure import BadStepsWatch
from sg3.train.feed import Batch, real_batches
from sg3.train.forwarding import Forwarding
from sg3.train.outlook import Outlook
from sg3.train.profile import profiling
from sg3.train.report import LiveLine, TickEnd, TickReport
from sg3.train.saving import Saving
from sg3.train.sinks import sink_names
from sg3.train.snapshots import Agreement, Measuring, Pruning, Snapshots
from sg3.train.stop import StopSignals, WaitInterruptedError
from sg3.train.tick import Moment, Part
from sg3.train.trainer import Trainer


class Loop:
    """Runs a trainer to its end, or until it is asked to stop."""

    def __init__(
        self, trainer: Trainer, run_dir: Path, display: Display, evaluation: Evaluation | None,
        callbacks: Callbacks = NO_CALLBACKS,
    ) -> None:  # fmt: skip
        self.trainer = trainer
        self.config = trainer.config
        self.world = trainer.world
        self.run_dir = run_dir
        self.display = display
        self.evaluation = evaluation
        self.began = time.monotonic()
        self.outlook = Outlook(trainer)
        self.tick_end = TickEnd(trainer)
        self.saving = Saving(trainer, run_dir)
        self.snapshots = Snapshots(trainer, run_dir)
        self.bad_steps = BadStepsWatch(trainer, run_dir, display, self.saving)
        self.telling = Telling(trainer, run_dir, callbacks)
        names = sink_names(self.config.log_to) if self.world.is_main else ()
        self.forwarding = Forwarding(run_dir, names, self.config.to_dict(), trainer.nimg, display.message)
        self.report: TickReport | None = None
        if self.world.is_main:
            self.report = TickReport(trainer, run_dir, display, self.outlook, self.tick_end)

    def catch_up(self, stop: StopSignals) -> None:
        """What a life that ended at the end of a tick has not got to: statistics, snapshot and metrics."""
        t = self.trainer
        with t.watchdog.patient(), self.display.doing("catching up"):
            if self.report is not None:
                self.report.make_up()
                if self.snapshots.is_missing:
                    self.snapshots.write()
            if self.evaluation is not None:
                self.evaluation.catch_up(t.G_ema, t.nimg, stop, t.watchdog.beat)
        self.stop_if_asked(stop)

    def run(self, stop: StopSignals) -> None:
        """Train to the end, or until a callback asks to stop. Raises TrainingStopped, with the state saved, when a
        signal asks for it."""
        t, c = self.trainer, self.config
        batches = real_batches(
            t.dataset, batch=t.local_batch, seed=c.seed, start=t.nimg * t.system.real_batches, workers=c.workers,
            on_error=c.on_error, pin_memory=t.device.type == "cuda", rank=self.world.rank, ranks=self.world.size,
            warn=self.display.message,
        )  # fmt: skip
        parts = self.parts(stop)
        if t.nimg == 0:
            with self.display.doing("saving the first images"):
                self.snapshots.save_first_grids()
        profiled = c.profile if self.world.is_main else 0
        clock, finished, first = time.monotonic(), False, True
        profile = profiling(profiled, self.run_dir, self.display.message)
        with self.forwarding, self.saving, closing(batches), profile as step_done:
            while not finished:
                batch = self.next_batch(batches, stop)
                with self.display.doing("first step, compiling") if first else nullcontext():
                    t.train_step(*batch)
                step_done()
                first, now = False, time.monotonic()
                t.count_seconds(now - clock)
                clock = now
                self.outlook.step_done()
                self.display.step_done()
                self.saving.raise_if_failed()
                moment = self.moment(now)
                with t.watchdog.patient() if moment.ends_tick else nullcontext():
                    for part in parts:
                        if part.is_due(moment):
                            with self.display.doing(part.what):
                                part.run(moment)
                if moment.ends_tick:
                    self.tick_took(time.monotonic() - now, moment)
                if moment.ends_tick or moment.state:
                    clock = time.monotonic()  # what was done meanwhile is no training
                finished = moment.ends_run or moment.asked
                if not finished:
                    self.stop_if_asked(stop)
                    if moment.restart:
                        self.stop_now("--restart-every", RestartDue)
            if not moment.ends_run:
                self.saving.save()
        with self.display.doing("saving the state"):
            self.saving.finish()
        self.bad_steps.sum_up()

    def parts(self, stop: StopSignals) -> Sequence[Part]:
        """What may be due after a step, in this order."""
        t, keep = self.trainer, self.config.keep_snapshots
        parts: list[Part] = [
            LiveLine(t, self.display, self.outlook),
            self.bad_steps,
            self.tick_end,
            Agreement(t),
            self.saving,
        ]
        if self.report is not None:
            parts.append(self.report)
        parts.append(self.snapshots)
        if self.evaluation is not None:
            parts.append(Measuring(t, self.evaluation, self.snapshots, stop))
        if keep is not None and self.world.is_main:
            parts.append(Pruning(self.run_dir, keep, self.evaluation))
        parts += [self.forwarding, self.telling]
        return parts

    def next_batch(self, batches: Iterator[Batch], stop: StopSignals) -> Batch:
        """The next real images of this rank, as many batches of them as the system takes in a step."""
        began = time.monotonic()
        try:
            with stop.waiting(), self.display.doing("waiting for images"):
                taken = list(islice(batches, self.trainer.system.real_batches))
        except WaitInterruptedError:
            self.stop_now(stop.reason(self.trainer.step) or "signal")
        self.tick_end.waited_for_images(time.monotonic() - began)
        if len(taken) == 1:
            return taken[0]
        images, labels = zip(*taken, strict=True)
        return torch.cat(images), torch.cat(labels)

    def moment(self, now: float) -> Moment:
        """What is over and what is due after a step. Clocks are rank 0's, so that all agree."""
        t, c = self.trainer, self.config
        has_had_its_time = c.restart_every is not None and now - self.began > c.restart_every
        ends_run, is_overdue, restart, asked = self.world.as_main(
            t.is_over, self.saving.is_overdue(now), has_had_its_time, self.telling.asked is not None
        )
        ends_tick = ends_run or t.tick == 0 or t.nimg >= t.tick_start_nimg + c.tick * 1000
        return Moment(
            now=now, step=t.step, ends_run=ends_run, ends_tick=ends_tick,
            snapshot=ends_tick and (ends_run or t.tick % c.snap == 0), state=is_overdue, restart=restart,
            asked=asked,
        )  # fmt: skip

    def tick_took(self, seconds: float, moment: Moment) -> None:
        """Note what the end of a tick took, for the next report and for the time that is left."""
        self.tick_end.maintenance = seconds
        self.outlook.tick_took(seconds, moment.snapshot)

    def stop_if_asked(self, stop: StopSignals) -> None:
        """Stop if a signal asks for it, or if what the run says can no longer be read or written."""
        if (trouble := self.display.failed or self.display.lost) is not None:
            stop.ask(str(trouble))
        if (reason := stop.reason(self.trainer.step)) is not None:
            self.stop_now(reason)

    def stop_now(self, reason: str, kind: type[TrainingStopped] = TrainingStopped) -> None:
        """Save the state, and nothing else, for whoever asked may not wait long. Raises `kind`."""
        with self.display.doing("stopping, saving the state"):
            self.saving.save()
            self.saving.finish()
        if self.display.failed is not None:
            raise self.display.failed
        kimg = self.trainer.nimg / 1000
        raise kind(f"{reason}: stopped at {kimg:.2f} kimg, state saved in {self.run_dir}")
