"""`import sg3`: fit, generate, evaluate and open_run do what the commands do."""

from __future__ import annotations

import inspect
import json
import re
import subprocess
import sys
import threading
from dataclasses import dataclass, field, fields
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import sg3
from sg3.errors import MissingInputError, UsageError
from sg3.run_folder import states
from tests.conftest import ROOT
from tests.helpers.compare import assert_same

TINY = {
    "batch": 50, "mbstd_group": 2, "aug": "noaug", "cbase": 128, "cmax": 8, "latent": 8, "layers": 3, "margin": 4,
    "map_depth": 1, "tick": 1, "snap": 1, "grid": (3, 2), "workers": 0, "device": "cpu", "kimg": 1,
}  # fmt: skip


@dataclass
class Told:
    """What the callbacks of a run have heard."""

    ticks: list[sg3.TrainingEvent] = field(default_factory=list)
    snapshots: list[Path | None] = field(default_factory=list)

    def tick(self, event: sg3.TrainingEvent) -> None:
        self.ticks.append(event)

    def snapshot(self, event: sg3.TrainingEvent) -> None:
        assert event.snapshot is not None
        assert event.snapshot.is_file()
        self.snapshots.append(event.snapshot)

    def first_tick(self, event: sg3.TrainingEvent) -> None:
        self.tick(event)
        event.stop("enough for now")


@pytest.fixture(scope="module")
def stopped(discs, tmp_path_factory) -> tuple[sg3.Run, Told]:
    """A run that its program has stopped after the first tick."""
    told = Told()
    outdir = tmp_path_factory.mktemp("api")
    run = sg3.fit(discs, outdir=outdir, on_tick=told.first_tick, on_snapshot=told.snapshot, **TINY)
    return run, told


@pytest.fixture(scope="module")
def finished(stopped) -> sg3.Run:
    """The same, continued to its end."""
    return stopped[0].continue_training()


def test_a_callback_stops_the_run_which_saves_its_state(stopped) -> None:
    run, told = stopped
    assert [event.tick for event in told.ticks] == [0]
    assert told.ticks[0].kimg == 0.05
    assert told.ticks[0].statistics["Progress/kimg"] == 0.05
    assert told.snapshots == [run.path / "network-snapshot-000000.pkl"]
    assert states(run.path)


def test_end_says_that_it_was_stopped(discs, tmp_path) -> None:
    told = Told()
    run = sg3.fit(str(discs), outdir=tmp_path, on_tick=told.first_tick, **TINY)
    assert run.end is not None
    assert run.end["exit_code"] == 75
    assert run.end["message"].startswith("enough for now: stopped at 0.10 kimg")


def test_fit_and_continue_train_what_the_command_trains(finished, run, discs, tmp_path) -> None:
    words = [f"--{name.replace('_', '-')}={value}" for name, value in TINY.items() if name != "grid"]
    result = run("train", f"--data={discs}", f"--outdir={tmp_path}", "--grid=3x2", *words)
    assert result.code == 0, result.err
    command = sg3.open_run(result.out.strip())
    assert_same(command.load().G_ema.state_dict(), finished.load().G_ema.state_dict())
    assert {**command.config, "dataset": None} == {**finished.config, "dataset": None}
    assert finished.end["exit_code"] == 0


def test_a_run_as_arrays(finished) -> None:
    statistics = finished.statistics()
    assert statistics["Progress/kimg"].tolist() == [0.05, 1.0]
    assert finished.kimg == 1.0
    assert np.isfinite(statistics["Loss/G/loss"]).all()
    assert [path.name for path in finished.snapshots] == ["network-snapshot-000000.pkl", "network-snapshot-000001.pkl"]
    assert finished.metrics() == {}


def test_missing_statistics_and_lines_that_are_none(finished, tmp_path) -> None:
    (tmp_path / "training_options.json").write_text("{}")
    lines = [{"a": {"mean": 1}}, {"b": {"mean": 2.5}}, {"a": "x", "b": {"mean": None}}]
    (tmp_path / "stats.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + "{cut off")
    statistics = sg3.open_run(tmp_path).statistics()
    np.testing.assert_equal(statistics, {"a": np.array([1, np.nan, np.nan]), "b": np.array([np.nan, 2.5, np.nan])})


def test_metrics_of_snapshots_and_the_best(tmp_path) -> None:
    (tmp_path / "training_options.json").write_text("{}")
    results = [(4, 9.0), (0, 30.0), (8, None), (4, 7.0)]
    lines = [
        {"results": {"fid1k": value}, "snapshot_pkl": f"network-snapshot-{kimg:06d}.pkl"} for kimg, value in results
    ]
    (tmp_path / "metric-fid1k.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    run = sg3.open_run(tmp_path)
    np.testing.assert_equal(run.metrics()["fid1k"], {"kimg": np.array([0.0, 4, 8]), "fid1k": np.array([30, 7, np.nan])})
    with pytest.raises(MissingInputError, match="has measured no snapshot by fid1k"):
        run.best("fid1k")
    best = {"fid1k": {"result": "fid1k", "value": 7.0, "snapshot": "network-snapshot-000004.pkl"}}
    (tmp_path / "best.json").write_text(json.dumps(best))
    with pytest.raises(MissingInputError, match=r"000004\.pkl: the best snapshot by fid1k is not there"):
        run.best("fid1k")
    with pytest.raises(MissingInputError, match=r"has measured no snapshot by fid; name one of fid1k$"):
        run.best("fid")
    (tmp_path / "network-snapshot-000004.pkl").touch()
    assert run.best("fid1k") == tmp_path / "network-snapshot-000004.pkl"
    best["fid1k"]["snapshot"] = "../network-snapshot-000004.pkl"
    (tmp_path / "best.json").write_text(json.dumps(best))
    with pytest.raises(MissingInputError, match="has measured no"):
        run.best("fid1k")


def test_generate_makes_the_pixels_of_the_command(finished, run, tmp_path) -> None:
    settings = ["--trunc=0.7", "--translate=0.1,0", "--rotate=20", "--device=cpu"]
    assert run("generate", f"--network={finished.path}", "--seeds=3-5", f"--outdir={tmp_path}", *settings).code == 0
    G = finished.load().G_ema
    before = G.synthesis.input.transform.clone()
    for network in (finished, G, finished.load(), str(finished.snapshots[-1])):
        pictures = sg3.generate(network, [3, 4, 5], trunc=0.7, translate=(0.1, 0.0), rotate=20, device="cpu")
        assert pictures.shape == (3, 16, 16, 3)
        for seed, picture in zip((3, 4, 5), pictures, strict=True):
            assert np.array_equal(picture, np.asarray(Image.open(tmp_path / f"seed{seed:04d}.png")))
    assert torch.equal(G.synthesis.input.transform, before)
    assert sg3.generate(G, 3, trunc=0.7, device="cpu").shape == (1, 16, 16, 3)
    assert sg3.generate(G, [], device="cpu").shape == (0, 16, 16, 3)


def test_generate_from_latents(finished, tmp_path) -> None:
    G = finished.load().G_ema
    w = G.mapping(sg3.sampling.seed_latents([3], G.z_dim), None)
    np.savez(tmp_path / "w.npz", w=w.numpy())
    expected = sg3.generate(G, 3, device="cpu")
    assert np.array_equal(sg3.generate(finished, latents=tmp_path / "w.npz", device="cpu"), expected)


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({}, "either seeds or latents"),
        ({"seeds": [1], "latents": "x.npz"}, "either seeds or latents"),
        ({"seeds": [-1]}, "seeds=-1: expected a whole number from 0"),
        ({"seeds": [1], "device": "cuda:99"}, "CUDA devices found"),
    ],
)
def test_generate_refuses(finished, settings, why) -> None:
    with pytest.raises(UsageError, match=why):
        sg3.generate(finished, **{"device": "cpu", **settings})


def test_evaluate_gives_the_numbers_of_the_command(finished, run) -> None:
    told: list[dict] = []
    values = sg3.evaluate(finished, ["eqt4_int"], device="cpu", batch=4, on_result=told.append)
    assert list(values) == ["eqt4_int"]
    assert np.isfinite(values["eqt4_int"])
    assert told[0]["results"] == values
    result = run("metrics", f"--network={finished.path}", "--metrics=eqt4_int", "--device=cpu", "--batch=4", "--json")
    assert json.loads(result.out)["results"] == values  # it was there already, from above
    assert finished.metrics()["eqt4_int"]["eqt4_int"].tolist() == [values["eqt4_int"]]
    assert sg3.evaluate(finished.load().G_ema, "eqt4_int", device="cpu", batch=4) == values


@pytest.mark.parametrize(
    ("call", "error", "why"),
    [
        (lambda out: sg3.fit("no.zip", outdir=out, **TINY), MissingInputError, "no.zip"),
        (lambda out: sg3.fit("x.zip", outdir=out, gama=2), UsageError, "did you mean 'gamma'"),
        (lambda out: sg3.fit("x.zip", outdir=out, gamma="two"), UsageError, "--gamma=two: expected a number"),
        (lambda out: sg3.fit("x.zip", outdir=out, preset="demmo"), UsageError, "did you mean demo"),
        (lambda out: sg3.fit("x.zip", outdir=out, config=out / "no.toml"), MissingInputError, "no such file"),
        (lambda out: sg3.fit("x.zip", outdir=out, gpus=2, on_tick=print), UsageError, "torchrun --nproc-per-node=2"),
        (lambda out: sg3.open_run(out), MissingInputError, "is not a run folder"),
        (lambda out: sg3.evaluate(out / "no.pkl"), MissingInputError, "no such file"),
        (lambda out: sg3.evaluate(out / "no.pkl", []), UsageError, "names none"),
        (lambda out: sg3.evaluate(out / "no.pkl", "fid5k", sheet=out / "a.png"), UsageError, "add 'auth_lite1'"),
        (lambda out: sg3.generate(out / "no.pkl", 1), MissingInputError, "no.pkl"),
    ],
)
def test_what_goes_wrong_is_a_typed_error(tmp_path, call, error, why) -> None:
    with pytest.raises(error, match=why):
        call(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_error_in_a_callback_ends_the_run_and_comes_out(discs, tmp_path) -> None:
    def fail(event: sg3.TrainingEvent) -> None:
        raise ZeroDivisionError("of the program")

    with pytest.raises(ZeroDivisionError, match="of the program"):
        sg3.fit(discs, outdir=tmp_path, on_snapshot=fail, **TINY)
    (folder,) = tmp_path.iterdir()
    assert states(folder)


def test_in_processes_of_its_own(discs, tmp_path) -> None:
    with pytest.raises(UsageError, match="exit code 2"):  # which they have explained on stderr
        sg3.fit(discs, outdir=tmp_path, gpus=2, cond=True, **TINY)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_two_processes_train(discs, tmp_path) -> None:
    run = sg3.fit(discs, outdir=tmp_path, gpus=2, **TINY)
    assert run.end["exit_code"] == 0
    assert run.config["gpus"] == 2


def test_training_in_another_thread(discs, tmp_path) -> None:
    """Notebooks and servers do that; signals are the main thread's."""
    runs: list[sg3.Run] = []

    def train() -> None:
        runs.append(sg3.fit(discs, outdir=tmp_path, on_tick=lambda event: event.stop(), **TINY))

    thread = threading.Thread(target=train)
    thread.start()
    thread.join()
    assert runs[0].end["exit_code"] == 75


def test_every_public_name_is_there_and_says_what_it_is() -> None:
    assert set(sg3.__all__) <= set(dir(sg3))
    for name in sg3.__all__:
        value = getattr(sg3, name)
        assert name == "__version__" or inspect.getdoc(value), name
    for name in (name for name in vars(sg3.Run) if not name.startswith("_") and name != "path"):
        assert inspect.getdoc(getattr(sg3.Run, name)), name
    for name, value in vars(sg3.sampling).items():
        if getattr(value, "__module__", "") == "sg3.sampling" and not name.startswith("_"):
            assert inspect.getdoc(value), name
    assert (Path(sg3.__file__).parent / "py.typed").is_file()


def test_every_public_name_is_on_the_page() -> None:
    page = (ROOT / "docs" / "python.md").read_text()
    words = set(re.findall(r"\w+", page))
    assert set(sg3.__all__) - {"__version__"} <= words
    assert {name for name in vars(sg3.Run) if not name.startswith("_")} <= words
    assert {"stop", *(entry.name for entry in fields(sg3.TrainingEvent) if entry.name[0] != "_")} <= words
    assert {name for name, kind in vars(sg3.errors).items() if isinstance(kind, type)} - {"RestartDue"} <= words


def test_seeds_are_numbers_of_32_bits() -> None:
    latents = sg3.sampling.seed_latents(np.array([7, 2**32 - 1]), 4)
    assert latents[0].tolist() == np.random.RandomState(7).randn(4).tolist()
    assert sg3.sampling.seed_latents([], 4).shape == (0, 4)
    for seed in (-1, 2**32):
        with pytest.raises(UsageError, match=f"seed {seed}: expected a whole number from 0 to 4294967295"):
            sg3.sampling.seed_latents([seed], 4)


def test_importing_is_cheap() -> None:
    code = "import sys, sg3; assert 'torch' not in sys.modules; sg3.fit; assert 'torch' in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
