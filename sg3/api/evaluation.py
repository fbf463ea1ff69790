"""`sg3.evaluate`: metrics of a network."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from sg3.api.checks import listener, names_of, path_of, refuse, switch, text, whole
from sg3.api.networks import IN_MEMORY, Network
from sg3.device import device_for_work
from sg3.errors import UsageError
from sg3.formats import Snapshot, averaged_generator, name_of
from sg3.metrics import compute, parse
from sg3.metrics.detector_files import SOURCES
from sg3.metrics.detectors import Detector
from sg3.metrics.intervals import differences
from sg3.metrics.memorization import Authenticity
from sg3.metrics.network_files import (
    Job,
    find_snapshots,
    measure,
    measure_in_processes,
    open_named,
    real_images_of,
    test_images,
    visible_of,
)
from sg3.models import Generator
from sg3.named_paths import Kind, to_read, to_write
from sg3.processes import already_met
from sg3.progress import Progress
from sg3.resources import loaders
from sg3.run_folder import append_line, read_lines
from sg3.terminal import printable, say


def evaluate(
    network: Network,
    metrics: str | Iterable[str] = "fid50k_full",
    *,
    data: str | os.PathLike[str] | None = None,
    mirror: bool | None = None,
    seed: int = 0,
    gpus: int = 1,
    batch: int = 32,
    workers: int | None = None,
    detector_dir: str | os.PathLike[str] | None = None,
    detector: Mapping[str, str | os.PathLike[str]] | None = None,
    cache: bool = True,
    again: bool = False,
    intervals: bool = False,
    against: Network | None = None,
    test_data: str | os.PathLike[str] | None = None,
    sheet: str | os.PathLike[str] | None = None,
    background: str = "white",
    bars: bool = False,
    graphs: bool = True,
    device: str = "auto",
    on_result: Callable[[dict[str, Any]], object] | None = None,
) -> dict[str, float]:
    """Measure a network as `sg3 metrics` does: all numbers by their names, `{"fid5k_full": 12.3}`, NaN for none.

    `network`: a run (its newest snapshot), a file, an address, a published network's name, or what is in memory.
    `metrics`: names as in `sg3 metrics`. `data`: the real images, by default what the network was trained on;
    `mirror`: mirrored ones as well. Results of a run's snapshots are added to its metric-NAME.jsonl, and what is there
    is not measured `again`. `detector`: files or addresses of detectors' weights, by name, such as `{"dinov2": FILE}`.
    `intervals`: 95 % confidence intervals, in the lines that `on_result` gets. `against`: another network; how much
    larger each value is than its is NAME_difference, with an interval in the line's "difference". `test_data`:
    real images that training has not seen, for `auth` and `ct`; `sheet`: a PNG of the training images nearest to
    generated ones, by the first of `auth` among the metrics. `background`: what detectors see images with alpha over.
    `bars`: images between black bars with them; else metrics look at what lies between. `gpus` processes share the
    work; `graphs`: CUDA graphs on a GPU. `on_result` gets each result with its recipe, as these files have them.

    Raises UsageError, DataError, MissingInputError, StorageError as the command.
    """
    chosen = tuple(dict.fromkeys(parse(name) for name in names_of("metrics", metrics)))
    if not chosen:
        raise UsageError("metrics: names none, expected a list such as ['fid50k_full', 'kid50k_full']")
    listener("on_result", on_result)
    gpus = whole("gpus", gpus, least=1)
    job = Job(
        (), chosen, None if data is None else path_of("data", data, check=to_read),
        None if mirror is None else switch("mirror", mirror), device,
        whole("seed", seed), whole("batch", batch, least=1),
        loaders() if workers is None else whole("workers", workers),
        None if detector_dir is None else path_of("detector_dir", detector_dir, "a folder", to_read, Kind.FOLDER),
        switch("cache", cache), switch("again", again), intervals=switch("intervals", intervals),
        test=None if test_data is None else path_of("test_data", test_data, check=to_read),
        sheet=None if sheet is None else path_of("sheet", sheet, check=to_write, kind=Kind.FILE),
        background=text("background", background, "a colour"), bars=switch("bars", bars),
        weights=_weights(detector), graphs=switch("graphs", graphs),
    )  # fmt: skip
    if sheet is not None and not any(isinstance(metric, Authenticity) for metric in chosen):
        raise UsageError(f"sheet={os.fspath(sheet)}: is drawn by authenticity; add 'auth_lite1' to the metrics")
    if sheet is not None and against is not None:
        raise UsageError("sheet: shows one network; leave against out")
    if against is None:
        lines = _measured(job, network, gpus)
    else:
        job = replace(job, intervals=True)
        others = {line["metric"]: line for line in _measured(job, against, gpus)}
        lines = _measured(job, network, gpus)
        for line in lines:
            line["difference"] = differences(line, others[line["metric"]], lambda note: say(f"note: {note}"))
    found: dict[str, float | None] = {}
    for line in lines:
        if on_result is not None:
            on_result(line)
        found |= line["results"]
        found |= {f"{name}_difference": known["value"] for name, known in line.get("difference", {}).items()}
    return {name: float("nan") if value is None else value for name, value in found.items()}


def _weights(detector: object) -> tuple[tuple[str, str], ...]:
    """Names of detectors, and the file or address of each. Raises UsageError."""
    if detector is None:
        return ()
    if not isinstance(detector, Mapping):
        refuse("detector", detector, "files by name, such as {'dinov2': 'weights.pth'}")
    for name, source in detector.items():
        if name not in SOURCES:
            raise UsageError(f"detector: {printable(name)}: unknown, choose from {', '.join(SOURCES)}")
        if not isinstance(source, (str, os.PathLike)):
            refuse(f"detector[{name!r}]", source, "a file or an address")
    return tuple((name, os.fspath(source)) for name, source in detector.items())


def _measured(job: Job, network: Network, gpus: int) -> list[dict[str, Any]]:
    """The lines of all metrics."""
    if isinstance(network, (Snapshot, Generator)):
        if gpus > 1:
            raise UsageError(f"gpus={gpus}: each process reads the network from its file; save it, and name the file")
        return _measure_in_memory(job, network if isinstance(network, Snapshot) else Snapshot(G_ema=network))
    job = replace(job, snapshots=find_snapshots(name_of(network, IN_MEMORY), every=False))
    with TemporaryDirectory() as folder:
        display = Lines(Path(folder) / "results.jsonl")
        if gpus > 1:
            measure_in_processes(job, display, gpus)
        else:
            measure(job, display)
        return list(read_lines(display.path))


def _measure_in_memory(job: Job, snapshot: Snapshot) -> list[dict[str, Any]]:
    G = averaged_generator(snapshot, "the network")
    real = real_images_of(job, Path("the network"), snapshot, G)
    device = device_for_work(job.device)
    detectors: dict[str, Detector] = {}
    open_named(job, job.metrics, already_met(device), detectors)
    with Progress() as progress:
        results = compute(
            job.metrics, G, real, device=device, seed=job.seed, batch=job.batch, workers=job.workers,
            detector_dir=job.detector_dir, detectors=detectors, cache=job.cache, graphs=job.graphs,
            progress=progress.show, intervals=job.intervals, test=test_images(job, real), sheet=job.sheet,
            background=job.background, visible=visible_of(snapshot, real, G), bars=job.bars,
        )  # fmt: skip
    return [result.as_dict() for result in results]


@dataclass
class Lines:
    """Gathers results in a file, for they may come from another process; progress on stderr."""

    path: Path
    _progress: Progress = field(default_factory=Progress, repr=False)

    def progress(self, what: str, done: int, total: int) -> None:
        """Show it."""
        self._progress.show(what, done, total)

    def result(self, line: dict[str, Any], known: bool) -> None:
        """Keep it."""
        append_line(self.path, json.dumps(line))

    def close(self) -> None:
        """Take the bar away."""
        self._progress.hide()
