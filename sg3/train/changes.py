"""What may change in a run that continues, and what would make it another run."""

from __future__ import annotations

from dataclasses import MISSING, fields, replace
from pathlib import Path
from typing import Any

from sg3.data.dataset import dataset_name
from sg3.errors import DataError, UsageError
from sg3.terminal import printable
from sg3.train.config import TrainConfig, metric_names
from sg3.train.options import Options
from sg3.train.recipes import recipe_of
from sg3.train.sinks import require_sinks


def apply_changes(config: TrainConfig, said: Options) -> tuple[TrainConfig, list[str]]:
    """The configuration with the options said on continuing, and one line for each change.

    Raises UsageError for options that cannot change, and for contradictions as at the start of a run,
    MissingInputError for what --log-to needs.
    """
    declared = said.declared()
    words = said.said()
    refused = [declared[name].flag for name in words if declared[name].changes is None]
    if refused:
        raise UsageError(
            f"{', '.join(refused)}: cannot change in a run that continues, it would be another run; start a new one "
            "(docs/options.md says what can change)"
        )
    new: dict[str, Any] = dict(words)
    if "data" in new:
        path = Path(new.pop("data"))
        new["dataset"] = replace(config.dataset, path=str(path.resolve()), name=dataset_name(path))
    if "metrics" in new:
        new["metrics"] = metric_names(new["metrics"])
    if "gpus" in new and "batch_gpu" not in new and config.batch % (new["gpus"] * config.batch_gpu):
        raise UsageError(
            f"--gpus={new['gpus']}: the run's steps of {config.batch} images are made of micro-batches of "
            f"{config.batch_gpu}, which cannot be shared among {new['gpus']}; add --batch-gpu"
        )
    if said.aug == "fixed" and config.aug != "fixed":
        new.setdefault("p", declared["p"].default)
    changed = replace(config, **new)
    known_already = config.problems(replace(said, **dict.fromkeys(words)))
    if problems := [problem for problem in changed.problems(said) if problem not in known_already]:
        raise UsageError("; ".join(problems))
    if "log_to" in words:
        require_sinks(changed.log_to)
    lines = []
    for name in words:
        before, after = config.value_of(name), changed.value_of(name)
        if before != after:
            effect = declared[name].changes
            lines.append(f"changed: {declared[name].flag} {before} -> {after}" + (f" ({effect})" if effect else ""))
    return changed, lines


def require_same_run(state: object, config: TrainConfig, where: str) -> None:
    """Raises DataError that shows each difference if a state, whose configuration this is, was saved by a run of
    another kind than `config`."""
    if not isinstance(state, dict):
        raise DataError(f"{where}: its training state holds no configuration")
    ours = config.to_dict()
    options = recipe_of(config.cfg).options.declared()
    free = {"dataset", *config.FREE, *(name for name, option in options.items() if option.changes is not None)}
    # A field that is newer than the state had its default then.
    theirs = {f.name: f.default for f in fields(config) if f.default is not MISSING} | state
    pairs = [(name, theirs.get(name), ours[name]) for name in ours if name not in free]
    data = state["dataset"] if isinstance(state.get("dataset"), dict) else {}
    for name in ("resolution", "height", "width", "channels", "size", "label_dim", "content"):
        pairs.append((f"dataset {name}", data.get(name), ours["dataset"][name]))
    differences = [f"{name} {printable(a)} there, {printable(b)} here" for name, a, b in pairs if not _equal(a, b)]
    if differences:
        raise DataError(f"{where}: was saved by another run than this one would be: {'; '.join(differences)}")


def _equal(a: Any, b: Any) -> bool:
    """Whether two plain values are the same. Values of other kinds, such as tensors, are not even compared."""
    return type(a) in (type(b), int, float) and bool(a == b)
