"""Metrics of network files: which ones of a run are missing, in how many processes, and where the results go.

A run folder keeps its results in metric-NAME.jsonl, each as soon as it is there. What is there already, of the same
network, dataset and seed, is not computed again, so that a run that was interrupted goes on where it was.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
from torch.multiprocessing.spawn import ProcessExitedException, ProcessRaisedException, spawn

from sg3 import errors
from sg3._version import __version__
from sg3.canvas import Size, shown_part, spelled
from sg3.device import choose_device, device_for_work
from sg3.errors import MissingInputError, Sg3Error, UsageError
from sg3.formats import Snapshot, averaged_generator, fetch_remote, is_remote, load
from sg3.formats.digest import sha256_of
from sg3.formats.snapshot import visible_part
from sg3.local_ranks import check_ranks
from sg3.metrics import results
from sg3.metrics.detectors import Detector, open_detector
from sg3.metrics.driver import compute
from sg3.metrics.equivariance_psnr import Equivariance
from sg3.metrics.memorization import TrainingSetMetric
from sg3.metrics.metric import Metric
from sg3.metrics.real_images import RealImages
from sg3.metrics.recorder import bars_in_record, needs_dataset
from sg3.metrics.results import MetricResult
from sg3.metrics.views import OVER, over_colour
from sg3.models import Generator
from sg3.named_paths import nothing_at
from sg3.processes import World, already_met, meet_in
from sg3.run_folder import is_run, newest_snapshot, snapshots
from sg3.terminal import say


class Display(Protocol):
    """Who is told, in the first process. It travels to other processes, so it can be pickled."""

    def progress(self, what: str, done: int, total: int) -> None:
        """How far a part of the work is."""

    def result(self, line: dict[str, Any], known: bool) -> None:
        """A line of metric-NAME.jsonl; `known` if it was there before."""

    def close(self) -> None:
        """There will be no more, for now."""


@dataclass(frozen=True)
class Job:
    """What to evaluate, and how. `data` and `mirror` stand in for what the network file says."""

    snapshots: tuple[Path, ...]
    metrics: tuple[Metric, ...]
    data: Path | None = None
    mirror: bool | None = None
    device: str = "auto"
    seed: int = 0
    batch: int = 32
    workers: int = 0
    detector_dir: Path | None = None
    cache: bool = True
    again: bool = False  # also what is there already
    graphs: bool = True  # CUDA graphs on a GPU
    intervals: bool = False
    test: Path | None = None  # real images that training has not seen
    sheet: Path | None = None  # where a picture of what may be memorised goes
    weights: tuple[tuple[str, str], ...] = ()  # names of detectors, and the file or address of each
    background: str = "white"  # of images with alpha
    bars: bool = False  # images between black bars with them


def find_snapshots(source: str, every: bool) -> tuple[Path, ...]:
    """A file itself, downloaded if need be; of a run folder its newest network snapshot, or all of them in order.

    Raises MissingInputError if there is none, UsageError for all of a file.
    """
    network = Path(source)
    if not network.is_dir():
        if every:
            raise UsageError(f"--all: needs a run folder, which {source} is not")
        if is_remote(source):
            return (fetch_remote(source),)
        if not network.is_file():
            raise nothing_at(source)
        return (network,)
    newest = newest_snapshot(network)
    return tuple(snapshots(network)) if every else (newest,)


def measure(job: Job, display: Display) -> None:
    """Compute what is due, in this process (one of several, if they have met)."""
    try:
        _measure(job, display)
    finally:
        display.close()


def _measure(job: Job, display: Display) -> None:
    device = device_for_work(job.device)
    world = already_met(device)
    detectors: dict[str, Detector] = {}
    for path in job.snapshots:
        snapshot = load(path, device)
        for note in snapshot.notes if world.is_main else ():
            say(f"note: {note}")
        G = averaged_generator(snapshot, path)
        dataset = real_images_of(job, path, snapshot, G)
        visible = visible_of(snapshot, dataset, G)
        if visible is not None and world.is_main:
            what = "are measured, too" if job.bars else f"are cut off, {spelled(visible)} are measured (--bars: all)"
            say(f"note: {path.name}: black bars {what}")
        folder = path.parent if is_run(path.parent) else None
        digest = sha256_of(path)
        known = world.on_main(partial(_known, job, folder, path, digest, G, dataset, visible))
        if world.is_main:
            for line in known.values():
                display.result(line, True)

        def finished(
            result: MetricResult, path: Path = path, folder: Path | None = folder, digest: str = digest,
            nimg: int | float | None = (snapshot.progress or {}).get("cur_nimg"),
        ) -> None:
            counted = {} if nimg is None else {"cur_nimg": nimg}
            result = replace(result, recipe={**result.recipe, "network_sha256": digest, **counted})
            if folder is not None:
                results.append(folder, result, path.name)
            display.result(result.as_dict(path.name), False)

        due = [metric for metric in job.metrics if metric.name not in known]
        if due:
            open_named(job, due, world, detectors)
            compute(
                due, G, dataset, device=device, seed=job.seed, batch=job.batch, workers=job.workers,
                detector_dir=job.detector_dir, detectors=detectors, on_result=finished, cache=job.cache,
                progress=display.progress if world.is_main else None, graphs=job.graphs,
                intervals=job.intervals, background=job.background, visible=visible, bars=job.bars, sheet=job.sheet,
                test=test_images(job, dataset),
            )  # fmt: skip


def open_named(job: Job, metrics: Sequence[Metric], world: World, opened: dict[str, Detector]) -> None:
    """Add to the `opened` detectors those of `metrics` whose file or address the job names. If one of several
    processes cannot, all raise what `open_detector` raises."""
    used = {metric.detector for metric in metrics}
    for name, source in job.weights:
        if name in used and name not in opened:
            opened[name] = world.together(partial(open_detector, name, world.device, source=source))


def measure_in_processes(job: Job, display: Display, count: int) -> None:
    """The same, the work shared out among `count` processes: one for each GPU, or all on the CPU.

    Raises what one of them raises, UsageError if there are too few GPUs.
    """
    on_gpu = choose_device(job.device).type == "cuda"
    if on_gpu and torch.cuda.device_count() < count:
        raise UsageError(f"--gpus={count}: {torch.cuda.device_count()} GPUs found; --device=cpu works without them")
    if not on_gpu:
        check_ranks(count)
    with tempfile.TemporaryDirectory() as folder:
        try:
            spawn(_process, args=(count, folder, on_gpu, job, display), nprocs=count)
        except (ProcessExitedException, ProcessRaisedException):
            reports = sorted(Path(folder).glob("error-*.json"), key=lambda path: path.stat().st_mtime_ns)
            if not reports:
                raise
            kind, message = json.loads(reports[0].read_text())
            raise getattr(errors, kind, Sg3Error)(message) from None


def _process(rank: int, count: int, folder: str, on_gpu: bool, job: Job, display: Display) -> None:
    """One of several processes; leaves a note of what it failed with."""
    if on_gpu:
        torch.cuda.set_device(rank)
    else:
        torch.set_num_threads(max(torch.get_num_threads() // count, 1))
    try:
        device = f"cuda:{rank}" if on_gpu else "cpu"
        world = meet_in(Path(folder), rank, count, torch.device(device))
        measure(replace(job, device=device), display)
        world.close()
    except Sg3Error as error:
        (Path(folder) / f"error-{rank}.json").write_text(json.dumps([type(error).__name__, str(error)]))
        raise SystemExit(error.exit_code) from None


def real_images_of(job: Job, path: Path, snapshot: Snapshot, G: Generator) -> RealImages | None:
    """What a network file says of its training set, changed by what the user says; None if no metric needs it, or
    nobody says anything. Raises MissingInputError if it is not there."""
    kwargs = snapshot.training_set_kwargs or {}
    if not needs_dataset(job.metrics, G) or (job.data is None and not kwargs.get("path")):
        return None
    said = RealImages.from_kwargs({**kwargs, **({} if job.data is None else {"path": job.data})})
    if job.data is None and not said.path.exists():
        raise MissingInputError(f"{said.path}: what {path.name} was trained on is not there; name it with --data")
    mirror = said.xflip if job.mirror is None else job.mirror
    return replace(said, xflip=mirror, use_labels=said.use_labels or G.c_dim > 0)


def visible_of(snapshot: Snapshot, dataset: RealImages | None, G: Generator) -> Size | None:
    """What lies between the black bars of a network's images, as its file says it or else the real images do.

    Raises UsageError if these contradict each other.
    """
    said = shown_part(G, visible_part(snapshot))
    found = None if dataset is None else dataset.open().visible
    if dataset is not None and None not in (said, found) and said != found:
        assert said is not None
        assert found is not None
        raise UsageError(f"{dataset.path}: images of {spelled(found)} between black bars, the network makes "
                         f"{spelled(said)} between its own; name the dataset it was trained on with --data")
    return said or shown_part(G, found)


def test_images(job: Job, dataset: RealImages | None) -> RealImages | None:
    """The real images that training has not seen, if the user names some: all of them, none mirrored."""
    if job.test is None or dataset is None:
        return None
    return replace(dataset, path=job.test, xflip=False, use_labels=False, max_size=None)


def _known(
    job: Job, folder: Path | None, path: Path, digest: str, G: Generator, dataset: RealImages | None,
    visible: Size | None,
) -> dict[str, dict[str, Any]]:  # fmt: skip
    """By metric, the lines that the run folder has of this network, dataset and seed, made by this version."""
    if job.again or folder is None:
        return {}
    known = {}
    data_hash = None if dataset is None else dataset.open().content_hash()
    test_hash = None if job.test is None else RealImages(job.test).open().content_hash()
    for metric in job.metrics:
        expected_data = data_hash if needs_dataset([metric], G) else None
        for line in results.read(folder, metric.name):
            recipe = line.get("recipe")
            if not isinstance(recipe, dict) or line.get("snapshot_pkl") != path.name:
                continue
            same = recipe.get("network_sha256") == digest and recipe.get("seed") == job.seed
            same = same and recipe.get("versions", {}).get("sg3") == __version__
            same = same and (recipe.get("dataset") or {}).get("sha256") == expected_data
            if dataset is not None and metric.real is not None and "mirrored" in recipe:
                same = same and recipe["mirrored"] == dataset.is_mirrored(metric.real)
            if "background" in recipe:
                same = same and f"{OVER}{recipe['background']}" == over_colour(job.background)
            if not isinstance(metric, Equivariance):
                same = same and recipe.get("bars") == bars_in_record(visible, job.bars)
            if isinstance(metric, TrainingSetMetric):
                same = same and recipe.get("test_dataset") == test_hash and job.sheet is None
            if same and (not job.intervals or "intervals" in line):
                known[metric.name] = line
    return known
