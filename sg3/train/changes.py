"""What may change in a run that continues, and what would make it another run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from sg3.errors import DataError, UsageError
from sg3.train.config import DEFAULT_P, DatasetFacts, Options, TrainConfig, check_augmentation, metric_names

# Option -> what the change does to the numbers; everything else is refused.
CHANGEABLE: dict[str, str] = {
    **dict.fromkeys(
        ("kimg", "minutes", "tick", "snap", "grid", "workers", "nobench", "device", "metrics", "detector_dir",
         "keep_snapshots", "on_error", "timeout", "profile"),
        "",
    ),
    "data": "",  # the same images at another place
    "gpus": "sums are taken in another order, which changes their rounding",
    "batch_gpu": "other samples share a minibatch statistic and layer noise",
    "tf32": "products are rounded otherwise",
    "nhwc": "layers with 16 bits are rounded otherwise",
    "compile": "results are rounded otherwise, and StyleGAN2's layer noise is drawn otherwise",
    "bf16": "layers with 16 bits are rounded otherwise",
    **dict.fromkeys(
        ("gamma", "glr", "dlr", "ema_kimg", "aug", "augpipe", "p", "target"), "from here on another training recipe"
    ),
}  # fmt: skip
FREE_FIELDS = frozenset({*CHANGEABLE, "resume", "desc", "blur_init_sigma", "ema_rampup", "ada_kimg"})


def apply_changes(config: TrainConfig, said: Options) -> tuple[TrainConfig, list[str]]:
    """The configuration with the options said on continuing, and one line for each change.

    Raises UsageError for options that cannot change.
    """
    words = said.said()
    refused = [name for name in words if name not in CHANGEABLE]
    if refused:
        flags = ", ".join(map(_flag, refused))
        allowed = ", ".join(map(_flag, CHANGEABLE))
        raise UsageError(f"{flags}: cannot change in a run that continues (only {allowed} can); start a new one")
    new: dict[str, Any] = dict(words)
    if "data" in new:
        new["dataset"] = replace(config.dataset, path=str(Path(new.pop("data")).resolve()))
    if "metrics" in new:
        new["metrics"] = metric_names(new["metrics"])
    if "gpus" in new and "batch_gpu" not in new and config.batch % (new["gpus"] * config.batch_gpu):
        raise UsageError(
            f"--gpus={new['gpus']}: the run's steps of {config.batch} images are made of micro-batches of "
            f"{config.batch_gpu}, which cannot be shared among {new['gpus']}; add --batch-gpu"
        )
    if said.aug == "fixed" and config.aug != "fixed":
        new.setdefault("p", DEFAULT_P)
    if problems := check_augmentation(said, said.aug or config.aug):
        raise UsageError("; ".join(problems))
    changed = replace(config, **new)
    if changed.batch % (changed.gpus * changed.batch_gpu) or changed.batch_gpu % min(
        changed.mbstd_group, changed.batch_gpu
    ):
        raise UsageError(
            f"--batch-gpu={changed.batch_gpu}: must be a multiple of --mbstd-group={changed.mbstd_group}, and "
            f"--batch={changed.batch} a multiple of --gpus x --batch-gpu = {changed.gpus * changed.batch_gpu}"
        )
    lines = []
    for name in words:
        field = "dataset" if name == "data" else name
        before, after = getattr(config, field), getattr(changed, field)
        if before != after:
            if isinstance(before, DatasetFacts):
                before, after = before.path, after.path
            effect = f" ({CHANGEABLE[name]})" if CHANGEABLE[name] else ""
            lines.append(f"changed: {_flag(name)} {before} -> {after}{effect}")
    return changed, lines


def require_same_run(state: dict[str, Any], config: TrainConfig, where: str) -> None:
    """Raises DataError that shows each difference if a state was saved by a run of another kind than `config`."""
    ours = config.to_dict()
    fields = [name for name in ours if name not in FREE_FIELDS and name != "dataset"]
    pairs = [(name, state.get(name), ours[name]) for name in fields]
    theirs = state.get("dataset") or {}
    for name in ("resolution", "channels", "size", "label_dim", "content"):
        pairs.append((f"dataset {name}", theirs.get(name), ours["dataset"][name]))
    differences = [f"{name} {a} there, {b} here" for name, a, b in pairs if a != b]
    if differences:
        raise DataError(f"{where}: was saved by another run than this one would be: {'; '.join(differences)}")


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")
