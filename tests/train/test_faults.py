"""What else happens to long runs: other numbers of processes, NaN, clocks that jump, plotting that fails."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch

from sg3.data.dataset import ImageFolderDataset
from sg3.errors import NumericalError, TrainingStopped
from sg3.processes import World, join
from sg3.train import bad_steps, spawn
from sg3.train.config import TrainConfig
from sg3.train.feed import real_batches
from sg3.train.state import load_state, save_state
from sg3.train.trainer import Trainer
from sg3.train.watchdog import Watchdog
from tests.helpers import lives, ranks
from tests.helpers.commands import Result, free_port
from tests.helpers.compare import assert_close
from tests.helpers.runs import TINY_ARGS, tiny_config
from tests.helpers.tiny_systems import config_of
from tests.helpers.trainers import StopAfter, new_trainer, run_loop

Run = Callable[..., Result]
ARGS = [*TINY_ARGS, "--aug=noaug"]

# ---- processes ------------------------------------------------------------------------------------------------------


def rank_of(rank: int, size: int, port: int, config: TrainConfig, folder: Path, until: int) -> None:
    """One of several processes that take a run from its last state to step `until`."""
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(size), LOCAL_RANK=str(rank), MASTER_ADDR="127.0.0.1",
                      MASTER_PORT=str(port))  # fmt: skip
    world = join("cpu", size)
    dataset = ImageFolderDataset(config.dataset.path, use_labels=config.cond, xflip=config.mirror)
    trainer = Trainer(config, dataset, world, Watchdog(World(0, 1, world.device), 60, lambda *_: None))
    if folder.exists():
        trainer.load_state_dict(load_state(folder, lambda line: os.abort()))
    batches = real_batches(
        dataset, batch=trainer.local_batch, seed=config.seed, start=trainer.nimg * trainer.system.real_batches,
        workers=0, pin_memory=False, rank=world.rank, ranks=world.size,
    )  # fmt: skip
    while trainer.step < until:
        taken = [next(batches) for _ in range(trainer.system.real_batches)]
        trainer.train_step(*(torch.cat(parts) for parts in zip(*taken, strict=True)))
    state = trainer.state_dict()
    if world.is_main:
        folder.mkdir(exist_ok=True)
        save_state(folder, state)
    world.close()


def train_with(count: int, config: TrainConfig, folder: Path, until: int) -> None:
    port = free_port()
    processes = [lives.begin(rank_of, rank, count, port, config, folder, until) for rank in range(count)]
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0] * count


@pytest.mark.parametrize(
    "name", [*(pytest.param(name, marks=pytest.mark.slow) for name in ("stylegan3-r", "r3gan")), "stylegan2"]
)
def test_two_processes_then_one_then_two(labelled_discs: Path, tmp_path: Path, name: str) -> None:
    """After ten steps everything is where two processes, undisturbed, have it: by L2 norm of each tensor, to 1e-4."""
    config = ranks.configurations(str(labelled_discs))[name]
    train_with(2, config, tmp_path / "whole", 10)
    for count, until in ((2, 3), (1, 6), (2, 10)):
        train_with(count, config, tmp_path / "parts", until)
    whole, parts = (load_state(tmp_path / which, pytest.fail) for which in ("whole", "parts"))
    assert whole["step"] == parts["step"] == 10
    for module in ("G", "D", "G_ema"):
        assert_close(whole[module], parts[module], module)
    for letter in "GD":
        for index, moments in whole["optimizers"][letter]["state"].items():
            assert_close(moments, parts["optimizers"][letter]["state"][index], f"Adam of {letter}, {index}")
    for scalar in ("augment_p", "nimg"):
        assert whole[scalar] == parts[scalar]
    assert torch.equal(whole["ada_signs"], parts["ada_signs"])
    assert ("pl_mean" in whole) == ("pl_mean" in parts) == (name != "r3gan")
    if "pl_mean" in whole:
        torch.testing.assert_close(whole["pl_mean"], parts["pl_mean"], rtol=1e-4, atol=0)


def test_killed_and_continued_at_once(discs: Path, tmp_path: Path) -> None:
    """The loader's processes live on for seconds after their parent was killed; they do not keep the run folder."""
    words = ["train", f"--outdir={tmp_path / 'runs'}", f"--data={discs}", "--kimg=5", *ARGS, "--workers=2"]
    process = lives.begin(lives.command, words, tmp_path)
    lives.wait_for(lambda: list(tmp_path.glob("runs/*/training-state-*.pt")), process)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    (run_dir,) = (tmp_path / "runs").iterdir()
    again = lives.begin(lives.command, ["train", f"--continue={run_dir}", "--minutes=0.0001"], tmp_path)
    again.join(60)
    assert again.exitcode == 0, (tmp_path / "err.txt").read_text()


def test_who_trains_there_is_named(discs: Path, tmp_path: Path, run: Run) -> None:
    words = ["train", f"--outdir={tmp_path / 'runs'}", f"--data={discs}", "--kimg=50", *ARGS]
    process = lives.begin(lives.command, words, tmp_path)
    lives.wait_for(lambda: list(tmp_path.glob("runs/*/training-state-*.pt")), process)
    (run_dir,) = (tmp_path / "runs").iterdir()
    result = run("train", f"--continue={run_dir}")
    process.kill()
    process.join()
    assert result.code == 2
    assert f"(process {process.pid} on {os.uname().nodename})" in result.error_line()


# ---- numbers --------------------------------------------------------------------------------------------------------


def nan_in_the_loss(trainer: Trainer) -> None:
    trainer.D.b4.out.register_forward_hook(lambda _m, _i, out: out * float("nan"))


def nan_in_a_gradient(trainer: Trainer) -> None:
    """In one tensor of one network; the losses are finite."""
    parameter = trainer.D.b4.out.bias.requires_grad_(True)
    parameter.register_hook(lambda grad: grad * float("nan"))
    parameter.requires_grad_(False)


def infinity_in_a_gradient(trainer: Trainer) -> None:
    parameter = trainer.D.b4.out.bias.requires_grad_(True)
    parameter.register_hook(lambda grad: grad + float("inf"))
    parameter.requires_grad_(False)


@pytest.mark.parametrize("spoil", [nan_in_the_loss, nan_in_a_gradient, infinity_in_a_gradient])
def test_bad_steps_end_a_run_and_spoil_nothing(
    discs: Path, tmp_path: Path, monkeypatch, spoil: Callable[[Trainer], None]
) -> None:
    monkeypatch.setattr(bad_steps, "LOOK_EVERY", 5)
    trainer = new_trainer(tiny_config(discs, layers=3, kimg=10, gamma=0.0, aug="ada"))
    for _ in range(2):
        trainer.train_step(torch.zeros(4, 3, 16, 16, dtype=torch.uint8), torch.zeros(4, 0))
    before = {key: tensor.clone() for key, tensor in trainer.D.state_dict().items()}
    spoil(trainer)
    bad = r"1[0-3] steps of [GD](main|both) in a row without a finite gradient.*, and try a larger --gamma or smaller"
    with pytest.raises(NumericalError, match=bad):
        run_loop(trainer, tmp_path, StopAfter(10**9))
    assert trainer.step == 15, "the first look after ten"
    (report,) = tmp_path.glob("failure-*.json")
    broken = json.loads(report.read_text())
    assert any(entry.get("not_finite", 0) > 0 for entry in broken[broken["phase"][0]].values())
    for module in (trainer.G, trainer.D, trainer.G_ema):
        assert all(bool(tensor.isfinite().all()) for tensor in module.state_dict().values())
    assert all(torch.equal(tensor, before[key]) for key, tensor in trainer.D.state_dict().items())
    assert trainer.augmentation.p == trainer.augmentation.p  # not NaN
    state = load_state(tmp_path, pytest.fail)
    assert state["nimg"] == trainer.nimg
    assert all(bool(tensor.isfinite().all()) for tensor in state["G_ema"].values())


def test_a_loss_that_has_had_no_effect(
    discs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """All steps of a phase were left out, but too few to end the run."""
    monkeypatch.setattr(bad_steps, "LOOK_EVERY", 20)
    trainer = new_trainer(tiny_config(discs, layers=3, kimg=10, gamma=1e30))
    with pytest.raises(TrainingStopped):
        run_loop(trainer, tmp_path, StopAfter(20))
    said = [line for line in capsys.readouterr().err.splitlines() if "Dreg" in line]
    assert [("so its loss has had no effect yet" in line) for line in said] == [False, True], said


def test_the_end_says_what_hardly_took_part(
    discs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of this life of the run; the phases that went well are not mentioned."""
    trainer = new_trainer(tiny_config(discs, layers=3, kimg=10, gamma=1e30))
    monkeypatch.setattr(Trainer, "is_over", property(lambda self: self.step in (18, 35)))
    for steps in (2, 1):  # Dreg's, at steps 0 and 16, and at 32
        run_loop(trainer, tmp_path, StopAfter(10**9))
        said = [line for line in capsys.readouterr().err.splitlines() if "left out" in line]
        of_all = f"{steps} of {steps} step{'s' if steps > 1 else ''}"
        remedy = "try a smaller --gamma or --dlr"
        assert said[-1] == f"warning: left out {of_all} of Dreg, the gradient was not finite; {remedy}"
        assert sum(line.startswith("warning: left out") for line in said) == 1, said


def last_parameter_of_d(trainer: Trainer) -> torch.Tensor:
    (phase,) = [phase for phase in trainer.phases if phase.name == "Dmain"]
    return list(phase.module.parameters())[-1]


def nan_in_all_logits(trainer: Trainer) -> None:
    trainer.D.register_forward_hook(lambda _m, _i, out: out * float("nan"))


def nan_in_one_gradient(trainer: Trainer) -> None:
    parameter = last_parameter_of_d(trainer).requires_grad_(True)
    parameter.register_hook(lambda grad: grad * float("nan"))
    parameter.requires_grad_(False)


def infinity_in_one_gradient(trainer: Trainer) -> None:
    parameter = last_parameter_of_d(trainer).requires_grad_(True)
    parameter.register_hook(lambda grad: grad + float("inf"))
    parameter.requires_grad_(False)


def test_bad_steps_of_a_penalty(discs: Path, tmp_path: Path, monkeypatch) -> None:
    """A penalty's gradient overflows because its weight is too large."""
    monkeypatch.setattr(bad_steps, "LOOK_EVERY", 5)
    monkeypatch.setattr(bad_steps, "MAX_IN_A_ROW", 2)
    trainer = new_trainer(tiny_config(discs, layers=3, kimg=10, gamma=1e38))
    with pytest.raises(NumericalError, match=r"steps of Dreg in a row.*, and try a smaller --gamma or --dlr"):
        run_loop(trainer, tmp_path, StopAfter(10**9))


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("name", "spoil"),
    [
        ("r3gan", nan_in_one_gradient),
        *(
            pytest.param(name, spoil, marks=pytest.mark.slow)
            for name in ("r3gan", "fastgan", "stylegan2-projected")
            for spoil in (nan_in_all_logits, nan_in_one_gradient, infinity_in_one_gradient)
            if (name, spoil) != ("r3gan", nan_in_one_gradient)
        ),
    ],
)
def test_bad_steps_of_other_systems(
    tmp_path: Path, monkeypatch, name: str, spoil: Callable[[Trainer], None]
) -> None:
    """They end the run after ten in a row, and spoil nothing: neither weights and averages nor running means."""
    monkeypatch.setattr(bad_steps, "LOOK_EVERY", 5)
    config = config_of(name, tmp_path, kimg=10, posthoc_ema=True)
    trainer = new_trainer(config)
    size = config.dataset.resolution
    count = 4 * trainer.system.real_batches
    for _ in range(2):
        images = torch.arange(count * 3 * size * size).reshape(count, 3, size, size) % 251
        trainer.train_step(images.to(torch.uint8), torch.zeros(count, 0))
    before = {key: tensor.clone() for key, tensor in trainer.D.state_dict().items()}
    spoil(trainer)
    with pytest.raises(NumericalError, match=r"1[0-3] steps of [GD]main in a row without a finite gradient"):
        run_loop(trainer, tmp_path / "run", StopAfter(10**9))
    assert trainer.step == 15, "the first look after ten"
    (report,) = (tmp_path / "run").glob("failure-*.json")
    broken = json.loads(report.read_text())
    assert any(entry.get("not_finite", 0) > 0 for entry in broken[broken["phase"][0]].values())
    state = load_state(tmp_path / "run", pytest.fail)
    assert state["nimg"] == trainer.nimg
    for module in ("G", "D", "G_ema"):
        assert all(bool(tensor.isfinite().all()) for tensor in state[module].values())
    for average in state["power_averages"]:
        assert all(bool(tensor.isfinite().all()) for tensor in average.values())
    trained = {name for name, _ in trainer.D.named_parameters()}
    # G's phase, which is a good one but for the first kind, moves running means and singular vectors of D.
    still = before if spoil is nan_in_all_logits or name == "r3gan" else trained
    for key in still:
        assert torch.equal(trainer.D.state_dict()[key], before[key]) or key.endswith("num_batches_tracked"), key


# ---- surroundings ---------------------------------------------------------------------------------------------------


def test_a_clock_that_jumps(discs: Path, run: Run, tmp_path: Path, monkeypatch) -> None:
    """The time of day goes back and forth by days; a machine wakes up and the time since its start leaps by hours."""
    days, hours = iter(range(10**9)), iter(range(10**9))
    day, since = time.time, time.monotonic
    monkeypatch.setattr(time, "time", lambda: day() + (-1) ** next(days) * 2 * 86400)
    monkeypatch.setattr(time, "monotonic", lambda: since() + next(hours) * 3600)
    result = run("train", f"--outdir={tmp_path}", f"--data={discs}", "--minutes=1200", *ARGS)
    assert result.code == 0, result.err
    (run_dir,) = tmp_path.iterdir()
    assert run("train", f"--continue={run_dir}", "--minutes=2400").code == 0
    lines = [json.loads(line) for line in (run_dir / "stats.jsonl").read_text().splitlines()]
    assert [line["Progress/tick"]["mean"] for line in lines] == [0, 1, 2]
    assert lines[2]["Progress/kimg"]["mean"] > lines[1]["Progress/kimg"]["mean"] > 0.004


def test_the_launcher_believes_what_the_run_left_whatever_the_time(tmp_path: Path) -> None:
    (tmp_path / "exit.json").write_text(json.dumps({"exit_code": 75, "ended": 0.0}))
    (tmp_path / "report").write_text(str(tmp_path))
    assert spawn._left_behind(tmp_path / "report", 1) == spawn.Ended(75, tmp_path, elsewhere=True)
    assert spawn._left_behind(tmp_path / "none", 1) == spawn.Ended(1, None, elsewhere=True)


@pytest.mark.parametrize("where", ["__init__", "add_scalar", "flush"])
def test_plotting_that_fails_does_not_end_a_run(
    discs: Path, run: Run, tmp_path: Path, monkeypatch, where: str
) -> None:
    calls = []

    class SummaryWriter:
        """TensorBoard's, on a full disk."""

        def __init__(self, _folder: Path, purge_step: int | None = None) -> None:
            self.act("__init__")

        def add_scalar(self, *_args: object, **_more: object) -> None:
            self.act("add_scalar")

        def flush(self) -> None:
            self.act("flush")

        def act(self, name: str) -> None:
            calls.append(name)
            if name == where:
                raise OSError(28, "No space left on device")

    module = ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = SummaryWriter  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    monkeypatch.setattr("sg3.train.sinks.is_installed", lambda name: True)
    assert run("train", f"--outdir={tmp_path}", f"--data={discs}", "--minutes=0.0001", *ARGS).code == 0
    assert calls[-1] == where
    (run_dir,) = tmp_path.iterdir()
    assert len((run_dir / "stats.jsonl").read_text().splitlines()) == 1
