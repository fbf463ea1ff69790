"""A run as it is now, finished or not: its snapshots, its curves, its real images and fakes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from math import isfinite
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from sg3 import run_folder
from sg3.errors import MissingInputError, UsageError
from sg3.plain_files import open_plain
from sg3.terminal import printable
from sg3.viewer.catalogue import Catalogue
from sg3.viewer.requests import explained, needed
from sg3.viewer.settings import Whole
from sg3.viewer.viewer import Viewer

A_RUN = "the name of a run from /api/networks"
MOST_POINTS = 300  # of a curve
MOST_BYTES = 2**26  # of an image or of the statistics that are read
CURVES = ("Loss/G/loss", "Loss/D/loss", "Loss/scores/real", "Loss/scores/fake", "Progress/augment", "Loss/r1_penalty")


def routes(viewer: Viewer) -> list[Route]:
    """All of it."""

    async def run(request: Request) -> Response:
        return JSONResponse(await asyncio.to_thread(describe, viewer.catalogue, needed(request, "run", A_RUN)))

    async def images(request: Request) -> Response:
        which, kimg = request.query_params.get("which", "reals"), request.query_params.get("kimg")
        try:
            until = None if kimg is None else Whole(0, 10**9).read(kimg)
        except ValueError as error:
            raise UsageError(f"kimg: {error}") from None
        data = await asyncio.to_thread(image, viewer.catalogue, needed(request, "run", A_RUN), which, until)
        return Response(data, media_type="image/png")

    return [Route("/api/run", explained(viewer, run)), Route("/api/run.png", explained(viewer, images))]


def describe(catalogue: Catalogue, name: str) -> dict[str, Any]:
    """Snapshots, curves over thousands of images, metrics. Raises MissingInputError."""
    folder = _folder(catalogue, name)
    entries = [entry for entry in catalogue.entries().values() if entry.run == name and entry.kimg is not None]
    lines = list(_lines(folder / run_folder.STATS, MOST_POINTS))
    curves: dict[str, list[tuple[float, float]]] = {}
    for line in lines:
        kimg = _mean(line, "Progress/kimg")
        for curve in CURVES:
            value = _mean(line, curve)
            if kimg is not None and value is not None:
                curves.setdefault(curve, []).append((kimg, value))
    metrics: dict[str, list[tuple[float, float]]] = {}
    for metric in run_folder.metric_names(folder):
        for line in _lines(run_folder.metric_path(folder, metric)):
            kimg = run_folder.kimg_of(str(line.get("snapshot_pkl")))
            results = line.get("results")
            for key, value in results.items() if isinstance(results, dict) else ():
                if kimg is not None and isinstance(value, int | float) and isfinite(value):
                    metrics.setdefault(printable(key, 60), []).append((kimg, float(value)))
    return {
        "run": name, "snapshots": [{"name": entry.name, "kimg": entry.kimg} for entry in entries],
        "curves": curves, "metrics": metrics, "kimg": _mean(lines[-1], "Progress/kimg") if lines else None,
        "ended": (folder / run_folder.EXIT).is_file(),
    }  # fmt: skip


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


def _lines(path: Path, most: int | None = None) -> Iterable[dict[str, Any]]:
    try:
        if path.stat().st_size > MOST_BYTES:
            return []
    except OSError:
        return []
    return run_folder.read_lines(path, most=most)


def _mean(line: dict[str, Any], name: str) -> float | None:
    entry = line.get(name)
    value = entry.get("mean") if isinstance(entry, dict) else None
    return float(value) if isinstance(value, int | float) and isfinite(value) else None
