"""Options from a file (`--config`), and where each option of a run comes from."""

from __future__ import annotations

import dataclasses
import json
import tomllib
import types
import typing
from difflib import get_close_matches
from math import inf
from pathlib import Path
from typing import Any

from sg3.errors import DataError, MissingInputError
from sg3.train.config import CFGS, Options
from sg3.train.presets import PRESETS

CHOICES: dict[str, tuple[str, ...]] = {
    "cfg": CFGS,
    "aug": ("noaug", "ada", "fixed"),
    "augpipe": (
        "blit", "geom", "color", "filter", "noise", "cutout", "bg", "bgc", "bgcf", "bgcfn", "bgcfnc",
    ),
    "on_error": ("fail", "skip"),
    "d_arch": ("resnet", "skip", "orig"),
    "compile": ("off", "on", "graphs"),
}  # fmt: skip
RANGES: dict[str, tuple[float, float]] = {
    **dict.fromkeys(
        ("gpus", "batch", "batch_gpu", "mbstd_group", "kimg", "tick", "snap", "subset", "keep_snapshots", "profile",
         "timeout", "cbase", "cmax", "latent", "layers", "map_depth", "d_map_depth"),
        (1, inf),
    ),
    **dict.fromkeys(
        ("gamma", "glr", "dlr", "ema_kimg", "ema_rampup", "pl_weight", "seed", "workers", "margin", "freezed"),
        (0, inf),
    ),
    "minutes": (0.0001, inf),
    **dict.fromkeys(("p", "target", "style_mix"), (0, 1)),
}  # fmt: skip
KINDS: dict[str, Any] = {  # the type of each option's value
    name: next(kind for kind in typing.get_args(hint) if kind is not types.NoneType)
    for name, hint in typing.get_type_hints(Options).items()
}


def read_options(path: Path) -> tuple[Options, str | None]:
    """The options of a .toml or .json file, by their names on the command line, and the preset that it names.

    A run's training_options.json works, too: its options are those the run was started with. Raises MissingInputError,
    and DataError for a file that is neither TOML nor JSON, an unknown name or a value of the wrong kind.
    """
    try:
        text = path.read_text(encoding="utf-8")
        said = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
    except FileNotFoundError:
        raise MissingInputError(f"--config={path}: no such file") from None
    except (ValueError, OSError) as error:
        raise DataError(f"--config={path}: cannot be read as {path.suffix or 'JSON'}: {error}") from error
    if isinstance(said, dict) and isinstance(said.get("config"), dict) and "options" in said:
        said = said["options"]
    if not isinstance(said, dict):
        raise DataError(f"--config={path}: expected a table of options, got a {type(said).__name__}")
    values = {str(name).replace("-", "_"): value for name, value in said.items()}
    preset = values.pop("preset", None)
    if preset is not None and preset not in PRESETS:
        raise DataError(f"--config={path}: preset = {preset!r}: unknown; see sg3 train --list-presets")
    for name, value in values.items():
        if name not in KINDS:
            close = get_close_matches(name, KINDS, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise DataError(f"--config={path}: {name!r} is no option of sg3 train{hint}")
        values[name] = _checked(value, KINDS[name], name, path)
    return Options(**values), preset


def _checked(value: Any, wanted: Any, name: str, path: Path) -> Any:
    if name == "grid":
        if isinstance(value, str) and value.count("x") == 1 and all(part.isdigit() for part in value.split("x")):
            value = [int(part) for part in value.split("x")]
        if isinstance(value, list) and len(value) == 2 and all(isinstance(n, int) and n > 0 for n in value):
            return tuple(value)
        raise DataError(f"--config={path}: grid = {value!r}: expected columns and rows, like '8x4'")
    if wanted is float and type(value) is int:
        value = float(value)
    if type(value) is not wanted:
        raise DataError(f"--config={path}: {name} = {value!r}: expected {wanted.__name__}")
    if name in CHOICES and value not in CHOICES[name]:
        raise DataError(f"--config={path}: {name} = {value!r}: expected one of {', '.join(CHOICES[name])}")
    if name in RANGES:
        low, high = RANGES[name]
        if not low <= value <= high or value == inf:
            bounds = f"at least {low}" if high == inf else f"{low} to {high}"
            raise DataError(f"--config={path}: {name} = {value!r}: expected {bounds}")
    return value


def origins(layers: list[tuple[str, Options]]) -> tuple[Options, dict[str, str]]:
    """All layers as one set of options, earlier ones first, and for each option the name of the layer it is from."""
    merged = Options()
    where: dict[str, str] = {}
    for source, options in layers:
        for name in options.said():
            where.setdefault(name, source)
        merged = merged.over(options)
    return merged, {field.name: where.get(field.name, "default") for field in dataclasses.fields(Options)}
