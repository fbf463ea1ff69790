"""`sg3.open_run`: what a run has made, as paths and arrays."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sg3 import run_folder
from sg3.api.checks import listener, path_of
from sg3.errors import DataError, MissingInputError
from sg3.formats import Snapshot, load
from sg3.metrics.results import meaning, read, unlike
from sg3.named_paths import Kind, to_read
from sg3.terminal import printable
from sg3.train.callbacks import Callbacks, Event
from sg3.train.spawn import Ended, run_on

Listener = Callable[[Event], object]
Columns = dict[str, NDArray[np.float64]]


@dataclass(frozen=True)
class Run:
    """A run folder. Everything is read from its files when it is asked for, also while the run goes on."""

    path: Path

    def __fspath__(self) -> str:
        return str(self.path)

    @property
    def config(self) -> dict[str, Any]:
        """The configuration with all defaults. Raises DataError for a damaged file."""
        config = run_folder.read_options(self.path).get("config")
        if not isinstance(config, dict):
            raise DataError(f"{self.path / run_folder.OPTIONS}: has no configuration; the run is damaged")
        return config

    @property
    def kimg(self) -> float:
        """Thousands of images at the end of the last tick, 0 before that."""
        shown = self.statistics().get("Progress/kimg")
        return 0.0 if shown is None or not len(shown) else float(shown[-1])

    @property
    def snapshots(self) -> list[Path]:
        """Its network files, the oldest first."""
        return run_folder.snapshots(self.path)

    @property
    def end(self) -> dict[str, Any] | None:
        """How its last life ended: exit_code (0: done, 75: stopped and saved, ...), message, kimg, started and ended in
        seconds since 1970. None while it goes on, or if nothing could be written."""
        try:
            return run_folder.read_object(self.path / run_folder.EXIT)
        except FileNotFoundError:
            return None

    def statistics(self) -> Columns:
        """By the names of stats.jsonl, such as Progress/kimg and Loss/G/loss, the mean over each tick [ticks]; NaN
        where a tick has none."""
        lines = [
            {name: entry.get("mean") for name, entry in line.items() if isinstance(entry, dict)}
            for line in run_folder.read_lines(self.path / run_folder.STATS)
        ]
        return _columns(lines)

    def metrics(self) -> dict[str, Columns]:
        """By metric: kimg and the values of every snapshot that was measured, the newest measurement of each, [N].
        `metrics()["fid5k_full"]["fid5k_full"]` against `["kimg"]` is its curve. Values that cannot be compared with the
        newest line's, such as with black bars and without, are left out."""
        curves = {}
        for name in run_folder.metric_names(self.path):
            newest: dict[int, dict[str, Any]] = {}
            lines = list(read(self.path, name))
            means = meaning(lines[-1]) if lines else {}
            for line in lines:
                kimg = run_folder.kimg_of(line.get("snapshot_pkl"))
                if kimg is not None and not unlike(meaning(line), means):
                    newest[kimg] = {"kimg": kimg, **line["results"]}
            curves[name] = _columns([newest[kimg] for kimg in sorted(newest)])
        return curves

    def best(self, metric: str) -> Path:
        """The snapshot that was best by a metric of training, from best.json. Raises MissingInputError if there is
        none, or it was removed since."""
        try:
            entries = run_folder.read_object(self.path / run_folder.BEST)
        except FileNotFoundError:
            entries = {}
        entry = entries.get(metric)
        name = entry.get("snapshot") if isinstance(entry, dict) else None
        if not isinstance(name, str) or run_folder.kimg_of(name) is None or Path(name).name != name:
            meant = f"; name one of {printable(', '.join(entries), 500)}" if entries and metric not in entries else ""
            raise MissingInputError(f"{self.path}: has measured no snapshot by {printable(metric)}{meant}")
        if not (self.path / name).is_file():
            raise MissingInputError(f"{self.path / name}: the best snapshot by {printable(metric)} is not there")
        return self.path / name

    def load(self, snapshot: Path | None = None, device: str = "cpu") -> Snapshot:
        """The networks of a snapshot, by default the newest. Raises what `sg3.load` raises."""
        return load(run_folder.newest_snapshot(self.path) if snapshot is None else snapshot, device)

    def continue_training(
        self, on_tick: Listener | None = None, on_snapshot: Listener | None = None, **changes: Any
    ) -> Run:
        """Go on where its newest state is, bit for bit, and return the run. `changes` are options of `sg3 train` that
        may change in a run, such as `kimg=200`; callbacks and errors are those of `sg3.fit`."""
        return run_of(run_on(str(self.path), None, as_words(changes), called_back(on_tick, on_snapshot)))


def open_run(path: str | os.PathLike[str]) -> Run:
    """A run folder, of a run that goes on or is over. Raises MissingInputError for a folder that is none."""
    folder = path_of("path", path, "a run folder", to_read, Kind.FOLDER)
    if not run_folder.is_run(folder):
        run_folder.read_options(folder)  # raises, with the reason
    return Run(folder)


def run_of(ended: Ended) -> Run:
    """A run that has ended well, or else what it ended with is raised."""
    ended.raise_failure()
    assert ended.run_dir is not None
    return Run(ended.run_dir)


def called_back(on_tick: Listener | None, on_snapshot: Listener | None) -> Callbacks:
    """Raises UsageError for what cannot be called."""
    listener("on_tick", on_tick)
    listener("on_snapshot", on_snapshot)
    return Callbacks(on_tick, on_snapshot)


def as_words(said: Mapping[str, Any]) -> dict[str, Any]:
    """Options as the command line has them: without None, lists of names with commas, NumPy's numbers as Python's."""
    words = {}
    for name, value in said.items():
        if isinstance(value, (list, tuple)) and all(isinstance(item, str) for item in value):
            words[name] = ",".join(value) or "none"
        elif isinstance(value, np.generic):
            words[name] = value.item()
        elif isinstance(value, torch.device):
            words[name] = str(value)
        elif value is not None:
            words[name] = value
    return words


def _columns(lines: Iterable[dict[str, Any]]) -> Columns:
    """The numbers of each name over all lines, NaN where a line has none."""
    rows = [{name: v for name, v in line.items() if isinstance(v, (int, float))} for line in lines]
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: np.array([row.get(name, np.nan) for row in rows], dtype=np.float64) for name in names}
