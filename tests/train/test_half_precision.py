"""16 bits as --amp and loss scalers have them. On a CPU layers compute in float32 unless --amp-on-cpu says otherwise,
which is what shows here what a GPU would do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from sg3.errors import DataError, UsageError
from sg3.models.layers import HALF_TYPES
from sg3.train import bad_steps, loss_scale
from sg3.train.changes import apply_changes, require_same_run
from sg3.train.loss_scale import LossScaler
from sg3.train.recipes import options_of, presets, recipe_of
from sg3.train.recipes.stylegan.options import StyleGANOptions as Options
from sg3.train.state_check import check_state
from sg3.train.trainer import Trainer
from tests.helpers.compare import assert_same
from tests.helpers.runs import facts, tiny_config
from tests.helpers.trainers import comparable, new_trainer, train

CPU = torch.device("cpu")
YES, NO = torch.tensor(True), torch.tensor(False)


def half_layers(config: Any) -> dict[str, list[str]]:
    """Names of G's and D's parts that may compute in 16 bits."""
    found = {}
    for name, network in zip("GD", recipe_of(config.cfg).build_networks(config, CPU), strict=True):
        found[name] = [
            key.rpartition(".")[2] for key, module in network.named_modules()
            if hasattr(module, "half_type") and (module.spec if hasattr(module, "spec") else module).use_fp16
        ]  # fmt: skip
    return found


def seen_types(trainer: Trainer, run: Any) -> dict[str, set[torch.dtype]]:
    """In which types convolutions of G and D were computed, by the outputs of what may be in 16 bits."""
    seen: dict[str, set[torch.dtype]] = {"G": set(), "D": set()}
    handles = []
    for name in seen:
        for module in getattr(trainer, name).modules():
            if hasattr(module, "half_type"):
                def note(_m: Any, _i: Any, output: Any, name: str = name) -> None:
                    seen[name].add((output[0] if isinstance(output, tuple) else output).dtype)

                handles.append(module.register_forward_hook(note))
    run()
    for handle in handles:
        handle.remove()
    return seen


# ---- what the options mean -------------------------------------------------------------------------------------------


def test_levels() -> None:
    """The default is that of the original, four resolutions; global leaves out 4 x 4; G and D by themselves."""
    data = facts(resolution=128)
    tiny: dict[str, Any] = {"dataset": data, "cfg": "stylegan2"}
    blocks = [f"b{2**n}" for n in range(3, 8)]
    assert half_layers(tiny_config(**tiny)) == {"G": blocks[1:], "D": blocks[:0:-1]}
    assert half_layers(tiny_config(amp="off", **tiny)) == {"G": [], "D": []}
    assert half_layers(tiny_config(amp="global", **tiny)) == {"G": blocks, "D": blocks[::-1]}
    assert half_layers(tiny_config(amp="global", d_amp="partial", **tiny)) == {"G": blocks, "D": blocks[:0:-1]}
    assert half_layers(tiny_config(amp="off", d_amp="global", **tiny)) == {"G": [], "D": blocks[::-1]}
    three = {"dataset": facts(resolution=512), "cfg": "stylegan3-t", "layers": 8, "cbase": 4096}
    partial, everything = (half_layers(tiny_config(amp=amp, **three))["G"] for amp in ("partial", "global"))
    assert len(everything) == 9
    assert 0 < len(partial) < 9
    assert everything[-len(partial) :] == partial


@pytest.mark.parametrize("cfg", ["stylegan2", "stylegan3-t"])
def test_off_is_fp32_and_partial_the_default(cfg: str) -> None:
    data = facts(resolution=256)
    assert tiny_config(dataset=data, cfg=cfg, amp="off") == tiny_config(dataset=data, cfg=cfg, fp32=True)
    assert tiny_config(dataset=data, cfg=cfg, amp="off").conv_clamp is None
    assert tiny_config(dataset=data, cfg=cfg, amp="partial") == tiny_config(dataset=data, cfg=cfg)
    config = tiny_config(dataset=data, cfg=cfg, amp="global", d_amp="off")
    assert (config.amp, config.d_amp, config.is_half) == ("global", "off", True)
    assert config.discriminator_kwargs()["conv_clamp"] is None


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"fp32": True, "amp": "partial"}, "--fp32 and --amp=partial: choose one"),
        ({"fp32": True, "d_amp": "global"}, "--fp32 and --d-amp=global: choose one"),
        ({"fp32": False, "amp": "off"}, "--fp32=0 and --amp=off: choose one"),
        ({"bf16": True, "amp": "off"}, "--bf16 and --amp=off: choose one"),
        ({"amp_on_cpu": True, "fp32": True}, "--amp-on-cpu: no layer computes in 16 bits; see --amp"),
        ({"g_scaler": "static", "amp": "off"}, "--g-scaler=static: G has no layers with 16 bits"),
        ({"d_scaler": "dynamic", "d_amp": "off"}, "--d-scaler=dynamic: D has no layers with 16 bits"),
        ({"loss_scale": 1024}, "--loss-scale: belongs to --g-scaler and --d-scaler"),
        ({"loss_scale": 1000, "d_scaler": "static"}, "--loss-scale=1000: must be a power of two"),
    ],
)
def test_contradictions(said: dict, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        tiny_config(**said)
    assert message in str(caught.value)
    assert ";" not in str(caught.value).replace("bits; see --amp", "").replace("vanish; see --amp", ""), "once"


def test_agreement_is_no_contradiction() -> None:
    tiny_config(fp32=True, amp="off", d_amp="off")
    tiny_config(fp32=False, amp="partial")
    tiny_config(amp="off", d_amp="partial", bf16=True, d_scaler="static", loss_scale=1)


def test_whose_options_they_are() -> None:
    with pytest.raises(UsageError, match="--amp: belongs to stylegan3-t, stylegan3-r, stylegan2, not to --cfg=r3gan"):
        options_of({"cfg": "r3gan", "amp": "off"})
    with pytest.raises(UsageError, match="--amp=half: expected one of off, partial, global"):
        options_of({"amp": "half"})


def test_the_three_configurations_of_mmagic() -> None:
    """Beside its baseline: the four highest resolutions; all of G; all of both, with two scalers that adapt."""
    name, known = "mmagic-stylegan2-ffhq-256", presets()
    plain = known[name].options.said()
    more = {preset: known[preset].options.said() for preset in known if preset.startswith(f"{name}-")}
    static = {"g_scaler": "static", "d_scaler": "static", "loss_scale": 512}
    assert {preset: dict(said.items() - plain.items()) for preset, said in more.items()} == {
        f"{name}-fp16-partial": {"amp": "partial", **static},
        f"{name}-fp16-global-g": {"amp": "global", "d_amp": "partial", **static},
        f"{name}-apex": {"amp": "global", "g_scaler": "dynamic", "d_scaler": "dynamic", "loss_scale": 65536},
    }


# ---- in training -----------------------------------------------------------------------------------------------------


def step(trainer: Trainer) -> None:
    rng = torch.Generator().manual_seed(trainer.step)
    trainer.train_step(torch.randint(256, (4, 3, 16, 16), dtype=torch.uint8, generator=rng), torch.zeros(4, 0))


@pytest.mark.parametrize("bf16", [False, True], ids=["float16", "bfloat16"])
@pytest.mark.parametrize("cfg", ["stylegan2", "stylegan3-t"])
def test_layers_compute_in_16_bits(discs: Path, cfg: str, bf16: bool) -> None:
    """On a CPU only when asked to; all phases of a step, and weights stay near those of float32."""
    said: dict[str, Any] = {"cfg": cfg, "amp": "global", "bf16": bf16}
    exact, half = new_trainer(tiny_config(discs, **said)), new_trainer(tiny_config(discs, amp_on_cpu=True, **said))
    assert seen_types(exact, lambda: step(exact)) == {"G": {torch.float32}, "D": {torch.float32}}
    wanted = HALF_TYPES["bfloat16" if bf16 else "float16"]
    types = seen_types(half, lambda: step(half))
    assert wanted in types["G"]
    assert types["D"] == {wanted}
    assert half.bad_steps.look() == []
    for name in ("G", "D"):
        a, b = (torch.cat([p.flatten() for p in getattr(t, name).parameters()]) for t in (exact, half))
        assert all(p.dtype == torch.float32 for p in getattr(half, name).parameters())
        assert 0 < float((a - b).norm()) < 0.02 * float(a.norm())


@pytest.mark.parametrize("kind", ["static", "dynamic"])
def test_scaling_changes_no_bit_of_float32(discs: Path, kind: str) -> None:
    """Powers of two: after eight steps with R1 and path length, all is as without."""
    plain, scaled = (
        new_trainer(tiny_config(discs, cfg="stylegan2", **said))
        for said in ({}, {"g_scaler": kind, "d_scaler": kind, "loss_scale": 4096})
    )
    for _ in range(8):
        step(plain)
        step(scaled)
    for name, network in plain.networks.items():
        assert_same(network.state_dict(), scaled.networks[name].state_dict(), name)
    assert_same(plain.optimizers["G"].state_dict(), scaled.optimizers["G"].state_dict())
    norms = {name: value for name, value in plain.stats.state_dict().items() if name.startswith("Gradient/norm/")}
    assert len(norms) == 4
    assert_same(norms, {name: scaled.stats.state_dict()[name] for name in norms})


def test_gradients_that_vanish_are_saved_by_scaling(discs: Path) -> None:
    """D's gradient of a loss of 1e-9: none in float16, all of it when scaled."""
    grads = {}
    for name, said in (
        ("exact", {}), ("plain", {"amp_on_cpu": True}),
        ("scaled", {"amp_on_cpu": True, "d_scaler": "static", "loss_scale": 2**24}),
    ):  # fmt: skip
        trainer = new_trainer(tiny_config(discs, cfg="stylegan2", **said))
        phase = next(phase for phase in trainer.phases if phase.name == "Dmain")
        phase.terms = [lambda mb, D=trainer.D: D(mb.real) * 1e-9]
        trainer.run_phase(phase, torch.linspace(-1, 1, 4 * 3 * 256).reshape(4, 3, 16, 16), torch.zeros(4, 0))
        grads[name] = trainer.D.b16.conv1.weight.grad
    exact = grads["exact"].norm()
    assert exact > 0
    assert float(grads["plain"].norm()) == 0
    assert float((grads["scaled"] - grads["exact"]).norm() / exact) < 0.01


def test_regularisation_is_not_scaled(discs: Path) -> None:
    config = tiny_config(discs, cfg="stylegan2", g_scaler="static", d_scaler="dynamic")
    scalers = {phase.name: phase.scaler for phase in new_trainer(config).phases}
    assert {name for name, scaler in scalers.items() if scaler is not None} == {"Gmain", "Dmain"}
    assert (scalers["Gmain"].is_dynamic, scalers["Dmain"].is_dynamic) == (False, True)
    assert all(phase.scaler is None for phase in new_trainer(tiny_config(discs)).phases)


# ---- the factor ------------------------------------------------------------------------------------------------------


def test_a_dynamic_factor_looks_for_the_largest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loss_scale, "GROW_AFTER", 3)
    scaler = LossScaler(4, True, CPU)
    factors = []
    for good in (YES, YES, YES, YES, NO, YES, YES, NO, NO, NO, NO, YES, YES, YES):
        scaler.step_done(good)
        factors.append(scaler.scale.item())
    assert factors == [4, 4, 8, 8, 4, 4, 4, 2, 1, 1, 1, 1, 1, 2]
    scaler.load_state_dict({"scale": 2.0**24, "good_steps": 2})
    scaler.step_done(YES)
    assert scaler.state_dict() == {"scale": 2.0**24, "good_steps": 0}, "not above what float32 bears"


def test_only_a_factor_that_can_shrink_excuses_a_bad_step() -> None:
    dynamic, static = LossScaler(2, True, CPU), LossScaler(512, False, CPU)
    assert [bool(dynamic.step_done(NO)) for _ in range(3)] == [True, False, False]
    assert not static.step_done(NO)
    assert static.scale.item() == 512


def test_a_run_that_breaks_down_ends_though_the_factor_is_dynamic(discs: Path) -> None:
    """NaN from step to step: the factor goes down to 1 first, and then bad steps count."""
    trainer = new_trainer(tiny_config(discs, cfg="stylegan2", amp_on_cpu=True, g_scaler="dynamic", loss_scale=8))
    trainer.G.mapping.fc0.register_forward_hook(lambda _m, _i, out: out * float("nan"))
    before = trainer.G.mapping.fc0.weight.clone()
    longest = []
    for _ in range(3 + bad_steps.MAX_IN_A_ROW):
        step(trainer)
        longest.append(next(found.longest for found in trainer.bad_steps.look() if found.phase == "Gmain"))
    assert longest == [0, 0, 0, *range(1, bad_steps.MAX_IN_A_ROW + 1)]
    assert torch.equal(trainer.G.mapping.fc0.weight, before)


# ---- stopping and going on -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cfg", ["stylegan2", pytest.param("stylegan3-t", marks=pytest.mark.slow)])
def test_a_stopped_run_goes_on_to_the_same_end(
    discs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cfg: str
) -> None:
    """All of both networks in float16, factors that overflow in the beginning and grow soon after that."""
    monkeypatch.setattr(loss_scale, "GROW_AFTER", 4)
    config = tiny_config(discs, cfg=cfg, amp="global", amp_on_cpu=True, g_scaler="dynamic", d_scaler="dynamic",
                         loss_scale=2**24)  # fmt: skip
    whole = train(config, tmp_path / "whole", 18)
    stopped = train(config, tmp_path / "parts", 11)
    parts = train(config, tmp_path / "parts", 18)
    assert_same(comparable(whole), comparable(parts))
    factors = [state["scalers"][name]["scale"] for state in (stopped, parts) for name in ("G", "D")]
    assert all(1 < factor < 2**24 for factor in factors), "steps were left out"
    assert stopped["scalers"] != parts["scalers"], "factors move to the end"


def test_scalers_may_come_and_go(discs: Path, tmp_path: Path) -> None:
    """On continuing: one that is new begins at --loss-scale, the other one goes on."""
    config = tiny_config(discs, cfg="stylegan2", d_scaler="dynamic", loss_scale=64)
    state = train(config, tmp_path / "run", 2)
    assert state["scalers"] == {"D": {"scale": 64.0, "good_steps": 2}}
    changed, lines = apply_changes(config, Options(g_scaler="dynamic", amp_on_cpu=True))
    assert lines == [
        "changed: --amp-on-cpu False -> True (layers with 16 bits are rounded otherwise)",
        "changed: --g-scaler none -> dynamic (layers with 16 bits are rounded otherwise)",
    ]
    require_same_run(state["config"], changed, "run")
    trainer = new_trainer(changed)
    check_state(state, trainer.state_dict(), trainer.optimizers, "run")
    trainer.load_state_dict(state)
    assert trainer.state_dict()["scalers"] == {
        "G": {"scale": 64.0, "good_steps": 0}, "D": {"scale": 64.0, "good_steps": 2},
    }  # fmt: skip
    without = new_trainer(tiny_config(discs, cfg="stylegan2"))
    check_state(state, without.state_dict(), without.optimizers, "run")
    without.load_state_dict(state)
    assert "scalers" not in without.state_dict(), "as states always were"
    with pytest.raises(UsageError, match="--amp: cannot change in a run that continues"):
        apply_changes(config, Options(amp="global"))


@pytest.mark.parametrize("scale", [0.0, 3.0, 2.0**25, float("nan"), "64", None, True])
def test_a_damaged_factor_is_refused(discs: Path, tmp_path: Path, scale: Any) -> None:
    config = tiny_config(discs, cfg="stylegan2", d_scaler="dynamic")
    state = train(config, tmp_path / "run", 1)
    state["scalers"]["D"]["scale"] = scale
    trainer = new_trainer(config)
    with pytest.raises(DataError, match=r"run: is no training state of this run: scalers\.D\.scale is "):
        check_state(state, trainer.state_dict(), trainer.optimizers, "run")
