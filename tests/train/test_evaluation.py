"""Metrics during training: they change nothing, leave their files, and know the best snapshot."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from sg3.errors import MissingInputError, StorageError, UsageError
from sg3.formats import download
from sg3.metrics import MetricResult, parse
from sg3.metrics.results import read
from sg3.processes import World
from sg3.run_folder import BEST
from sg3.train import evaluation as evaluation_module
from sg3.train.display import Display
from sg3.train.evaluation import Evaluation, check_metrics, open_evaluation
from sg3.train.loop import Loop
from sg3.train.snapshots import Pruning
from sg3.train.state import load_state
from sg3.train.tick import Moment
from tests.helpers.compare import assert_same
from tests.helpers.runs import tiny_config
from tests.helpers.trainers import StopAfter, comparable, new_trainer

ALONE = World(0, 1, torch.device("cpu"))
AFTER_A_SNAPSHOT = Moment(now=0.0, step=1, ends_run=False, ends_tick=True, snapshot=True, state=False)


def test_what_needs_held_out_images_says_so_before_the_run(discs: Path) -> None:
    with pytest.raises(UsageError, match="--metrics=ct9: needs images that training does not see; add --holdout"):
        check_metrics(tiny_config(discs, metrics="ct9"))
    assert check_metrics(tiny_config(discs, metrics="ct_efflite_9", subset=9), look_only=True) == []


def test_metrics_leave_training_as_it_is(discs: Path, tmp_path: Path) -> None:
    """With and without them the same weights come out, bit for bit; eq* needs no feature network."""
    states = []
    for metrics in ("none", "eqt4_int,eqr4"):
        config = tiny_config(discs, metrics=metrics, kimg=1, batch=200, mbstd_group=1, tick=1, layers=3)
        folder = tmp_path / metrics[:3]
        trainer = new_trainer(config)
        folder.mkdir()
        display = Display(None)
        loop = Loop(trainer, folder, display, open_evaluation(config, folder, ALONE, display, 0))
        loop.run(StopAfter(10**9))
        states.append(load_state(folder, pytest.fail))
    assert_same(comparable(states[0]), comparable(states[1]))
    lines = [json.loads(line) for line in (folder / "metric-eqt4_int.jsonl").read_text().splitlines()]
    assert [line["snapshot_pkl"] for line in lines] == ["network-snapshot-000000.pkl", "network-snapshot-000001.pkl"]
    assert set(lines[0]["recipe"]) >= {"seed", "network_sha256", "versions"}
    assert set(json.loads((folder / BEST).read_text())) == {"eqt4_int", "eqr4"}


def evaluation(tmp_path: Path, monkeypatch, values: list[float], metric: str = "fid1k_full") -> Evaluation:
    """One whose metric gives these values, one after the other."""
    remaining = iter(values)

    def compute(metrics, *_args, on_result, **_more) -> None:
        for metric in metrics:
            on_result(MetricResult(metric, {metric.name: next(remaining)}, 1.0, 1, {}))

    monkeypatch.setattr(evaluation_module, "compute", compute)
    monkeypatch.setattr(evaluation_module, "open_detector", lambda *_: None)
    config = tiny_config(tmp_path / "x.zip", metrics=metric)
    return Evaluation(config, tmp_path, ALONE, Display(None))


def snapshots(tmp_path: Path, count: int) -> list[Path]:
    paths = [tmp_path / f"network-snapshot-{kimg:06d}.pkl" for kimg in range(count)]
    for path in paths:
        path.write_bytes(b"x")
    return paths


@pytest.mark.parametrize(("metric", "best"), [("fid1k_full", 2), ("eqr1k", 1)])
def test_the_best_snapshot_is_remembered(tmp_path: Path, monkeypatch, metric: str, best: int) -> None:
    e = evaluation(tmp_path, monkeypatch, [5.0, 9.0, 3.0, float("nan")], metric)
    stop = SimpleNamespace(is_asked=False)
    for path in snapshots(tmp_path, 4):
        e.run(torch.nn.Identity(), path, stop, lambda: None)
    assert e.best_snapshots() == {f"network-snapshot-{best:06d}.pkl"}
    e.forget_after(nimg=0)
    assert len((tmp_path / f"metric-{metric}.jsonl").read_text().splitlines()) == 1
    assert e.best_snapshots() == set()


def test_the_best_is_of_numbers_that_can_be_compared(tmp_path: Path, monkeypatch) -> None:
    """A run between black bars, begun by a version that measured them: its better numbers are of an easier task."""
    recipes = [{}, {}, {"bars": "cut off, 256x144 left"}, {"bars": "cut off, 256x144 left"}]
    remaining = iter(zip([5.0, 2.0, 9.0, 8.0], recipes, strict=True))

    def compute(metrics, *_args, on_result, **_more) -> None:
        value, recipe = next(remaining)
        on_result(MetricResult(metrics[0], {"fid1k_full": value}, 1.0, 1, recipe))

    said: list[str] = []
    e = evaluation(tmp_path, monkeypatch, [])
    monkeypatch.setattr(evaluation_module, "compute", compute)
    monkeypatch.setattr(e._display, "message", said.append)
    best = []
    for path in snapshots(tmp_path, 4):
        e.run(torch.nn.Identity(), path, SimpleNamespace(is_asked=False), lambda: None)
        best.append(json.loads((tmp_path / BEST).read_text())["fid1k_full"])
    assert [(entry["value"], entry["snapshot"][-7:-4]) for entry in best] == [
        (5.0, "000"), (2.0, "001"), (9.0, "002"), (8.0, "003")]  # fmt: skip
    assert said == [
        "fid1k_full: 5.0000 (1 s)",
        "fid1k_full: 2.0000 (1 s), the best so far",
        "fid1k_full: network-snapshot-000001.pkl, the best so far, was measured otherwise (bars measured), which "
        "cannot be compared; the best is looked for anew",
        "fid1k_full: 9.0000 (1 s)",
        "fid1k_full: 8.0000 (1 s), the best so far",
    ]


def test_a_metric_is_one_line_in_the_log(tmp_path: Path, monkeypatch) -> None:
    """A value that has the metric's own name is not named again, one of several is."""
    said: list[str] = []

    def compute(_metrics, *_args, on_result, **_more) -> None:
        on_result(MetricResult(parse("fid1k_full"), {"fid1k_full": 3.25}, 1.0, 1, {}))
        both = {"pr1k3_full_precision": 0.5, "pr1k3_full_recall": 0.25}
        on_result(MetricResult(parse("pr1k3_full"), both, 2.0, 1, {}))

    e = evaluation(tmp_path, monkeypatch, [])
    monkeypatch.setattr(evaluation_module, "compute", compute)
    monkeypatch.setattr(e._display, "message", said.append)
    e.run(torch.nn.Identity(), snapshots(tmp_path, 1)[0], SimpleNamespace(is_asked=False), lambda: None)
    assert said == [
        "fid1k_full: 3.2500 (1 s)",
        "pr1k3_full: precision 0.5000, recall 0.2500 (2 s)",
    ]


def test_old_snapshots_go_but_not_the_best(tmp_path: Path, monkeypatch) -> None:
    e = evaluation(tmp_path, monkeypatch, [5.0, 1.0, 3.0, 4.0, 6.0])
    paths = snapshots(tmp_path, 5)
    for path in paths:
        e.run(torch.nn.Identity(), path, SimpleNamespace(is_asked=False), lambda: None)
    Pruning(tmp_path, 2, e).run(AFTER_A_SNAPSHOT)
    assert [path.exists() for path in paths] == [False, True, False, True, True]


def test_results_say_after_how_many_images(tmp_path: Path, monkeypatch) -> None:
    """To the image: small runs take several snapshots in a thousand."""
    e = evaluation(tmp_path, monkeypatch, [5.0])
    stop = SimpleNamespace(is_asked=False)
    e.run(torch.nn.Identity(), snapshots(tmp_path, 1)[0], stop, lambda: None, nimg=640)
    (line,) = read(tmp_path, "fid1k_full")
    assert line["recipe"]["cur_nimg"] == 640


def test_wrong_metrics_are_named_before_training(tmp_path: Path, monkeypatch) -> None:
    def offline(url: str, sha256: str | None = None) -> Path:
        raise StorageError(f"{url}: the download failed")

    monkeypatch.setattr(download, "fetch", offline)
    monkeypatch.delenv("SG3_DETECTORS", raising=False)
    check_metrics(tiny_config(metrics="eqt4_int,eqr50k", cfg="stylegan3-r"))
    with pytest.raises(UsageError, match="--metrics=eqr50k: measures how images follow the input transform"):
        check_metrics(tiny_config(metrics="eqr50k", cfg="stylegan2"))
    with pytest.raises(UsageError, match="metric 'fdi': unknown"):
        check_metrics(tiny_config(metrics="fdi"))
    with pytest.raises(MissingInputError, match="inception: no weights"):
        check_metrics(tiny_config(metrics="fid1k", detector_dir=str(tmp_path)))
