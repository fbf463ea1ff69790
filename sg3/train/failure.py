"""What is left behind when training breaks down numerically: which tensors went wrong, and how."""

from __future__ import annotations

from pathlib import Path

import torch

from sg3.formats.atomic import write_json
from sg3.train.trainer import Trainer


def write_failure(run_dir: Path, trainer: Trainer, phase: str) -> Path:
    """Write failure-{nimg}.json: for every parameter of G and D its largest value and that of the last gradient, with
    the share of gradients that are not finite. Returns the path."""
    report: dict[str, dict[str, dict[str, float | None]]] = {}
    for name, module in (("G", trainer.G), ("D", trainer.D)):
        report[name] = {key: _describe(parameter) for key, parameter in module.named_parameters()}
    content = {"phase": phase, "nimg": trainer.nimg, "step": trainer.step, "augment_p": trainer.augment_p, **report}
    path = run_dir / f"failure-{trainer.nimg:010d}.json"
    write_json(path, content, indent=1)
    return path


def _describe(parameter: torch.Tensor) -> dict[str, float | None]:
    facts: dict[str, float | None] = {"largest": float(parameter.abs().amax())}
    if parameter.grad is not None:
        finite = parameter.grad.isfinite()
        facts["not_finite"] = 1 - float(finite.float().mean())
        facts["largest_gradient"] = float(parameter.grad[finite].abs().amax()) if finite.any() else None
    return facts
