"""Metrics against training time, from the files of a run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sg3.errors import MissingInputError
from sg3.metrics.results import by_meaning, read, unlike
from sg3.plotting import check_plot, new_figure, save_figure
from sg3.run_folder import METRICS, kimg_of, metric_names


def plot(folder: Path, path: Path, names: Sequence[str] = ()) -> int:
    """Draw metrics of a run folder, all of them if none is named, a panel each, into an image file; returns how many.

    Of several values for one snapshot the last one counts. Values that cannot be compared, such as with black bars and
    without, are curves of their own. Raises MissingInputError if there is nothing to draw, and
    what `check_plot` raises.
    """
    check_plot(path, "--plot")
    panels = {name: curves for name in names or metric_names(folder) if (curves := _curves(folder, name))}
    if not panels:
        raise MissingInputError(f"--plot: {folder} holds no {METRICS} with results of its snapshots")
    figure = new_figure((6, 3 * len(panels)))
    axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    for axis, (name, curves) in zip(axes, panels.items(), strict=True):
        for label, points in curves.items():
            if reach := _bands(folder, name).get(label):
                kimg = sorted(reach)
                axis.fill_between(kimg, [reach[x][0] for x in kimg], [reach[x][1] for x in kimg], alpha=0.2)
            axis.plot(*zip(*sorted(points.items()), strict=True), marker="o", markersize=3, label=label)
        axis.set_title(name, fontsize="medium")
        axis.grid(alpha=0.3)
        if len(curves) > 1:
            axis.legend(fontsize="small")
    axes[-1].set_xlabel("kimg")
    save_figure(figure, path, dpi=150)
    return len(panels)


def _curves(folder: Path, name: str) -> dict[str, dict[float, float]]:
    """Result -> {kimg: value}; the spread of a value is no curve of its own."""
    curves: dict[str, dict[float, float]] = {}
    for line, words in _told_apart(folder, name):
        kimg = _kimg(line)
        for label, value in line["results"].items():
            if kimg is not None and isinstance(value, int | float) and math.isfinite(value) and \
                    not label.endswith("_std"):
                curves.setdefault(label + words, {})[kimg] = value
    return curves


def _bands(folder: Path, name: str) -> dict[str, dict[float, tuple[float, float]]]:
    """Result -> {kimg: its confidence interval}."""
    bands: dict[str, dict[float, tuple[float, float]]] = {}
    for line, words in _told_apart(folder, name):
        kimg, intervals = _kimg(line), line.get("intervals")
        if kimg is None or not isinstance(intervals, dict):
            continue
        for label, interval in intervals.items():
            match interval:
                case {"low": int() | float() as low, "high": int() | float() as high}:
                    bands.setdefault(label + words, {})[kimg] = (low, high)
    return bands


def _told_apart(folder: Path, name: str) -> list[tuple[dict[str, Any], str]]:
    """The lines of a metric, each with words for its label: none, unless some cannot be compared with others."""
    lines = list(read(folder, name))
    kind_of, kinds = by_meaning(lines)
    words = [unlike(kind, kinds[-1 if kind is kinds[0] else 0]) for kind in kinds]
    return [(line, f" ({words[kind]})" if words[kind] else "") for line, kind in zip(lines, kind_of, strict=True)]


def _kimg(line: dict[str, Any]) -> float | None:
    """Thousands of images, to the image where the result says how many; a snapshot's name has whole thousands only."""
    recipe = line.get("recipe")
    nimg = recipe.get("cur_nimg") if isinstance(recipe, dict) else None
    if isinstance(nimg, int | float) and 0 <= nimg < 2**60:
        return nimg / 1000
    return kimg_of(line.get("snapshot_pkl"))
