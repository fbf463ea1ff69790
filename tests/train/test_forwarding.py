"""--log-to: what the sinks get, in which order, over several lives, and that none of them can end a run."""

from __future__ import annotations

import json
import sqlite3
import sys
import time
import types
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from sg3.errors import MissingInputError
from sg3.run_folder import fakes_path
from sg3.train import forwarding, sinks
from sg3.train.forwarding import Forwarding
from sg3.train.sinks import require_sinks, sink_names, sink_problems

CUT = "cut off, 256x144 left"


class Recorder:
    """A sink that remembers."""

    def __init__(self, run_dir: Path, config: Mapping[str, Any], identity: str, start_nimg: int) -> None:
        self.identity = identity
        self.got: list[tuple[str, int]] = []
        self.fails = ""
        self.takes = 0.0
        self.closes_in = 0.0

    def numbers(self, values: Mapping[str, float], nimg: int) -> None:
        if self.fails:
            raise RuntimeError(self.fails)
        time.sleep(self.takes)
        self.got.append((" ".join(f"{name}={value:g}" for name, value in values.items()), nimg))

    def picture(self, name: str, path: Path, nimg: int) -> None:
        self.got.append((f"{name} {path.name}", nimg))

    def close(self) -> None:
        time.sleep(self.closes_in)


@pytest.fixture
def run_dir(tmp_path) -> Path:
    """Three ticks, a grid at the first and the last, metrics of the first."""
    write_ticks(tmp_path, 0.064, 4.096, 8.128)
    for kimg in (0, 8):
        Image.new("RGB", (4, 4)).save(fakes_path(tmp_path, kimg * 1000))
    write_metric(tmp_path, 0, 300.0)
    return tmp_path


def write_ticks(folder: Path, *kimg: float) -> None:
    with open(folder / "stats.jsonl", "a") as file:
        for value in kimg:
            line = {"Progress/kimg": {"num": 1, "mean": value}, "bad": {"mean": float("nan")}, "timestamp": 1.0}
            file.write(json.dumps(line) + "\n")


def write_metric(folder: Path, kimg: int, value: float | None, **recipe: object) -> None:
    line = {"results": {"fid1k": value}, "snapshot_pkl": f"network-snapshot-{kimg:06d}.pkl", "recipe": recipe}
    with open(folder / "metric-fid1k.jsonl", "a") as file:
        file.write(json.dumps(line) + "\n")


def forward(run_dir: Path, nimg: int, monkeypatch, warnings: list[str] | None = None) -> tuple[Forwarding, Recorder]:
    made: list[Recorder] = []

    def open_sink(*args: Any) -> Recorder:
        made.append(Recorder(*args))
        return made[-1]

    monkeypatch.setitem(sinks.SINKS, "trackio", (open_sink, "trackio"))
    said = [] if warnings is None else warnings
    return Forwarding(run_dir, ["trackio"], {}, nimg, said.append), made[0]


ALL = [("Progress/kimg=0.064", 64), ("Metrics/fid1k=300", 64), ("fakes fakes000000.png", 64),
       ("Progress/kimg=4.096", 4096), ("Progress/kimg=8.128", 8128), ("fakes fakes000008.png", 8128)]  # fmt: skip


def test_a_sink_that_comes_late_gets_everything_at_its_place(run_dir, monkeypatch) -> None:
    forwarded, sink = forward(run_dir, 8128, monkeypatch)
    forwarded.pass_on()
    assert sink.got == ALL
    forwarded.pass_on()
    assert sink.got == ALL


def test_each_thing_comes_once_and_steps_go_forward(run_dir, monkeypatch) -> None:
    forwarded, sink = forward(run_dir, 0, monkeypatch)
    forwarded.pass_on()
    sink.got.clear()
    write_ticks(run_dir, 12.16)
    write_metric(run_dir, 8, None)
    write_metric(run_dir, 12, 200.0)
    forwarded.pass_on()
    assert sink.got == [("Progress/kimg=12.16", 12160), ("Metrics/fid1k=200", 12160)]


def test_what_is_measured_late_counts_for_the_last_tick(run_dir, monkeypatch) -> None:
    forwarded, sink = forward(run_dir, 0, monkeypatch)
    forwarded.pass_on()
    sink.got.clear()
    write_metric(run_dir, 4, 250.0)
    write_metric(run_dir, 9, 200.0)  # of a tick whose line is not there yet
    forwarded.pass_on()
    assert sink.got == [("Metrics/fid1k=250", 8128), ("Metrics/fid1k=200", 9000)]


def test_metrics_that_cannot_be_compared_have_names_of_their_own(run_dir, monkeypatch) -> None:
    write_metric(run_dir, 8, 30.0, background="#ffffff", seed=1)  # another seed is no other metric
    write_metric(run_dir, 8, 20.0, bars=CUT)
    forwarded, sink = forward(run_dir, 8128, monkeypatch)
    forwarded.pass_on()
    write_metric(run_dir, 12, 25.0, bars=CUT, mirrored=True)
    write_metric(run_dir, 12, 15.0)
    forwarded.pass_on()
    assert [what for what, _ in sink.got if what.startswith("Metrics")] == [
        "Metrics/fid1k=300", f"Metrics/fid1k=30 Metrics/fid1k (bars {CUT})=20",
        f"Metrics/fid1k (bars {CUT})=25 Metrics/fid1k=15"]  # fmt: skip


def test_the_next_life_goes_on_where_the_last_one_was(run_dir, monkeypatch) -> None:
    first, before = forward(run_dir, 0, monkeypatch)
    first.pass_on()
    write_ticks(run_dir, 12.16)
    second, sink = forward(run_dir, 8128, monkeypatch)
    second.pass_on()
    assert sink.identity == before.identity
    assert sink.got == [("Progress/kimg=12.16", 12160)]


def test_what_lies_beyond_the_state_comes_again(run_dir, monkeypatch) -> None:
    forward(run_dir, 0, monkeypatch)[0].pass_on()
    forwarded, sink = forward(run_dir, 4096, monkeypatch)
    forwarded.pass_on()
    assert sink.got == [("Progress/kimg=8.128", 8128), ("fakes fakes000008.png", 8128)]


@pytest.mark.parametrize(
    "content",
    ["[]", "{", '{"trackio": 3}', '{"trackio": {"id": "../x", "nimg": 1}}',
     '{"trackio": {"id": "a", "nimg": 1e9, "measured": 9, "pictured": 9}}'],
)  # fmt: skip
def test_a_damaged_record_begins_anew(run_dir, monkeypatch, content) -> None:
    (run_dir / "logged.json").write_text(content)
    forwarded, sink = forward(run_dir, 8128, monkeypatch)
    forwarded.pass_on()
    assert sink.got == ALL


def test_a_sink_that_fails_is_left_out_and_said_once(run_dir, monkeypatch) -> None:
    warnings: list[str] = []
    forwarded, sink = forward(run_dir, 0, monkeypatch, warnings)
    sink.fails = "no \x1b[31mroute"
    forwarded.pass_on()
    forwarded.pass_on()
    assert warnings == [
        "warning: --log-to=trackio: RuntimeError: no ?[31mroute; it gets nothing more of this run, training goes on"
    ]
    assert sink.got == []


def test_a_sink_that_hangs_is_left_out_too(run_dir, monkeypatch) -> None:
    monkeypatch.setattr(forwarding, "GIVE_SECONDS", 0.1)
    warnings: list[str] = []
    forwarded, sink = forward(run_dir, 0, monkeypatch, warnings)
    sink.takes = 30
    began = time.monotonic()
    with forwarded:
        forwarded.pass_on()
        forwarded.pass_on()
    assert time.monotonic() - began < 10
    (warning,) = warnings
    assert warning.startswith("warning: --log-to=trackio: TimeoutError: no answer within 0.1 s; it gets nothing more")


def test_a_sink_that_never_opens_is_left_out_too(run_dir, monkeypatch) -> None:
    monkeypatch.setattr(forwarding, "OPEN_SECONDS", 0.1)
    monkeypatch.setitem(sinks.SINKS, "trackio", (lambda *_: time.sleep(30), "trackio"))
    warnings: list[str] = []
    with Forwarding(run_dir, ["trackio"], {}, 0, warnings.append) as forwarded:
        forwarded.pass_on()
    assert [line.partition(";")[0] for line in warnings] == [
        "warning: --log-to=trackio: TimeoutError: no answer within 0.1 s"]  # fmt: skip


def test_nobody_waits_long_for_a_sink_to_close(run_dir, monkeypatch) -> None:
    monkeypatch.setattr(forwarding, "CLOSE_SECONDS", 0.1)
    forwarded, sink = forward(run_dir, 0, monkeypatch)
    sink.closes_in = 30
    began = time.monotonic()
    with forwarded:
        pass
    assert time.monotonic() - began < 10


def test_names() -> None:
    assert sink_names("none") == ()
    assert sink_names("wandb,trackio,wandb") == ("wandb", "trackio")
    assert sink_problems("wanb") == ["--log-to=wanb: expected tensorboard, wandb, trackio, auto or none"]


def test_one_that_is_not_installed_is_named_with_its_extra(monkeypatch) -> None:
    monkeypatch.setattr(sinks, "is_installed", lambda name: False)
    with pytest.raises(MissingInputError, match=r"^--log-to=wandb: is not installed; pip install 'sg3\[wandb\]'"):
        require_sinks("wandb")


def test_weights_and_biases_gets_the_run_by_its_name(monkeypatch, tmp_path) -> None:
    calls: list[tuple[str, Any]] = []
    run = types.SimpleNamespace(
        log=lambda values, step: calls.append(("log", (values, step))),
        finish=lambda quiet: calls.append(("finish", quiet)),
    )
    package = types.SimpleNamespace(
        init=lambda **said: calls.append(("init", said)) or run, Settings=lambda **said: said, Image=lambda path: path
    )
    monkeypatch.setitem(sys.modules, "wandb", package)
    monkeypatch.setenv("WANDB_PROJECT", "faces")
    sink = sinks.WeightsAndBiases(tmp_path / "00003-x", {"batch": 4}, "abc", 0)
    sink.numbers({"a": 1.0}, 64)
    sink.picture("fakes", tmp_path / "x.png", 64)
    sink.close()
    said = calls[0][1]
    assert (said["project"], said["name"], said["id"], said["resume"]) == ("faces", "00003-x", "abc", "allow")
    assert calls[1:] == [("log", ({"a": 1.0}, 64)), ("log", ({"fakes": str(tmp_path / "x.png")}, 64)), ("finish", True)]


def test_a_run_feeds_its_sink(run, discs, tmp_path, monkeypatch) -> None:
    made: list[Recorder] = []
    monkeypatch.setattr(sinks, "is_installed", lambda name: True)
    monkeypatch.setitem(sinks.SINKS, "trackio", (lambda *args: made.append(Recorder(*args)) or made[-1], "trackio"))
    result = run("train", f"--data={discs}", f"--outdir={tmp_path}", "--log-to=trackio", "--batch=50", "--kimg=1",
                 "--cfg=stylegan2", "--cbase=128", "--cmax=8", "--latent=8", "--map-depth=1", "--mbstd-group=2",
                 "--tick=1", "--snap=1", "--grid=2x2", "--workers=0", "--device=cpu", "--aug=noaug")  # fmt: skip
    assert result.code == 0, result.err
    assert [(what.split("=")[0], nimg) for what, nimg in made[0].got if what.startswith("fakes")] == [
        ("fakes fakes000000.png", 50), ("fakes fakes000001.png", 1000)]  # fmt: skip
    assert [nimg for what, nimg in made[0].got if "Loss/G/loss=" in what] == [50, 1000]


@pytest.mark.slow
def test_tensorboard_itself(run_dir) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with Forwarding(run_dir, ["tensorboard"], {}, 8128, pytest.fail) as forwarded:
        forwarded.pass_on()
    write_ticks(run_dir, 12.16)
    write_metric(run_dir, 12, 20.0, bars=CUT)
    with Forwarding(run_dir, ["tensorboard"], {}, 12160, pytest.fail) as forwarded:
        forwarded.pass_on()
    events = EventAccumulator(str(run_dir)).Reload()
    assert [(e.step, round(e.value, 3)) for e in events.Scalars("Progress/kimg")] == [
        (0, 0.064), (4, 4.096), (8, 8.128), (12, 12.16)]  # fmt: skip
    assert [e.step for e in events.Images("fakes")] == [0, 8]
    assert [e.value for e in events.Scalars("Metrics/fid1k")] == [300]
    assert [e.value for e in events.Scalars(f"Metrics/fid1k (bars {CUT})")] == [20]


@pytest.mark.slow
def test_weights_and_biases_itself(run_dir, monkeypatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    with Forwarding(run_dir, ["wandb"], {"batch": 4}, 8128, pytest.fail) as forwarded:
        forwarded.pass_on()
    assert list(run_dir.glob("wandb/offline-run-*/*.wandb"))
    assert len(list(run_dir.glob("wandb/offline-run-*/files/media/images/*.png"))) == 2


@pytest.mark.slow
def test_trackio_itself(run_dir, monkeypatch, capsys) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(run_dir / "trackio"))  # which it reads when it is imported
    pytest.importorskip("trackio")
    with Forwarding(run_dir, ["trackio"], {"batch": 4}, 8128, pytest.fail) as forwarded:
        forwarded.pass_on()
    assert capsys.readouterr().out == ""
    # All of it is there when the run ends, without another program's help.
    (database,) = (run_dir / "trackio").glob("*.db")
    with closing(sqlite3.connect(database)) as opened:
        rows = opened.execute("select step, metrics from metrics order by step").fetchall()
    values = [(step, name, value) for step, text in rows for name, value in json.loads(text).items()]
    for expected in ((64, "Progress/kimg", 0.064), (8128, "Progress/kimg", 8.128), (64, "Metrics/fid1k", 300.0)):
        assert expected in values
    assert sum(name == "fakes" for _, name, _ in values) == 2
    assert len(list((run_dir / "trackio").rglob("*.png"))) == 2
