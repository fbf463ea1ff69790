"""Metrics of a run's snapshots, during training: computed by all ranks, written by the first, the best one remembered.

Nothing here touches training's random numbers; metrics on or off, the same weights come out.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sg3.atomic import write_json
from sg3.errors import DataError, UsageError
from sg3.formats import averaged_generator, load
from sg3.formats.digest import sha256_of
from sg3.metrics import MetricResult, RealImages, compute, parse
from sg3.metrics.detector_files import is_to_be_downloaded
from sg3.metrics.detectors import Detector, open_detector
from sg3.metrics.equivariance_psnr import Equivariance
from sg3.metrics.memorization import TrainingSetMetric
from sg3.metrics.metric import Metric
from sg3.metrics.results import append, meaning, read, unlike
from sg3.models import Generator
from sg3.processes import World
from sg3.run_folder import BEST, keep_lines, kimg_of, metric_names, metric_path, read_object, snapshots
from sg3.terminal import printable
from sg3.train.config import TrainConfig
from sg3.train.display import Display
from sg3.train.stop import StopSignals


class Evaluation:
    """Evaluates one snapshot after the other, and knows which was the best by each metric."""

    def __init__(self, config: TrainConfig, run_dir: Path, world: World, display: Display) -> None:
        self._config = config
        self._metrics = _metrics_of(config)
        self._run_dir = run_dir
        self._world = world
        self._display = display
        self._detectors: dict[str, Detector] = {}  # opened at the first snapshot, and kept
        d = config.dataset
        self._real = RealImages(
            Path(d.path), use_labels=config.cond, xflip=config.mirror, resolution=d.image_size, max_size=config.subset,
            random_seed=config.seed,
        )  # fmt: skip

    def run(
        self,
        G_ema: Generator,
        snapshot: Path,
        stop: StopSignals,
        beat: Callable[[], None],
        metrics: Sequence[Metric] | None = None,
        nimg: int | None = None,
    ) -> None:
        """Metrics (all of the run's) of the averaged generator after `nimg` images, if that is known, one line of its
        file each. Ends early when asked to stop."""

        def progress(what: str, done: int, total: int) -> None:
            self._display.specify(f"measuring {what}, {done} of {total}")
            beat()

        digest = sha256_of(snapshot) if self._world.is_main else ""

        def note(result: MetricResult) -> None:
            counted = {} if nimg is None else {"cur_nimg": nimg}
            result = replace(result, recipe={**result.recipe, "network_sha256": digest, **counted})
            append(self._run_dir, result, snapshot.name)
            # fid50k has one value of its own name, pr50k3 has pr50k3_precision and pr50k3_recall.
            metric = result.metric.name
            short = {name.removeprefix(metric).lstrip("_"): value for name, value in result.results.items()}
            values = ", ".join(f"{name} {value:.4f}".lstrip() for name, value in short.items())
            best = self._remember(result, snapshot.name)
            self._display.message(f"{metric}: {values} ({result.seconds:.0f} s){', the best so far' * best}")
            for words in result.recipe.get("notes", ()):
                self._display.message(f"{metric}: {words}")

        compute(
            self._metrics if metrics is None else metrics, G_ema, self._real, device=self._world.device,
            batch=max(self._config.batch_gpu, 8), workers=self._config.workers, detectors=self._detectors,
            detector_dir=_detector_dir(self._config), progress=progress, stop=lambda: stop.is_asked, on_result=note,
            visible=self._config.dataset.visible,
        )  # fmt: skip
        beat()

    def catch_up(self, G_ema: Generator, nimg: int, stop: StopSignals, beat: Callable[[], None]) -> None:
        """Metrics that earlier lives of the run, which is at `nimg` images, were stopped in or have not got to.

        `G_ema` is a network like the snapshots', and stays as it is.
        """
        for name, metrics in self._world.on_main(lambda: self._missed(nimg)):
            if self._world.as_main(stop.is_asked)[0]:
                return
            path = self._run_dir / name
            words = ", ".join(metric.name for metric in metrics)
            self._display.message(f"{name}: measuring what an earlier life of the run has not got to: {words}")
            self.run(self._network_of(path, G_ema), path, stop, beat, metrics)

    def _network_of(self, path: Path, like: Generator) -> Generator:
        """The averaged generator of a snapshot, which lies where the first rank is; one `like` it on every rank."""
        G = copy.deepcopy(like)
        G.load_state_dict(self._world.on_main(lambda: averaged_generator(load(path), path).state_dict()))
        return G

    def _missed(self, nimg: int) -> list[tuple[str, list[Metric]]]:
        """File names of snapshots, and which of the run's metrics they lack: the newest one all that it has no results
        of, an earlier one those that were in use by then, for a snapshot before it has them."""
        paths = [path for path in snapshots(self._run_dir) if (kimg_of(path.name) or 0) * 1000 <= nimg]
        missed: dict[str, list[Metric]] = {path.name: [] for path in paths}
        for metric in self._metrics:
            known = {line.get("snapshot_pkl"): _digest_in(line) for line in read(self._run_dir, metric.name)}
            in_use = False
            for path in paths:
                is_known = path.name in known
                if path is paths[-1]:  # which the run may have written anew since
                    is_known = is_known and known[path.name] == sha256_of(path)
                    in_use = True
                if in_use and not is_known:
                    missed[path.name].append(metric)
                in_use = in_use or is_known
        return [(name, metrics) for name, metrics in missed.items() if metrics]

    def best_snapshots(self) -> set[str]:
        """File names of the best snapshots so far."""
        return {entry["snapshot"] for entry in self._read_best().values()}

    def forget_after(self, nimg: int) -> None:
        """Drop what later snapshots than the one a run continues from have left: they will come again."""
        limit = nimg / 1000
        for name in metric_names(self._run_dir):
            path = metric_path(self._run_dir, name)
            keep_lines(path, lambda line: (kimg_of(line.get("snapshot_pkl")) or 0) <= limit)
        best = {k: v for k, v in self._read_best().items() if (kimg_of(v["snapshot"]) or 0) <= limit}
        if best != self._read_best():
            self._write_best(best)

    def _remember(self, result: MetricResult, snapshot: str) -> bool:
        """Whether this is the best value so far; if so, write it down. The first of several results decides."""
        metric = result.metric
        name, value = next(iter(result.results.items()))
        best = self._read_best()
        known = best.get(metric.name)
        if known is not None and (words := self._unlike_best(result, known)):
            self._display.message(f"{metric.name}: {known['snapshot']}, the best so far, was measured otherwise "
                                  f"({words}), which cannot be compared; the best is looked for anew")
            known = None
        sign = -1 if metric.less_is_better else 1
        if not math.isfinite(value) or (known is not None and sign * value <= sign * known["value"]):
            return False
        best[metric.name] = {"result": name, "value": value, "snapshot": snapshot}
        self._write_best(best)
        return known is not None

    def _unlike_best(self, result: MetricResult, best: dict[str, Any]) -> str:
        """How the best value was measured, if it cannot be compared with this result; nothing if it can."""
        for line in read(self._run_dir, result.metric.name):
            if line.get("snapshot_pkl") == best["snapshot"] and best["value"] in line["results"].values():
                return unlike(meaning(line), meaning({"recipe": result.recipe}))
        return ""

    def _read_best(self) -> dict[str, dict[str, Any]]:
        """Metric -> its best value, and the snapshot that has it. Raises DataError for what is no such file."""
        path = self._run_dir / BEST
        try:
            best = read_object(path)
        except FileNotFoundError:  # none yet
            return {}
        for metric, entry in best.items():
            match entry:
                case {"value": int() | float() as value, "snapshot": str()} if math.isfinite(value):
                    pass
                case _:
                    raise DataError(f"{path}: {printable(metric)} has not a value and a snapshot; remove the file")
        return best

    def _write_best(self, best: dict[str, dict[str, Any]]) -> None:
        write_json(self._run_dir / BEST, best)


def open_evaluation(
    config: TrainConfig, run_dir: Path, world: World, display: Display, nimg: int
) -> Evaluation | None:
    """For a run that goes on after `nimg` images; None for one without metrics."""
    if not config.metrics:
        return None
    evaluation = Evaluation(config, run_dir, world, display)
    if world.is_main:
        evaluation.forget_after(nimg)
    return evaluation


def _digest_in(line: dict[str, Any]) -> Any:
    """Of the network that a line of metric-NAME.jsonl is about."""
    recipe = line.get("recipe")
    return recipe.get("network_sha256") if isinstance(recipe, dict) else None


def check_metrics(config: TrainConfig, look_only: bool = False) -> list[str]:
    """Before there is a run folder. Raises UsageError for a metric that does not exist or that the network cannot
    have, MissingInputError for one without its feature network.

    With `look_only` nothing is downloaded: returns the feature networks that would be.
    """
    metrics = _metrics_of(config)
    for metric in metrics:
        if isinstance(metric, TrainingSetMetric) and metric.needs_held_out and config.subset is None:
            raise UsageError(f"--metrics={metric.name}: needs images that training does not see; add --holdout=0.1")
        if isinstance(metric, Equivariance) and not config.follows_input_transform:
            raise UsageError(
                f"--metrics={metric.name}: measures how images follow the input transform; {config.cfg} has none"
            )
    absent = []
    for detector in sorted({metric.detector for metric in metrics if metric.detector is not None}):
        if look_only and is_to_be_downloaded(detector, _detector_dir(config)):
            absent.append(detector)
        else:
            open_detector(detector, folder=_detector_dir(config))
    return absent


def _metrics_of(config: TrainConfig) -> list[Metric]:
    return [parse(name) for name in config.metrics]


def _detector_dir(config: TrainConfig) -> Path | None:
    return None if config.detector_dir is None else Path(config.detector_dir)
