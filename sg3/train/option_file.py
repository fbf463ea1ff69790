"""Options from a file (`--config`), and where each option of a run comes from."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from sg3 import limits
from sg3.errors import DataError, UsageError
from sg3.named_paths import Kind, nothing_at, to_read
from sg3.terminal import printable
from sg3.train.options import Options, check_value
from sg3.train.recipes import chosen_cfg, foreign_options, known_options, options_of, presets, unknown_option

COMMAND_LINE = "command line"


def read_options(path: Path) -> tuple[dict[str, Any], str | None]:
    """The options of a .toml or .json file, by their names on the command line, and the preset that it names.

    A run's training_options.json works, too: its options are those the run was started with. Raises MissingInputError,
    and DataError for a file that is neither TOML nor JSON, an unknown name or a value of the wrong kind.
    """
    try:
        to_read(path, Kind.FILE, "--config")
        with path.open("rb") as file:
            text = file.read(limits.OPTION_FILE + 1).decode("utf-8")
        if len(text) > limits.OPTION_FILE:
            raise ValueError(f"it has more than {limits.OPTION_FILE} characters")
        said = _toml(text) if path.suffix == ".toml" else limits.parse_shallow(text)
    except FileNotFoundError:
        raise nothing_at(path, Kind.FILE, "--config") from None
    except (ValueError, OSError) as error:
        cause = printable(error, limit=200)
        is_known = path.suffix in (".toml", ".json")
        kind = path.suffix if is_known else "JSON"
        reads = "" if is_known else "; options are read from .toml and .json files"
        raise DataError(f"--config={path}: cannot be read as {kind}: {cause}{reads}") from error
    if isinstance(said, dict) and isinstance(said.get("config"), dict) and "options" in said:
        said = said["options"]
    if not isinstance(said, dict):
        raise DataError(f"--config={path}: expected a table of options, got a {type(said).__name__}")
    values = {str(name)[: limits.OPTION_NAME].replace("-", "_"): value for name, value in said.items()}
    preset = values.pop("preset", None)
    if preset is not None and (not isinstance(preset, str) or preset not in presets()):
        shown = printable(repr(preset))
        raise DataError(f"--config={path}: preset = {shown}: unknown; see sg3 train --list-presets")
    known = known_options()
    for name, value in values.items():
        if name not in known:
            raise DataError(f"--config={path}: {unknown_option(name, known)}")
        if isinstance(value, str) and value.startswith("~/"):
            value = os.path.expanduser(value)
        try:
            values[name] = check_value(known[name], value)
        except ValueError as error:
            raise DataError(f"--config={path}: {name} = {printable(repr(value))}: {error}") from None
    return values, preset


def _toml(text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ValueError("is nested too deeply") from None


def layered(
    said: Mapping[str, Any], config_file: Path | None = None, preset: str | None = None, source: str = COMMAND_LINE
) -> tuple[Options, dict[str, str]]:
    """The options of a new run, and where each is from: what was `said` (in `source`) comes before the file, the file
    before the preset, which it can name. Raises as `read_options` and `origins` do, UsageError for unknown presets."""
    layers = [(source, said)]
    if config_file is not None:
        from_file, named = read_options(config_file)
        layers.append((str(config_file), from_file))
        preset = preset or named
    if preset is not None:
        if preset not in presets():
            close = get_close_matches(preset, presets(), n=1)
            meant = f", did you mean {close[0]}?" if close else ""
            raise UsageError(f"--preset={printable(preset)}: unknown{meant}; see sg3 train --list-presets")
        layers.append((f"preset {preset}", presets()[preset].options.said()))
    return origins(layers)


def origins(layers: Sequence[tuple[str, Mapping[str, Any]]]) -> tuple[Options, dict[str, str]]:
    """All layers as the options of one system, earlier ones first, and for each option the layer that it is from.

    A layer is its name and what is said there. Raises UsageError for options of another system than the layers' cfg.
    """
    merged: dict[str, Any] = {}
    where: dict[str, str] = {}
    for source, said in layers:
        for name, value in said.items():
            if name not in merged:
                merged[name], where[name] = value, source
    known = known_options()
    foreign = foreign_options(chosen_cfg(merged), [name for name in merged if name in known])
    sources = {name: "" if where[name] == COMMAND_LINE else f" (from {where[name]})" for name in foreign}
    if foreign:
        raise UsageError("; ".join(f"{known[name].flag}: {why}{sources[name]}" for name, why in foreign.items()))
    options = options_of(merged)
    return options, {name: where.get(name, "default") for name in options.declared()}
