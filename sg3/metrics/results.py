"""The result of a metric with the recipe it was made by, and the file that keeps it.

`metric-NAME.jsonl` has the original's fields (results, metric, total_time, total_time_str, num_gpus, snapshot_pkl,
timestamp), plus `recipe`: everything that another number could come from.
"""

from __future__ import annotations

import json
import math
import platform
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sg3._version import __version__
from sg3.durations import format_time
from sg3.metrics.intervals import Interval
from sg3.metrics.metric import Metric, Values
from sg3.run_folder import append_line, metric_path, read_lines
from sg3.terminal import printable


@dataclass(frozen=True)
class MetricResult:
    """The numbers of one metric. `seconds` include passes over images that it shared with others."""

    metric: Metric
    results: Values
    seconds: float
    num_gpus: int  # processes
    recipe: dict[str, Any]
    intervals: dict[str, Interval] | None = None  # None where nobody asked for them
    timestamp: float = field(default_factory=time.time)

    def as_dict(self, snapshot: str | None = None) -> dict[str, Any]:
        """A line of metric-NAME.jsonl; what is not finite becomes null, which JSON can say."""
        line = {
            "results": {name: value if math.isfinite(value) else None for name, value in self.results.items()},
            "metric": self.metric.name,
            "total_time": self.seconds,
            "total_time_str": format_time(self.seconds),
            "num_gpus": self.num_gpus,
            "snapshot_pkl": snapshot,
            "timestamp": self.timestamp,
            "recipe": self.recipe,
        }
        if self.intervals is not None:
            line["intervals"] = {name: interval.as_dict() for name, interval in self.intervals.items()}
        return line


def append(folder: Path, result: MetricResult, snapshot: str | None) -> Path:
    """Add a result to its metric-NAME.jsonl. Raises StorageError if it cannot be written."""
    path = metric_path(folder, result.metric.name)
    append_line(path, json.dumps(result.as_dict(snapshot), allow_nan=False))
    return path


def read(folder: Path, metric: str) -> Iterator[dict[str, Any]]:
    """The lines of metric-NAME.jsonl that can be read."""
    for entry in read_lines(metric_path(folder, metric)):
        if isinstance(entry.get("results"), dict):
            yield entry


# What a number means besides its metric's name, and how to say it. A run may be measured in more than one way: with
# and without black bars, over another background, against other images.
MEANING = {
    "bars": "bars", "background": "background", "mirrored": "mirrored", "dataset": "real images",
    "test_dataset": "test images", "detector_sha256": "detector", "resize": "resize",
}  # fmt: skip


def meaning(line: Mapping[str, Any]) -> dict[str, str]:
    """What the numbers of a line of metric-NAME.jsonl depend on besides the network, as far as it says; images between
    black bars were measured with them by versions that did not cut them off."""
    recipe = line.get("recipe")
    if not isinstance(recipe, dict):
        return {}
    dataset = recipe.get("dataset")
    said = {name: recipe.get(name) for name in MEANING}
    said |= {"dataset": dataset.get("sha256") if isinstance(dataset, dict) else None}
    said |= {"bars": said["bars"] or "measured"}
    return {name: str(value) for name, value in said.items() if value is not None}


def unlike(one: Mapping[str, str], other: Mapping[str, str]) -> str:
    """How the first of two meanings differs from the second, in words; nothing if numbers can be compared."""
    names = [name for name in MEANING if name in one and name in other and one[name] != other[name]]
    return ", ".join(f"{MEANING[name]} {short(one[name])}" for name in names)


def by_meaning(lines: Iterable[Mapping[str, Any]]) -> tuple[list[int], list[dict[str, str]]]:
    """Of lines of metric-NAME.jsonl, the number of the kind that each is of, and what each kind means. Within a kind
    all can be compared with its first. Kinds are in the order in which they come up, so lines that follow change none.
    """
    kinds: list[dict[str, str]] = []
    kind_of = []
    for line in lines:
        means = meaning(line)
        found = next((index for index, kind in enumerate(kinds) if not unlike(means, kind)), len(kinds))
        if found == len(kinds):
            kinds.append(means)
        kind_of.append(found)
    return kind_of, kinds


def short(value: str) -> str:
    """A checksum by its beginning; anything else as it is, printable."""
    return value[:8] if re.fullmatch("[0-9a-f]{32,}", value) else printable(value)


def versions() -> dict[str, str]:
    """Of what computes."""
    return {"sg3": __version__, "torch": torch.__version__, "numpy": np.__version__,
            "python": platform.python_version()}  # fmt: skip
