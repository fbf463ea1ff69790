"""`compute`: metrics of a generator.

    one pass over images for all that compare features -> class by class -> path lengths -> equivariance

Every process of the default torch.distributed group calls it alike, and every one gets the results.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import cast

import torch

from sg3.canvas import Size, shown_part, size_of
from sg3.data.dataset import ImageFolderDataset
from sg3.durations import format_time_brief
from sg3.errors import UsageError
from sg3.metrics.detectors import Detector, Dinov2Detector, open_detector
from sg3.metrics.equivariance_psnr import Equivariance, check_transform, equivariance
from sg3.metrics.features import FeatureMetric, Findings, RealComparison, generated_statistics
from sg3.metrics.fwd import WaveletDistance, check_shape
from sg3.metrics.memorization import TrainingSetMetric, training_set
from sg3.metrics.memorization_sheet import draw_sheet
from sg3.metrics.metric import Metric
from sg3.metrics.path_length import PathLength, path_length
from sg3.metrics.per_class import PerClass, per_class
from sg3.metrics.pixels import Pixels
from sg3.metrics.progress import Progress, Report
from sg3.metrics.real_images import RealImages, check_fits
from sg3.metrics.real_statistics import RealStatistics
from sg3.metrics.recorder import Call, Recorder, bars_in_record, needs_dataset, shared_facts
from sg3.metrics.results import MetricResult
from sg3.metrics.samples import Samples, random_labels
from sg3.metrics.statistics import Statistics, StatisticsSpec, TrainingSet
from sg3.metrics.views import ALPHA, background_of
from sg3.models import Generator, StyleGenerator
from sg3.processes import Stopped, already_met
from sg3.terminal import say
from sg3.transparency import has_alpha


def compute(
    metrics: Sequence[Metric],
    G: Generator,
    dataset: RealImages | None = None,
    *,
    device: torch.device | str,
    seed: int = 0,
    batch: int = 32,
    workers: int = 0,
    detector_dir: Path | None = None,
    detectors: dict[str, Detector] | None = None,
    progress: Report | None = None,
    stop: Callable[[], object] | None = None,
    on_result: Callable[[MetricResult], object] | None = None,
    cache: bool = True,
    graphs: bool = False,
    intervals: bool = False,
    background: str = "white",
    visible: Size | None = None,
    bars: bool = False,
    test: RealImages | None = None,
    sheet: Path | None = None,
) -> list[MetricResult]:
    """Evaluate the generator `G` by these metrics, which `sg3.metrics.parse` makes of their names.

    dataset: the real images, also the source of labels for a conditional network. batch: images at a time; results do
    not depend on it, nor on the number of processes, but for rounding. workers: processes that decode real images.
    detectors: networks that are open already, by name; what else is needed is opened, from `detector_dir` if given, and
    added. progress gets (what, done, total), in every process and of its own part. on_result gets each result as it is
    finished, in the first process only. cache: keep statistics of the real images in $SG3_CACHE/metrics.
    graphs: make images by CUDA graphs on a GPU, which takes memory that a training run beside it may lack.
    intervals: with 95 % confidence intervals (`intervals.py` says of what), which keep every image's features in memory
    and compute a Frechet distance 21 times.
    background: detectors see images with alpha over this colour, a part of the metric's definition; comparisons with
    real images also give a second number, NAME_alpha, of the alpha plane alone.
    visible: of images between black bars, the height and width that are none: detectors see this part of real and of
    generated ones alike, unless `bars` asks for all of both.
    test: real images that training has not seen, for metrics that ask what it has memorised; without, those that it
    left out. sheet: where a picture of what it may have memorised goes, by the first such metric.

    `G` is copied and stays as it is, and so do torch's random states. When `stop` returns something true, what is
    finished until then is returned.

    Raises UsageError (network or dataset that does not fit), MissingInputError (dataset or detector not
    found), DataError, StorageError (images that cannot be read).
    """
    metrics = list(dict.fromkeys(metrics))
    device = torch.device(device)
    world = already_met(device)
    if batch < 1:
        raise UsageError(f"batch={batch}: expected at least 1")
    shown = shown_part(G, visible)
    if not needs_dataset(metrics, G):
        dataset = None

    def prepare() -> Call:
        data = None if dataset is None else dataset.open()
        tests = None if test is None else test.open()
        part = None if bars else shown
        _check(metrics, G, dataset, data, test, part)
        if tests is not None and test is not None:
            check_fits(tests, G.img_channels, size_of(G), test.path)
        opened = {} if detectors is None else detectors
        for name in sorted({metric.detector for metric in metrics if metric.detector is not None}):
            if name not in opened:
                opened[name] = open_detector(name, device, detector_dir)
        network = copy.deepcopy(G).eval().requires_grad_(False).to(device)
        pixels = Pixels((_seen_channels(G), *(part or size_of(G))))
        seen = {**opened, pixels.name: pixels}
        labels, watched = random_labels(G, data, seed), Progress(progress, stop)
        real, unseen = (None if images is None else replace(images, visible=part) for images in (dataset, test))
        return Call(
            network, labels, real, data, seen, seed, world, watched, intervals, background, unseen, tests, sheet,
            part, bars_in_record(shown, bars),
        )  # fmt: skip

    results: list[MetricResult] = []

    def finished(result: MetricResult) -> None:
        results.append(result)
        world.together(lambda: on_result(result) if on_result is not None and world.is_main else None)

    with _random_states_kept():
        call = world.together(prepare)
        try:
            for result in _results(call, metrics, batch, workers, cache, graphs):
                finished(result)
        except Stopped:
            pass
    return results


def _results(
    call: Call, metrics: Sequence[Metric], batch: int, workers: int, cache: bool, graphs: bool
) -> Iterator[MetricResult]:
    device = next(call.G.parameters()).device
    samples = Samples(call.G, call.labels, call.seed, batch, graphs, call.visible)
    record = Recorder(call, call.world.on_main(lambda: shared_facts(call, device, samples.batch)))
    statistics = None
    if call.dataset is not None and any(metric.real is not None for metric in metrics):
        statistics = RealStatistics(
            call.dataset, call.detectors, call.world, call.progress, device, batch=batch, workers=workers, cache=cache
        )

    pooled = [metric for metric in metrics if isinstance(metric, FeatureMetric)]
    if pooled:
        held_out = None
        if call.test is not None:
            held_out = RealStatistics(
                call.test, call.detectors, call.world, call.progress, device, batch=batch, workers=workers, cache=cache
            )
        yield from _pooled(call, pooled, samples, statistics, held_out, record)
    by_class = [metric for metric in metrics if isinstance(metric, PerClass)]
    if by_class:
        began = time.monotonic()
        assert statistics is not None
        assert call.data is not None
        all_found = per_class(by_class, samples, call.data, statistics, call.progress, call.view, call.intervals)
        for one, of_one in zip(by_class, all_found, strict=True):
            yield record(one, of_one.values, began, len(call.data), of_one.facts, of_one.intervals)
    for metric in metrics:
        began = time.monotonic()
        if isinstance(metric, PathLength):
            detector = call.detectors[metric.detector]
            G = cast(StyleGenerator, call.G)
            found = path_length(
                metric, G, call.labels, detector, call.seed, call.world, call.progress, call.intervals,
                background_of(call.view), call.visible,
            )  # fmt: skip
            yield record(metric, found.values, began, intervals=found.intervals)
    moved = [metric for metric in metrics if isinstance(metric, Equivariance)]
    if moved:
        began = time.monotonic()
        G = cast(StyleGenerator, call.G)
        found = equivariance(moved, G, call.labels, call.seed, call.world, call.progress, call.intervals)
        for metric in moved:
            of_it = {name: x for name, x in found.intervals.items() if name == metric.name}
            yield record(metric, {metric.name: found.values[metric.name]}, began, intervals=of_it)


def _pooled(
    call: Call, metrics: list[FeatureMetric], samples: Samples, statistics: RealStatistics | None,
    held_out: RealStatistics | None, record: Recorder,
) -> Iterator[MetricResult]:
    """All metrics that compare features: the real images, then one pass over generated ones, then the formulas."""
    shared = time.monotonic()
    real_specs: dict[tuple[Metric, str], StatisticsSpec] = {}
    specs: dict[tuple[Metric, str], StatisticsSpec] = {}
    for metric in metrics:
        views = [call.view]
        if isinstance(metric, RealComparison):
            assert call.data is not None
            assert call.dataset is not None
            count, mirrored = call.dataset.count(call.data, metric.real), call.dataset.is_mirrored(metric.real)
            views += [ALPHA] if call.view and not isinstance(metric, TrainingSetMetric) else []
            of_real = metric.real_statistics(count, mirrored)
            real_specs |= {(metric, view): replace(of_real, view=view) for view in views}
        specs |= {(metric, view): replace(metric.generated_statistics(call.intervals), view=view) for view in views}
    real = statistics.get(set(real_specs.values())) if statistics is not None and real_specs else {}
    for name in sorted({spec.detector for spec in specs.values()}):
        detector = call.detectors[name]
        if isinstance(detector, Dinov2Detector) and detector.device.type == "cpu" and call.world.is_main:
            counts = [max((spec.count for spec in of.values() if spec.detector == name), default=0)
                      for of in (specs, real_specs)]  # fmt: skip
            _foretell(detector, *counts)
    test_specs = {
        metric: StatisticsSpec(metric.source, "features", mirrored=False, count=len(call.tests), view=call.view)
        for metric in metrics if isinstance(metric, TrainingSetMetric) and call.tests is not None
    }  # fmt: skip
    unseen = held_out.get(set(test_specs.values())) if held_out is not None and test_specs else {}
    sheet = call.sheet
    what = "generated images"
    made = generated_statistics(set(specs.values()), samples, call.detectors, call.world, call.progress, what)
    shared = time.monotonic() - shared
    for metric in metrics:
        began = time.monotonic() - shared
        detector, real_spec = call.detectors[metric.source], real_specs.get((metric, call.view))
        call.progress.tell(metric.name, 0, 1)

        def numbers(view: str, metric: FeatureMetric = metric, detector: Detector = detector) -> Findings:
            spec = real_specs.get((metric, view))
            of_real = None if spec is None else real[spec]
            if isinstance(metric, TrainingSetMetric):
                assert isinstance(of_real, torch.Tensor)
                assert call.dataset is not None
                assert call.data is not None
                tests = unseen.get(test_specs[metric]) if metric in test_specs else None
                of_real = training_set(call.dataset, call.data, of_real, tests, call.tests)
            generated = _finite(metric, made[specs[metric, view]])
            return metric.evaluate(of_real, generated, detector, call.seed, call.intervals)

        found = call.world.on_main(partial(numbers, call.view))
        if (metric, ALPHA) in specs:
            found = _with_alpha(found, call.world.on_main(partial(numbers, ALPHA)))
        call.progress.tell(metric.name, 1, 1)
        facts = {**metric.definition(detector), **found.facts, **({"notes": list(found.notes)} if found.notes else {})}
        if sheet is not None and found.examples:
            call.world.on_main(partial(_draw, call, samples, metric, found, sheet))
            sheet = None
        num_real = None if real_spec is None else real_spec.count
        yield record(metric, found.values, began, num_real, facts, found.intervals)


def _with_alpha(found: Findings, of_alpha: Findings) -> Findings:
    """The numbers of images over a background, and behind them those of alpha alone."""
    values = {f"{name}_alpha": value for name, value in of_alpha.values.items()}
    intervals = {f"{name}_alpha": interval for name, interval in of_alpha.intervals.items()}
    notes = found.notes + tuple(f"alpha: {note}" for note in of_alpha.notes if note not in found.notes)
    return replace(found, values=found.values | values, notes=notes, intervals=found.intervals | intervals)


def _check(
    metrics: Sequence[Metric], G: Generator, dataset: RealImages | None, data: ImageFolderDataset | None,
    test: RealImages | None, visible: Size | None,
) -> None:  # fmt: skip
    """Everything that can be known to be wrong before hours are spent. Raises UsageError."""
    moved = [metric.name for metric in metrics if isinstance(metric, Equivariance)]
    if moved:
        check_transform(G, moved)
    for metric in metrics:
        if isinstance(metric, PathLength) and not isinstance(G, StyleGenerator):
            raise UsageError(f"{metric.name}: walks through w, which only StyleGAN generators have")
        if isinstance(metric, WaveletDistance):
            check_shape(metric.name, (_seen_channels(G), *(visible or size_of(G))))
        if metric.detector is not None and not 1 <= G.img_channels <= 4:
            raise UsageError(f"{metric.name}: detectors see 1 or 3 channels, this network makes {G.img_channels}")
        if metric.real is None:
            continue
        if data is None or dataset is None:
            raise UsageError(f"{metric.name}: compares with real images; name them with --data")
        check_fits(data, G.img_channels, size_of(G), dataset.path)
        count = dataset.count(data, metric.real)
        if count < metric.real.least:
            raise UsageError(f"{metric.name}: needs at least {metric.real.least} real images, {dataset.path} has "
                             f"{count}")
        if isinstance(metric, TrainingSetMetric):
            trained_on, left_out = dataset.split(len(data))
            if len(trained_on) < metric.least_real:
                raise UsageError(f"{metric.name}: needs at least {metric.least_real} training images")
            if metric.needs_held_out and test is None and not len(left_out):
                raise UsageError(f"{metric.name}: needs real images that training has not seen; name some with "
                                 "--test-data, or train with --holdout=0.1")
        if isinstance(metric, PerClass) and not (data.has_onehot_labels and G.c_dim > 0):
            raise UsageError(f"{metric.name}: needs a conditional network and a dataset with classes")


def _draw(call: Call, samples: Samples, metric: FeatureMetric, found: Findings, path: Path) -> None:
    assert call.data is not None
    draw_sheet(path, found.examples, samples, call.data, call.tests or call.data, metric.name)


def _foretell(detector: Dinov2Detector, gen: int, real: int) -> None:
    """Say how long this will take, before it begins: a second an image is nothing to learn from a progress bar."""
    black = torch.zeros(1, 3, 1, 1, dtype=torch.uint8)
    detector.features(black)
    began = time.monotonic()
    detector.features(black)
    seconds = time.monotonic() - began
    say(f"{detector.name}: {seconds:.2f} s an image on this CPU, {format_time_brief(seconds * gen)} for {gen} "
        f"generated ones and, unless they are known, {format_time_brief(seconds * real)} for {real} real ones, shared "
        "out among the processes")


def _seen_channels(G: Generator) -> int:
    """Of its images, as detectors see them."""
    return 3 if has_alpha(G.img_channels) else G.img_channels


def _finite(metric: Metric, statistics: Statistics | None) -> Statistics:
    """Statistics of generated images, with a name for what the formulas would only call NaN. Raises UsageError."""
    assert statistics is not None
    assert not isinstance(statistics, TrainingSet)
    tensor = statistics if isinstance(statistics, torch.Tensor) else statistics.total
    if not bool(torch.isfinite(tensor).all()):
        raise UsageError(f"{metric.name}: features of generated images are not finite; the detector does not fit")
    return statistics


@contextmanager
def _random_states_kept() -> Iterator[None]:
    """Give torch's random states back as they were, on all devices: training must not notice that it was measured."""
    devices = range(torch.cuda.device_count() if torch.cuda.is_initialized() else 0)
    with torch.random.fork_rng(devices=list(devices)):
        yield
