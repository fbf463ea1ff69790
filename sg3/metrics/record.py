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
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

import sg3
from sg3.durations import format_time
from sg3.errors import StorageError


@dataclass(frozen=True)
class MetricResult:
    """The numbers of one metric. `seconds` include passes over images that it shared with others."""

    metric: str
    results: dict[str, float]
    seconds: float
    num_gpus: int  # processes
    recipe: dict[str, Any]
    timestamp: float = field(default_factory=time.time)

    def as_dict(self, snapshot: str | None = None) -> dict[str, Any]:
        """A line of metric-NAME.jsonl; what is not finite becomes null, which JSON can say."""
        return {
            "results": {name: value if math.isfinite(value) else None for name, value in self.results.items()},
            "metric": self.metric,
            "total_time": self.seconds,
            "total_time_str": format_time(self.seconds),
            "num_gpus": self.num_gpus,
            "snapshot_pkl": snapshot,
            "timestamp": self.timestamp,
            "recipe": self.recipe,
        }


def append(folder: Path, result: MetricResult, snapshot: str | None) -> Path:
    """Add a result to its metric-NAME.jsonl. Raises StorageError if it cannot be written."""
    path = folder / f"metric-{result.metric}.jsonl"
    line = json.dumps(result.as_dict(snapshot), allow_nan=False) + "\n"
    try:
        with path.open("a+b") as file:
            if file.tell() > 0:  # a line that a crash cut off must not swallow this one
                file.seek(-1, 2)
                line = line if file.read(1) == b"\n" else "\n" + line
            file.write(line.encode())
    except OSError as error:
        raise StorageError(f"{path}: cannot be written: {error.strerror or error}") from error
    return path


def read(folder: Path, metric: str) -> Iterator[dict[str, Any]]:
    """The lines of metric-NAME.jsonl that can be read."""
    path = folder / f"metric-{metric}.jsonl"
    if not path.is_file():
        return
    for line in path.read_text(errors="replace").splitlines():
        try:
            entry = json.loads(line)
        except ValueError:  # cut off by a crash
            continue
        if isinstance(entry, dict) and isinstance(entry.get("results"), dict):
            yield entry


def kimg_of(snapshot: str | None) -> int | None:
    """Thousands of images from a snapshot's name; None if the name says nothing."""
    found = re.search(r"network-snapshot-(\d+)", snapshot or "")
    return int(found[1]) if found else None


def versions() -> dict[str, str]:
    """Of what computes."""
    return {"sg3": sg3.__version__, "torch": torch.__version__, "numpy": np.__version__,
            "python": platform.python_version()}  # fmt: skip
