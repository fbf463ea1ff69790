"""Looking at bad steps: a warning, and where training has broken down numerically, its end and what is left behind."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import torch

from sg3.atomic import write_json
from sg3.errors import NumericalError
from sg3.run_folder import failure_path
from sg3.train import bad_steps
from sg3.train.display import Display
from sg3.train.saving import Saving
from sg3.train.tick import Moment
from sg3.train.trainer import Trainer

# Phase -> what may keep its gradient finite: a penalty overflows for another reason than a loss that runs away.
REMEDIES = {"Dreg": "a smaller --gamma or --dlr", "Greg": "a smaller --pl-weight or --glr"}
OTHERWISE = "a larger --gamma or smaller --glr and --dlr"


class BadStepsWatch:
    """Reports steps that were left out, and ends the run when too many were in a row."""

    what = "waiting for the device"

    def __init__(self, trainer: Trainer, run_dir: Path, display: Display, saving: Saving) -> None:
        self._trainer = trainer
        self._run_dir = run_dir
        self._display = display
        self._saving = saving
        self._began = trainer.step
        self._left_out: Counter[str] = Counter()  # by phase, in this life of the run

    def is_due(self, moment: Moment) -> bool:
        """Now and then, and before anything is written."""
        return moment.ends_tick or moment.step % bad_steps.LOOK_EVERY == 0

    def run(self, moment: Moment) -> None:
        """Raises NumericalError, with the state saved, if a phase has had too many in a row."""
        t = self._trainer
        for found in t.bad_steps.look():
            self._left_out[found.phase] += found.count
            if t.world.is_main:  # the same on all ranks
                t.stats.report(f"Gradient/skipped/{found.phase}", float(found.count))
                phase = next(phase for phase in t.phases if phase.name == found.phase)
                scaler = phase.scaler
                remedy = "" if scaler is None or not scaler.is_dynamic else "; its loss is scaled by less now"
                if found.longest >= -(-t.step // phase.interval) > 1:  # as many as it has had
                    remedy += "; it has had no other step, so its loss has had no effect yet"
                self._display.message(
                    f"warning: {found} up to {t.nimg} images left out, the gradient was not finite{remedy}"
                )
            if found.is_fatal:
                where = write_failure(self._run_dir, t, found.phase) if t.world.is_main else self._run_dir
                self._saving.save()
                self._saving.finish()
                raise NumericalError(
                    f"{self._run_dir}: {found.longest} steps of {found.phase} in a row without a finite gradient, at "
                    f"{t.nimg} images; see {where.name}, and try {REMEDIES.get(found.phase, OTHERWISE)}"
                )

    def sum_up(self) -> None:
        """Say at the end of the run of which phases most steps were left out: its losses look as if all were well."""
        t = self._trainer
        for phase in t.phases:
            had = -(-t.step // phase.interval) + (-self._began // phase.interval)
            left_out = self._left_out[phase.name]
            if 2 * left_out > had:
                of_all = f"{left_out} of {had} step{'s' if had > 1 else ''} of {phase.name}"
                remedy = REMEDIES.get(phase.name, OTHERWISE)
                self._display.message(f"warning: left out {of_all}, the gradient was not finite; try {remedy}")


def write_failure(run_dir: Path, trainer: Trainer, phase: str) -> Path:
    """Write failure-{nimg}.json: for every parameter of G and D its largest value and that of the last gradient, with
    the share of gradients that are not finite. Returns the path."""
    report: dict[str, dict[str, dict[str, float | None]]] = {}
    for name, module in (("G", trainer.G), ("D", trainer.D)):
        report[name] = {key: _describe(parameter) for key, parameter in module.named_parameters()}
    content = {
        "phase": phase, "nimg": trainer.nimg, "step": trainer.step, "augment_p": trainer.augmentation.p, **report,
    }  # fmt: skip
    path = failure_path(run_dir, trainer.nimg)
    write_json(path, content, indent=1)
    return path


def _describe(parameter: torch.Tensor) -> dict[str, float | None]:
    facts: dict[str, float | None] = {"largest": float(parameter.abs().amax())}
    if parameter.grad is not None:
        finite = parameter.grad.isfinite()
        facts["not_finite"] = 1 - float(finite.float().mean())
        facts["largest_gradient"] = float(parameter.grad[finite].abs().amax()) if finite.any() else None
    return facts
