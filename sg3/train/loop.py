"""The training loop: data in, steps, and at the end of each tick whatever is due: statistics, images, networks, state,
metrics. Every rank runs it; rank 0 writes the files.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from sg3.errors import NumericalError, TrainingStopped
from sg3.formats import Snapshot, run_snapshots, save
from sg3.train.display import Display
from sg3.train.distributed import check_consistency
from sg3.train.evaluate import Evaluation
from sg3.train.failure import write_failure
from sg3.train.feed import Batch, real_batches
from sg3.train.grid import Grid
from sg3.train.log import StatsWriter, Tick, memory_usage
from sg3.train.profile import profiling
from sg3.train.state import StateWriter
from sg3.train.stop import StopSignals, WaitInterruptedError
from sg3.train.trainer import Trainer

MAX_BAD_STEPS = 10  # of a phase in a row without a finite gradient, after which there is nothing left to save
LOOK_EVERY = 50  # steps between two looks at the flags that say so: a look waits for the device
STATE_MINUTES = 15  # a state is written with every snapshot, and at least this often


class Loop:
    """Runs a trainer to its end, or until it is asked to stop."""

    def __init__(self, trainer: Trainer, run_dir: Path, display: Display, evaluation: Evaluation | None) -> None:
        self.trainer = trainer
        self.config = trainer.config
        self.world = trainer.world
        self.run_dir = run_dir
        self.display = display
        self.evaluation = evaluation
        self.states = StateWriter(run_dir)
        self.last_saved = time.monotonic()
        self.data_seconds = 0.0  # spent waiting for images since the last tick
        self.grid = Grid(
            trainer.dataset, self.config.grid, z_dim=self.config.z_dim, label_dim=self.config.dataset.label_dim,
            seed=self.config.seed, skip=self.config.on_error == "skip",
        )  # fmt: skip

    def run(self, stop: StopSignals) -> None:
        """Train to the end. Raises TrainingStopped, with the state saved, when a signal asks for it."""
        t, c = self.trainer, self.config
        batches = real_batches(
            t.dataset, batch=t.local_batch, seed=c.seed, start=t.nimg, workers=c.workers, on_error=c.on_error,
            pin_memory=t.device.type == "cuda", rank=self.world.rank, ranks=self.world.size,
            warn=self.display.message,
        )  # fmt: skip
        writer = StatsWriter(self.run_dir, t.nimg) if self.world.is_main else None
        if t.nimg == 0 and self.world.is_main:
            self.grid.save_reals(self.run_dir / "reals.png")
            self.grid.save_fakes(t.G_ema, self.run_dir / "fakes_init.png", c.batch_gpu)
        clock, shown, maintenance, finished = time.monotonic(), 0.0, 0.0, False
        profiled = c.profile if self.world.is_main else 0
        with self.states, closing(batches), profiling(profiled, self.run_dir, self.display.message) as step_done:
            while not finished:
                batch = self.next_batch(batches, stop)
                t.train_step(*batch)
                step_done()
                now = time.monotonic()
                t.seconds += now - clock
                clock = now
                out_of_time, save_due = self.ask_the_clock(now)
                finished = t.nimg >= c.kimg * 1000 or out_of_time
                self.display.count(t.nimg)
                self.states.raise_if_failed()
                if t.step % LOOK_EVERY == 0:
                    self.look_at_bad_steps()
                if self.display.is_live and now - shown > 1:
                    shown = now
                    self.display.progress(t.nimg, {name: t.stats.mean(f"Loss/{name}/loss") for name in "GD"})

                if finished or t.tick == 0 or t.nimg >= t.tick_start_nimg + c.tick * 1000:
                    with t.watchdog.patient():
                        self.end_tick(writer, maintenance, finished, stop)
                    maintenance = time.monotonic() - now
                    clock = time.monotonic()
                elif save_due:
                    self.save_state()
                    clock = time.monotonic()
                if not finished and (reason := stop.reason(t.step)):
                    self.stop_now(reason)
        self.states.finish()

    def next_batch(self, batches: Iterator[Batch], stop: StopSignals) -> Batch:
        """The next real images of this rank, with the time it took to get them noted."""
        began = time.monotonic()
        try:
            with stop.waiting():
                batch = next(batches)
        except WaitInterruptedError:
            self.stop_now(stop.reason(self.trainer.step) or "signal")
        self.data_seconds += time.monotonic() - began
        return batch

    def ask_the_clock(self, now: float) -> tuple[bool, bool]:
        """Whether the run's time is over, and whether a state is due: by rank 0's clock, so that all agree."""
        minutes = self.config.minutes
        out_of_time, save_due = self.world.as_main(
            minutes is not None and self.trainer.seconds >= minutes * 60, now - self.last_saved > STATE_MINUTES * 60
        )
        return out_of_time, save_due

    def stop_now(self, reason: str) -> None:
        """Save the state, and nothing else, for whoever asked may not wait long."""
        self.save_state()
        self.states.finish()
        kimg = self.trainer.nimg / 1000
        raise TrainingStopped(f"{reason}: stopped at {kimg:.2f} kimg, state saved in {self.run_dir}")

    # ---- end of a tick ----------------------------------------------------------------------------------------------

    def end_tick(self, writer: StatsWriter | None, maintenance: float, finished: bool, stop: StopSignals) -> None:
        """Statistics; every `--snap` ticks and at the end also images, networks, state and metrics."""
        t = self.trainer
        self.look_at_bad_steps()
        snap = finished or t.tick % self.config.snap == 0
        if snap:
            check_consistency(self.world, t.networks)
            self.save_snapshot()
        self.report_tick(writer, maintenance, finished)
        t.tick += 1
        t.tick_start_nimg, t.tick_start_seconds = t.nimg, t.seconds
        if snap:
            self.save_state()
            (skip,) = self.world.as_main(self.evaluation is None or stop.is_asked)
            if self.evaluation is not None and not skip:
                self.evaluation.run(t.G_ema, self.snapshot_path(), stop, t.watchdog.beat)
            if self.world.is_main and self.config.keep_snapshots is not None:
                self.drop_old_snapshots(self.config.keep_snapshots)

    def report_tick(self, writer: StatsWriter | None, maintenance: float, finished: bool) -> None:
        """Write the statistics of the tick and its status line."""
        t = self.trainer
        t.stats.add_up(self.world)
        if writer is None:
            t.stats.flush()
            return
        images, seconds = t.nimg - t.tick_start_nimg, t.seconds - t.tick_start_seconds
        tick = Tick(t.tick, t.nimg, images, t.seconds, seconds, maintenance, t.augment_p)
        memory = memory_usage(t.device)
        facts = {**tick.statistics(), **memory, **t.timer.read(), "Timing/data_sec": self.data_seconds}
        for name, value in facts.items():
            t.stats.report(name, value)
        self.data_seconds = 0.0
        writer.write(t.stats.flush(), t.nimg)
        left = self.display.remaining(t.nimg) if t.tick > 0 and not finished else None
        self.display.message(tick.line(memory, left))
        if t.ada.capped and t.augment_p == 1:
            self.display.message("warning: augmentation probability is at its limit of 1: D overfits, more images help")

    def look_at_bad_steps(self) -> None:
        """Report steps that were left out. Raises NumericalError if too many were in a row."""
        t = self.trainer
        for phase, (longest, count) in t.take_bad_steps().items():
            if count and self.world.is_main:  # the same on all ranks
                t.stats.report(f"Gradient/skipped/{phase}", float(count))
                self.display.message(
                    f"warning: {phase}: {count} step{'s' if count > 1 else ''} up to {t.nimg} images left out, the "
                    "gradient was not finite"
                )
            if longest >= MAX_BAD_STEPS:
                where = write_failure(self.run_dir, t, phase) if self.world.is_main else self.run_dir
                self.save_state()
                self.states.finish()
                raise NumericalError(
                    f"{self.run_dir}: {longest} steps of {phase} in a row without a finite gradient, at {t.nimg} "
                    f"images; see {where.name}, and try a larger --gamma or smaller --glr and --dlr"
                )

    # ---- files ------------------------------------------------------------------------------------------------------

    def save_state(self) -> None:
        """Begin to save the training state."""
        state = self.trainer.state_dict()
        if self.world.is_main:
            self.states.save(state)
        self.last_saved = time.monotonic()

    def snapshot_path(self) -> Path:
        """Where the networks of now go."""
        return self.run_dir / f"network-snapshot-{self.trainer.nimg // 1000:06d}.pkl"

    def save_snapshot(self) -> None:
        """Write the image grid and the networks."""
        if not self.world.is_main:
            return
        t, c, d = self.trainer, self.config, self.config.dataset
        self.grid.save_fakes(t.G_ema, self.run_dir / f"fakes{t.nimg // 1000:06d}.png", c.batch_gpu)
        t.pipe.p.fill_(t.augment_p)
        G, D, G_ema, pipe = (copy.deepcopy(m).eval().requires_grad_(False).cpu() for m in (t.G, t.D, t.G_ema, t.pipe))
        facts = {
            "path": d.path, "use_labels": c.cond, "max_size": c.subset or d.size, "xflip": c.mirror,
            "resolution": d.resolution, "random_seed": c.seed,
        }  # fmt: skip
        used = None if c.aug == "noaug" else pipe
        save(Snapshot(G=G, D=D, G_ema=G_ema, augment_pipe=used, training_set_kwargs=facts), self.snapshot_path())

    def drop_old_snapshots(self, keep: int) -> None:
        """Remove network snapshots but the newest `keep` and the best one by each metric."""
        best = set() if self.evaluation is None else self.evaluation.best_snapshots()
        for path in run_snapshots(self.run_dir)[:-keep]:
            if path.name not in best:
                path.unlink(missing_ok=True)
