"""What a run shows of itself: image grids and network files, their metrics, and the removal of old ones."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from sg3.formats import Snapshot, save
from sg3.run_folder import FAKES_INIT, REALS, drop_averages_after, drop_snapshots, fakes_path, snapshot_path
from sg3.train.consistency import check_consistency
from sg3.train.evaluation import Evaluation
from sg3.train.grid import Grid
from sg3.train.stop import StopSignals
from sg3.train.tick import Moment
from sg3.train.trainer import Trainer

M = TypeVar("M", bound=nn.Module)


class Agreement:
    """Before anything is saved that others go on from: all ranks have the same networks."""

    what = "comparing the ranks"

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer

    def is_due(self, moment: Moment) -> bool:
        """Before every snapshot, and the state that is saved with it."""
        return moment.snapshot

    def run(self, moment: Moment) -> None:
        """Raises NumericalError if the ranks have drifted apart."""
        check_consistency(self._trainer.world, self._trainer.networks)


class Snapshots:
    """Writes an image grid and the networks, on rank 0."""

    what = "saving images and networks"

    def __init__(self, trainer: Trainer, run_dir: Path) -> None:
        self._trainer = trainer
        self._run_dir = run_dir
        c = trainer.config
        if trainer.world.is_main:
            drop_averages_after(run_dir, trainer.nimg)
        self._grid = Grid(
            trainer.dataset, c.grid, z_dim=c.z_dim, label_dim=c.dataset.label_dim, seed=c.seed,
            skip=c.on_error == "skip",
        )  # fmt: skip

    def save_first_grids(self) -> None:
        """The real images of the grid, and what the untrained network makes."""
        t = self._trainer
        if t.world.is_main:
            self._grid.save_reals(self._run_dir / REALS)
            self._grid.save_fakes(t.G_ema, self._run_dir / FAKES_INIT, t.config.batch_gpu)

    def path(self) -> Path:
        """Where the networks of now go."""
        return snapshot_path(self._run_dir, self._trainer.nimg, self._trainer.config.dataset.is_plain)

    @property
    def is_missing(self) -> bool:
        """Whether a life that ended here has not got to its snapshot."""
        t = self._trainer
        was_due = t.is_at_tick_end and (t.is_over or (t.tick - 1) % t.config.snap == 0)
        return was_due and not self.path().exists()

    def is_due(self, moment: Moment) -> bool:
        """Every --snap ticks and at the end."""
        return moment.snapshot and self._trainer.world.is_main

    def run(self, moment: Moment) -> None:
        """To be called on rank 0."""
        self.write()

    def write(self) -> None:
        """The images and networks of now."""
        t = self._trainer
        c, d = t.config, t.config.dataset
        self._grid.save_fakes(t.G_ema, fakes_path(self._run_dir, t.nimg), c.batch_gpu)
        if t.power_averages is not None:
            t.power_averages.write(self._run_dir, t.nimg)
        G, D, G_ema = (_frozen(network) for network in (t.G, t.D, t.G_ema))
        pipe = t.augmentation.snapshot_pipe()
        facts = {
            "path": d.path, "use_labels": c.cond, "max_size": c.subset or d.size, "xflip": c.mirror,
            "resolution": d.resolution if d.is_square else list(d.image_size), "random_seed": c.seed,
        }  # fmt: skip
        if d.visible is not None:
            facts["visible"] = list(d.visible)
        used = None if pipe is None else _frozen(pipe)
        optimizers = None
        if t.system.snapshots_hold_optimizers:
            optimizers = {name: _on_cpu(optimizer.state_dict()) for name, optimizer in t.optimizers.items()}
        snapshot = Snapshot(
            G=G, D=D, G_ema=G_ema, augment_pipe=used, training_set_kwargs=facts, optimizers=optimizers,
            progress=t.system.progress(t.nimg, t.tick, t.step),
        )  # fmt: skip
        save(snapshot, self.path())


def _frozen(module: M) -> M:
    """A copy for a file: on the CPU, in evaluation mode."""
    return copy.deepcopy(module).eval().requires_grad_(False).cpu()


def _on_cpu(state: dict[str, Any]) -> dict[str, Any]:
    """An optimiser's state with its tensors on the CPU."""
    entries = {
        number: {name: entry.cpu() if isinstance(entry, torch.Tensor) else entry for name, entry in values.items()}
        for number, values in state["state"].items()
    }
    return {**state, "state": entries}


class Measuring:
    """The metrics of the snapshot that was written last, unless somebody waits for the run to stop."""

    what = "measuring"

    def __init__(self, trainer: Trainer, evaluation: Evaluation, snapshots: Snapshots, stop: StopSignals) -> None:
        self._trainer = trainer
        self._evaluation = evaluation
        self._snapshots = snapshots
        self._stop = stop

    def is_due(self, moment: Moment) -> bool:
        """After every snapshot; whether to stop is rank 0's answer for all."""
        return moment.snapshot and not self._trainer.world.as_main(self._stop.is_asked)[0]

    def run(self, moment: Moment) -> None:
        """All metrics of the run, by all ranks."""
        t = self._trainer
        self._evaluation.run(t.G_ema, self._snapshots.path(), self._stop, t.watchdog.beat, nimg=t.nimg)


class Pruning:
    """Removes network snapshots but the newest `keep` and the best one by each metric."""

    what = "removing old networks"

    def __init__(self, run_dir: Path, keep: int, evaluation: Evaluation | None) -> None:
        self._run_dir = run_dir
        self._keep = keep
        self._evaluation = evaluation

    def is_due(self, moment: Moment) -> bool:
        """After every snapshot."""
        return moment.snapshot

    def run(self, moment: Moment) -> None:
        """To be called on rank 0."""
        best = set() if self._evaluation is None else self._evaluation.best_snapshots()
        drop_snapshots(self._run_dir, self._keep, besides=best)
