"""A run as it is now, finished or not: its snapshots, its curves, its real images and fakes."""

from __future__ import annotations

import asyncio
import threading
from collections import OrderedDict
from collections.abc import Iterable
from math import isfinite
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from sg3 import run_folder
from sg3.errors import MissingInputError, UsageError
from sg3.metrics.results import meaning, unlike
from sg3.plain_files import open_plain
from sg3.terminal import printable
from sg3.viewer.catalogue import Catalogue
from sg3.viewer.growing import Growing, Take
from sg3.viewer.requests import explained, needed
from sg3.viewer.settings import Whole
from sg3.viewer.viewer import Viewer

A_RUN = "the name of a run from /api/networks"
MOST_POINTS = 300  # of a curve
MOST_BYTES = 2**26  # of an image
MOST_FILES = 100  # of statistics and metrics that are remembered
MOST_RESULTS = 100  # of a line
CURVES = ("Loss/G/loss", "Loss/D/loss", "Loss/scores/real", "Loss/scores/fake", "Progress/augment", "Loss/r1_penalty")


def routes(viewer: Viewer) -> list[Route]:
    """All of it."""
    runs = Runs(viewer.catalogue)

    async def run(request: Request) -> Response:
        return JSONResponse(await asyncio.to_thread(runs.describe, needed(request, "run", A_RUN)))

    async def images(request: Request) -> Response:
        which, kimg = request.query_params.get("which", "reals"), request.query_params.get("kimg")
        try:
            until = None if kimg is None else Whole(0, 10**9).read(kimg)
        except ValueError as error:
            raise UsageError(f"kimg: {error}") from None
        data = await asyncio.to_thread(image, viewer.catalogue, needed(request, "run", A_RUN), which, until)
        return Response(data, media_type="image/png")

    return [Route("/api/run", explained(viewer, run)), Route("/api/run.png", explained(viewer, images))]


class Runs:
    """The runs that are looked at, and what of their files has been read."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._files: OrderedDict[Path, Growing] = OrderedDict()
        self._lock = threading.Lock()

    def describe(self, name: str) -> dict[str, Any]:
        """Snapshots, curves over thousands of images, metrics. Raises MissingInputError."""
        folder = _folder(self._catalogue, name)
        entries = [e for e in self._catalogue.entries().values() if e.run == name and e.kimg is not None]
        ticks = self._file(folder / run_folder.STATS, _tick).values(MOST_POINTS)
        curves: dict[str, list[tuple[float, float]]] = {}
        for kimg, means in ticks:
            for curve, value in means.items():
                curves.setdefault(curve, []).append((kimg, value))
        metrics: dict[str, list[tuple[float, float]]] = {}
        for metric in run_folder.metric_names(folder):
            lines = self._file(run_folder.metric_path(folder, metric), _result).values()
            for kimg, (results, means) in lines:
                if unlike(means, lines[-1][1][1]):  # such as with black bars, and now without
                    continue
                for key, value in results.items():
                    metrics.setdefault(key, []).append((kimg, value))
        return {
            "run": name, "snapshots": [{"name": entry.name, "kimg": entry.kimg} for entry in entries],
            "curves": curves, "metrics": metrics, "kimg": ticks[-1][0] if ticks else None,
            "ended": (folder / run_folder.EXIT).is_file(),
        }  # fmt: skip

    def _file(self, path: Path, take: Take) -> Growing:
        with self._lock:
            found = self._files.setdefault(path, Growing(path, take))
            self._files.move_to_end(path)
            while len(self._files) > MOST_FILES:
                self._files.popitem(last=False)
        return found


def _tick(line: dict[str, Any]) -> tuple[float, dict[str, float]] | None:
    kimg = _mean(line, "Progress/kimg")
    means = {curve: value for curve in CURVES if (value := _mean(line, curve)) is not None}
    return None if kimg is None else (kimg, means)


def _result(line: dict[str, Any]) -> tuple[int, tuple[dict[str, float], dict[str, str]]] | None:
    kimg, results = run_folder.kimg_of(str(line.get("snapshot_pkl"))), line.get("results")
    if kimg is None or not isinstance(results, dict):
        return None
    values = {printable(key, 60): float(value) for key, value in list(results.items())[:MOST_RESULTS]
              if isinstance(value, int | float) and isfinite(value)}  # fmt: skip
    return kimg, (values, meaning(line))


def image(catalogue: Catalogue, name: str, which: str, until: int | None = None) -> bytes:
    """The grid of real images, or the newest of fakes, up to `until` thousand images: a PNG. Raises MissingInputError,
    UsageError."""
    folder = _folder(catalogue, name)
    if which == "reals":
        path = folder / run_folder.REALS
    elif which == "fakes":
        made = [run_folder.fakes_path(folder, 1000 * kimg) for kimg in _kimgs(catalogue, name)
                if until is None or kimg <= until]  # fmt: skip
        path = next((path for path in reversed(made) if path.is_file()), folder / run_folder.FAKES_INIT)
    else:
        raise UsageError("which: expected reals or fakes")
    try:
        with open_plain(path, "r") as file:
            data = file.read(MOST_BYTES + 1)
    except OSError:
        raise MissingInputError(f"{name}: has no {path.name} yet") from None
    if len(data) > MOST_BYTES or not data.startswith(b"\x89PNG"):
        raise UsageError(f"{name}: {path.name} is no PNG, or too large to show")
    return data


def _kimgs(catalogue: Catalogue, name: str) -> Iterable[int]:
    return (entry.kimg for entry in catalogue.entries().values() if entry.run == name and entry.kimg is not None)


def _folder(catalogue: Catalogue, name: str) -> Path:
    runs = catalogue.runs()
    if name not in runs:
        raise MissingInputError(f"run={printable(name)}: there is none of that name; see api/networks")
    return runs[name]


def _mean(line: dict[str, Any], name: str) -> float | None:
    entry = line.get(name)
    value = entry.get("mean") if isinstance(entry, dict) else None
    return float(value) if isinstance(value, int | float) and isfinite(value) else None
