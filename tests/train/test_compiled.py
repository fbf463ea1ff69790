"""`--compile`: the same training through torch.compile. Without -m slow its graphs run without Inductor, which takes
minutes."""

from __future__ import annotations

import copy
import functools
from pathlib import Path

import pytest
import torch
import torch._inductor.config

from sg3.errors import Sg3Error, UsageError
from sg3.train.changes import apply_changes, require_same_run
from sg3.train.compiled import as_user_error, check_device, reserve_gradients, warm_up
from sg3.train.recipes.stylegan.options import StyleGANOptions as Options
from tests.helpers.compare import assert_same
from tests.helpers.runs import TINY_ARGS, tiny_config
from tests.helpers.trainers import comparable, new_trainer, train


@pytest.fixture
def graphs_only(monkeypatch) -> None:
    """torch.compile traces, cuts forward and backward graphs, and runs them as they are."""
    torch._dynamo.reset()
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))


@pytest.mark.parametrize("cfg", ["stylegan3-t", "stylegan2"])
def test_training_is_the_same(discs: Path, tmp_path: Path, graphs_only, cfg: str) -> None:
    """Three steps with R1 and path length: rounding apart, the same weights, means and statistics. (Inductor
    would draw other layer noise.)"""
    states = []
    for mode in ("off", "on"):
        config = tiny_config(discs, cfg=cfg, compile=mode, layers=3, gamma=1.0)
        trainer = new_trainer(config)
        assert isinstance(trainer.system.loss.fast_D, torch._dynamo.OptimizedModule) == (mode == "on")
        real = torch.full((4, 3, 16, 16), 60, dtype=torch.uint8)
        for _ in range(3):
            trainer.train_step(real, torch.zeros(4, 0))
        states.append(trainer.state_dict())
    plain, fast = states
    assert set(plain["G"]) == set(fast["G"])  # no traces in the names of weights
    for network in ("G", "D", "G_ema"):
        for name, value in plain[network].items():
            torch.testing.assert_close(fast[network][name], value, rtol=1e-3, atol=1e-4, msg=f"{network}.{name}")
    assert float(fast["G"]["mapping.w_avg"].abs().max()) > 0
    if cfg == "stylegan3-t":
        magnitudes = [value for name, value in fast["G"].items() if name.endswith("magnitude_ema")]
        assert all(float(value) != 1 for value in magnitudes), magnitudes
        assert len(magnitudes) == 4


def test_regularisation_runs_as_it_is(discs: Path, graphs_only) -> None:
    """torch.compile cannot differentiate a gradient; the phases that do must never reach it."""
    trainer = new_trainer(tiny_config(discs, cfg="stylegan2", compile="on"))

    def never(*_: object, **__: object) -> None:
        pytest.fail("compiled network called")

    trainer.system.loss.fast_synthesis = trainer.system.loss.fast_D = never
    for phase in trainer.phases:
        if not phase.is_main:
            assert trainer.run_phase(phase, torch.zeros(4, 3, 16, 16), torch.zeros(4, 0))
    assert [phase.name for phase in trainer.phases if not phase.is_main] == ["Greg", "Dreg"]


def test_gradients_of_graphs_have_memory_of_their_own(discs: Path) -> None:
    """A backward pass adds to what is there, instead of handing over a tensor that a graph will overwrite."""
    trainer = new_trainer(tiny_config(discs))
    warm_up(trainer.G, trainer.D, 2, torch.device("cpu"))
    assert all(p.grad is None for p in (*trainer.G.parameters(), *trainer.D.parameters()))
    trainer.D.requires_grad_(True)
    reserve_gradients(trainer.D)
    places = [p.grad.data_ptr() for p in trainer.D.parameters()]
    trainer.D(torch.randn(4, 3, 16, 16), torch.zeros(4, 0)).sum().backward()
    assert [p.grad.data_ptr() for p in trainer.D.parameters()] == places
    assert all(p.grad.abs().max() > 0 for p in trainer.D.parameters())


def test_layout_and_compiler_may_change(discs: Path, tmp_path: Path) -> None:
    """A run that continues with --nhwc and --compile has the same weights, now with channels last where they count."""
    config = tiny_config(discs, cfg="stylegan2")
    state = train(config, tmp_path, 2)
    changed, lines = apply_changes(config, Options(nhwc=True, compile="on"))
    assert lines == [
        "changed: --nhwc False -> True (layers are rounded otherwise)",
        "changed: --compile off -> on (results are rounded otherwise, and StyleGAN2's layer noise is drawn otherwise)",
    ]
    require_same_run(state["config"], changed, "run")
    trainer = new_trainer(changed)
    trainer.load_state_dict(copy.deepcopy(state))
    kept = ("G", "D", "G_ema", "optimizers")
    again = trainer.state_dict()
    assert_same({name: state[name] for name in kept}, {name: again[name] for name in kept})
    for block in (trainer.D.b16, trainer.G.synthesis.b16, trainer.G_ema.synthesis.b16):
        weight = block.conv0.weight
        assert weight.is_contiguous(memory_format=torch.channels_last)
        assert not weight.is_contiguous()

    plain = new_trainer(config)
    plain.load_state_dict(state)
    for each in (plain, trainer):  # Adam's moments belong to the same weights as before
        each.system.loss.fast_synthesis, each.system.loss.fast_D = each.G.synthesis, each.D
        each.train_step(torch.full((4, 3, 16, 16), 60, dtype=torch.uint8), torch.zeros(4, 0))
    for a, b in zip(plain.D.parameters(), trainer.D.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-5)


def test_graphs_need_a_gpu() -> None:
    check_device("on", torch.device("cpu"))
    check_device("graphs", torch.device("cuda"))
    with pytest.raises(UsageError, match=r"--compile=graphs: CUDA graphs need a GPU, and this run is on cpu"):
        check_device("graphs", torch.device("cpu"))


def test_graphs_on_a_cpu_leave_no_folder(run, discs: Path, tmp_path: Path) -> None:
    result = run("train", f"--outdir={tmp_path / 'runs'}", f"--data={discs}", "--compile=graphs", *TINY_ARGS)
    assert result.code == 2
    assert result.error_line().endswith("try --compile=on")
    assert not (tmp_path / "runs").exists()


def test_failures_are_one_line() -> None:
    def broken(_graph: object, _inputs: object) -> None:
        raise ValueError("no compiler found\nlong story")

    function = torch.compile(lambda x: x + 1, backend=broken)
    with pytest.raises(torch._dynamo.exc.TorchDynamoException) as caught:
        function(torch.zeros(1))
    said = as_user_error(caught.value)
    assert isinstance(said, Sg3Error)
    assert "no compiler found" in str(said)
    assert "\n" not in str(said)
    assert "--compile=off" in str(said)
    assert as_user_error(ValueError("x")) is None


@pytest.mark.slow
def test_continued_run_equals_uninterrupted(discs: Path, tmp_path: Path) -> None:
    """With Inductor, bit for bit."""
    config = tiny_config(discs, cfg="stylegan2", compile="on", mirror=True)
    whole = train(config, tmp_path / "whole", 6)
    train(config, tmp_path / "parts", 3)
    assert_same(comparable(whole), comparable(train(config, tmp_path / "parts", 6)))


@pytest.mark.slow
def test_without_a_compiler(run, discs: Path, tmp_path: Path, monkeypatch) -> None:
    """One line that says what to do, which works."""
    monkeypatch.setattr(torch._inductor.config.cpp, "cxx", ("/nowhere/g++",))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    torch._dynamo.reset()
    words = ["train", f"--outdir={tmp_path / 'runs'}", f"--data={discs}", "--minutes=0.0001", *TINY_ARGS]
    result = run(*words, "--compile=on")
    assert result.code == 70
    assert "torch.compile failed" in result.error_line()
    assert result.error_line().endswith("try --compile=off")
    assert run(*words, "--compile=off").code == 0
