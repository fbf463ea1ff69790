"""R3GAN's recipe: losses and schedules against the original's numbers, its command lines, and whole runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import sg3
from sg3 import resources
from sg3.models import r3gan
from sg3.models.layers import count_parameters
from sg3.train.losses import gradient_penalty
from sg3.train.recipes import presets, resolve
from sg3.train.recipes.r3gan import system as r3gan_system
from sg3.train.recipes.r3gan.config import R3GANConfig
from sg3.train.recipes.r3gan.options import R3GANOptions
from sg3.train.recipes.r3gan.system import R3GAN
from sg3.train.recipes.system import MicroBatch
from sg3.train.state import load_state
from tests.helpers.compare import assert_same
from tests.helpers.golden_gan import GoldenGan, fill, makers, one_hot
from tests.helpers.runs import facts
from tests.helpers.tiny_systems import Reports, r3gan_config
from tests.helpers.trainers import comparable, train


def system(reports: Reports | None = None, **said: Any) -> R3GAN:
    made = R3GAN(r3gan_config(**said), torch.device("cpu"), Reports() if reports is None else reports, lambda _: None)
    made.begin_step(0)
    return made


@pytest.fixture(scope="module")
def gan(golden: Path) -> GoldenGan:
    return GoldenGan(golden, "r3gan")


# ---- against the original


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", ["uncond16", "cond16", "uncond32_samewidth"])
def test_losses(gan: GoldenGan, name: str, dtype: torch.dtype) -> None:
    """Per sample, and the gradients of both phases."""
    case = gan.case(name)
    seed = case["seed"]
    reports = Reports()
    recipe = system(reports, gamma=case["gamma"])
    recipe.G, recipe.D = r3gan.Generator(**case["G_kwargs"]), r3gan.Discriminator(**case["D_kwargs"])
    fill(recipe.G, gan.recipe, seed)
    fill(recipe.D, gan.recipe, 500 + seed)
    recipe.G, recipe.D = recipe.G.to(dtype), recipe.D.to(dtype)
    make = makers(gan.recipe, dtype)
    count, res = case["tensors"]["img"]["shape"][0], recipe.G.img_resolution
    c = one_hot(case["classes"], recipe.G.c_dim).to(dtype) if recipe.G.c_dim else torch.zeros(count, 0)
    mb = MicroBatch(
        real=make["image"]("real", (count, 3, res, res), seed), real_c=c,
        z=make["normal"]("z", (count, recipe.G.z_dim), seed), c=torch.full_like(c, float("nan")), rng=None,
    )  # fmt: skip
    for letter, network, term in (("D", recipe.D, recipe.d_loss), ("G", recipe.G, recipe.g_loss)):
        network.zero_grad()
        (term(mb).mean() * case["gain"]).backward()
        for key, parameter in network.named_parameters():
            gan.check(case, f"grad_{letter}/{key}", parameter.grad)
        for key in case["tensors"]:
            if key.startswith(f"{letter}_report/"):
                gan.check(case, key, reports[key.removeprefix(f"{letter}_report/")])


PRESETS = {
    "CIFAR10": "r3gan-cifar10", "FFHQ-64": "r3gan-ffhq64", "FFHQ-256": "r3gan-ffhq256",
    "ImageNet-32": "r3gan-imagenet32", "ImageNet-64": "r3gan-imagenet64",
}  # fmt: skip
SIZES = {"CIFAR10": 32, "FFHQ-64": 64, "FFHQ-256": 256, "ImageNet-32": 32, "ImageNet-64": 64}


def published(name: str, labels: bool | None = None, **said: Any) -> R3GANConfig:
    options = presets()[PRESETS[name]].options
    options = R3GANOptions(**{"cond": labels, **said}).over(options)
    data = facts(resolution=SIZES[name], label_dim=10 if options.cond else 0, has_labels=True)
    config = resolve(options, data)
    assert isinstance(config, R3GANConfig)
    return config


@pytest.mark.parametrize("name", ["CIFAR10", "FFHQ-64", "FFHQ-256", "ImageNet-32"])
def test_schedules(gan: GoldenGan, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Learning rate, beta2, gamma, half-life and probability, from the first image to beyond the last."""
    config = published(name)
    monkeypatch.setattr(r3gan_system, "build_networks", lambda *_: (torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)))
    recipe = R3GAN(config, torch.device("cpu"), Reports(), lambda _: None)
    recorded = gan.data["schedules"]
    values = recorded["values"][name]
    for index, nimg in enumerate(recorded["nimg"]):
        recipe.begin_step(nimg)
        assert recipe.gamma == pytest.approx(values["gamma"][index], rel=1e-12)
        for phase in recipe.phases:
            (group,) = phase.optimizer.param_groups
            assert group["lr"] == pytest.approx(values["lr"][index], rel=1e-12)
            assert group["betas"] == (0.0, pytest.approx(values["beta2"][index], rel=1e-12))
        assert recipe.augment_p(nimg) == pytest.approx(values["aug"][index], rel=1e-12)
        half_life = max(values["ema"][index], 1e-8)
        assert recipe.ema_beta(nimg) == pytest.approx(0.5 ** (config.batch / half_life), rel=1e-9)


@pytest.mark.parametrize("name", ["CIFAR10", "FFHQ-64", "FFHQ-256", "ImageNet-32"])
def test_presets_make_the_published_networks(gan: GoldenGan, name: str) -> None:
    expected = gan.data["presets"][name]
    config = published(name)
    for kwargs, key in ((config.generator_kwargs(), "G_kwargs"), (config.discriminator_kwargs(), "D_kwargs")):
        known = {k: v for k, v in expected[key].items() if k not in ("FP16Stages", "c_dim")}
        assert {k: kwargs[k] for k in known} == known


@pytest.mark.parametrize(
    ("name", "classes", "parameters", "batch"),
    [
        ("CIFAR10", 10, (20_781_952, 21_280_512), 512),
        ("FFHQ-64", 0, (22_429_824, 22_381_440), 256),
        ("FFHQ-256", 0, (23_057_952, 23_009_568), 256),
        ("ImageNet-32", 1000, (82_914_304, 86_548_992), 4096),
        ("ImageNet-64", 1000, (103_570_432, 107_205_120), 4096),
    ],
)
def test_presets_have_the_published_sizes(name: str, classes: int, parameters: tuple[int, int], batch: int) -> None:
    """Of G and D, and of a batch; nothing else is said but the data."""
    data = facts(resolution=SIZES[name], label_dim=classes, has_labels=classes > 0)
    config = resolve(presets()[PRESETS[name]].options, data)
    assert (config.batch, config.cond) == (batch, classes > 0)
    with torch.device("meta"):
        networks = r3gan.Generator(**config.generator_kwargs()), r3gan.Discriminator(**config.discriminator_kwargs())
    assert tuple(map(count_parameters, networks)) == parameters


# Of the original's option dictionaries: what each value is here, and what has no counterpart and why.
LEFT_OUT = {
    "class_name": "files name classes, options do not",
    "pin_memory": "always, for a GPU", "prefetch_factor": "always 2",
    "max_size": "a fact of the data set: its number of images",
    "G_opt_kwargs.betas": "beta1 is 0 and beta2 scheduled", "D_opt_kwargs.betas": "beta1 is 0 and beta2 scheduled",
    "run_dir": "the machine's", "path": "the machine's",
    "image_snapshot_ticks": "--snap is for images and networks alike",
}  # fmt: skip


def test_command_lines_of_the_original(golden: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every value of the recorded option dictionaries is ours, or listed above."""
    monkeypatch.setattr(resources, "usable_cpus", lambda: 8)  # few would load with fewer processes
    cases = json.loads((golden / "gan" / "cli_r3.json").read_text())
    assert cases
    for case in cases:
        said: dict[str, Any] = {}
        words = dict(word.removeprefix("--").split("=") for word in case["args"])
        name = words.pop("preset")
        for key, value in words.items():
            if key in ("mirror", "cond"):
                said[key] = value == "1"
            elif key in ("batch", "tick", "snap", "gpus"):
                said[key] = int(value)
            elif key.endswith("batch-gpu"):  # G's and D's are one option here: the smaller fits both
                said["batch_gpu"] = min(int(value), said.get("batch_gpu", 2**30))
        config = published(name, labels=said.pop("cond", False), **{"mirror": False, **said})
        theirs = flattened(case["options"])
        theirs |= dict.fromkeys(("g_batch_gpu", "d_batch_gpu"), min(theirs["g_batch_gpu"], theirs["d_batch_gpu"]))
        ours = as_the_original_says(config)
        unexplained = {key for key in theirs if key not in ours and not set(LEFT_OUT) & {key, key.split(".")[-1]}}
        assert not unexplained
        for key in theirs.keys() & ours.keys():
            assert ours[key] == theirs[key], key


def flattened(options: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(options, dict):
        return {prefix: options}
    return {k: v for key, value in options.items() for k, v in flattened(value, f"{prefix}.{key}".strip(".")).items()}


def as_the_original_says(config: R3GANConfig) -> dict[str, Any]:
    from sg3.models.augment import SPECS

    per_gpu = config.batch_gpu
    total = config.schedule_kimg * 1000
    schedules = {
        "ema": (0, config.ema_kimg * 1000), "aug": (0, config.final_p), "lr": (config.glr, config.glr / 4),
        "gamma": (config.gamma, config.gamma / 10), "beta2": (0.9, 0.99),
    }  # fmt: skip
    G, D = config.generator_kwargs(), config.discriminator_kwargs()
    facts_of_data = {"c_dim", "img_resolution", "img_channels"}  # which the original adds later
    if not config.cond:
        facts_of_data.add("ConditionEmbeddingDimension")
    return {
        **{f"G_kwargs.{key}": value for key, value in G.items() if key not in facts_of_data},
        **{f"D_kwargs.{key}": sorted(value, reverse=True) if key == "FP16Stages" else value
           for key, value in D.items() if key not in facts_of_data},
        "G_opt_kwargs.eps": config.adam_eps, "D_opt_kwargs.eps": config.adam_eps,
        "data_loader_kwargs.num_workers": config.workers,
        "training_set_kwargs.use_labels": config.cond, "training_set_kwargs.xflip": config.mirror,
        "training_set_kwargs.resolution": config.dataset.resolution, "training_set_kwargs.random_seed": config.seed,
        "num_gpus": config.gpus, "batch_size": config.batch, "g_batch_gpu": per_gpu, "d_batch_gpu": per_gpu,
        **{f"{name}_scheduler.{key}": value for name, (start, end) in schedules.items()
           for key, value in (("base_value", start), ("final_value", end), ("total_nimg", total))},
        "metrics": ["fid50k_full"], "total_kimg": 10_000_000, "kimg_per_tick": config.tick,
        "network_snapshot_ticks": config.snap, "random_seed": config.seed,
        **{f"augment_kwargs.{name}": value for name, value in SPECS[config.augpipe].items()},
    }  # fmt: skip


# ---- the approximate penalty


def test_approximate_penalty_is_right_on_average(gan: GoldenGan) -> None:
    """Within four standard errors of the exact one, for each image; each draw scatters as it says."""
    case = gan.case("uncond16")
    D = r3gan.Discriminator(**case["D_kwargs"]).double()
    fill(D, gan.recipe, 5)
    images = makers(gan.recipe, torch.float64)["image"]("x", (3, 3, 16, 16), 1).requires_grad_()
    logits = D(images)
    exact = gradient_penalty.exact(images, logits).detach()
    with torch.no_grad():
        many, known = images.repeat(100, 1, 1, 1), logits.repeat(100)
        draws = torch.cat([gradient_penalty.approximate(D, many, known).view(100, 3) for _ in range(4)])
    error = (draws.mean(dim=0) / exact - 1).abs()
    assert (error < 4 * 2**0.5 / 20).all()
    scatter = draws.std(dim=0) / exact
    assert ((scatter > 1.1) & (scatter < 1.8)).all(), "sqrt(2), if D is smooth on the scale of the noise"


def test_approximate_penalty_of_a_linear_critic() -> None:
    """The projection of the gradient on the noise, exactly, and several logits of an image count together."""
    weight = torch.randn(3, 2, 5, 5, dtype=torch.float64)
    images, noise = torch.randn(2, 4, 2, 5, 5, dtype=torch.float64).unbind()
    noise = torch.randn(4, 2, 5, 5, dtype=torch.float64)

    def critic(x: torch.Tensor) -> torch.Tensor:
        return torch.einsum("nchw,kchw->nk", x, weight)

    images.requires_grad_()
    penalty = gradient_penalty.approximate(critic, images, critic(images), sigma=0.1, noise=noise)
    torch.testing.assert_close(penalty, (noise * weight.sum(dim=0)).sum(dim=(1, 2, 3)).square())
    torch.testing.assert_close(
        gradient_penalty.exact(images, critic(images)), weight.sum(dim=0).square().sum().expand(4)
    )


def test_approximate_penalty_trains_through_augmentation() -> None:
    """Both images of the difference meet the same augmentation: without noise in D's input it would be 0."""
    torch.manual_seed(1)
    recipe = system(penalty="approximate")
    seen = []

    def augment(images: torch.Tensor, term: str) -> torch.Tensor:
        seen.append(term)
        return images.flip(3)

    c = torch.zeros(4, 0)
    mb = MicroBatch(real=torch.rand(4, 3, 16, 16), real_c=c, z=torch.randn(4, 8), c=c, rng=None, augment=augment)
    recipe.D.requires_grad_(True)
    recipe.d_loss(mb).mean().backward()
    assert seen == ["real", "real", "fake", "fake"]
    assert all(p.grad is not None for p in recipe.D.parameters())


# ---- whole runs


@pytest.mark.parametrize("clamped", [False, True])
def test_clamped_images_are_those_that_files_hold(clamped: bool) -> None:
    """D sees no colour beyond white or black, and G has no gradient there."""
    recipe = system(clamp_images=clamped)
    real = torch.zeros(4, 3, 16, 16)
    none = torch.zeros(4, 0)
    z = 10 * torch.randn(4, 8, generator=torch.Generator().manual_seed(0))
    seen: list[torch.Tensor] = []

    def augment(images: torch.Tensor, term: str) -> torch.Tensor:
        seen.append(images.detach())
        return images

    mb = MicroBatch(real, none, z, none, np.random.default_rng(0), augment=augment)
    recipe.d_loss(mb)
    recipe.g_loss(mb)
    made = recipe.G(z, none).detach()
    assert float(made.abs().max()) > 1
    expected = made.clamp(-1, 1) if clamped else made
    assert sum(torch.equal(images, expected) for images in seen) == 2


def test_channels_last_changes_nothing_but_rounding() -> None:
    """--nhwc: both phases, with R1 and R2."""
    plain, last = system(), system(nhwc=True)
    torch.manual_seed(2)
    for network, other in ((plain.G, last.G), (plain.D, last.D)):
        for parameter in network.parameters():
            parameter.data.add_(0.1 * torch.randn_like(parameter))  # (some layers begin with zeros)
        other.load_state_dict(network.state_dict())
        laid_out = [p for p in other.parameters() if p.ndim == 4 and p.shape[1] > 1 and p.shape[2] > 1]
        assert len(laid_out) > 2
        assert all(p.is_contiguous(memory_format=torch.channels_last) and not p.is_contiguous() for p in laid_out)
    none = torch.zeros(4, 0)
    mb = MicroBatch(torch.rand(4, 3, 16, 16), none, torch.randn(4, 8), none, np.random.default_rng(0))
    for recipe in (plain, last):
        for network, term in ((recipe.D, recipe.d_loss), (recipe.G, recipe.g_loss)):
            recipe.G.requires_grad_(network is recipe.G)
            recipe.D.requires_grad_(network is recipe.D)
            term(mb).mean().backward()
    for network, other in ((plain.G, last.G), (plain.D, last.D)):
        for (key, parameter), like in zip(network.named_parameters(), other.parameters(), strict=True):
            assert float(parameter.grad.norm()) > 0, key
            assert float((parameter.grad - like.grad).norm() / parameter.grad.norm()) < 1e-4, key


def test_defaults() -> None:
    config = resolve(R3GANOptions(cfg="r3gan"), facts(resolution=256))
    assert isinstance(config, R3GANConfig)
    assert config.widths == [768, 768, 768, 768, 384, 192, 96]
    assert (config.aug, config.augpipe, config.batch, config.z_dim) == ("schedule", "r3gan", 256, 64)
    assert config.num_half_stages == 4
    assert resolve(R3GANOptions(cfg="r3gan", fp32=True), facts(resolution=256)).is_half is False
    assert resolve(R3GANOptions(cfg="r3gan"), facts(resolution=32)).num_half_stages == 3


@pytest.mark.parametrize(
    ("said", "dataset", "message"),
    [
        ({"cmax": 7}, {}, "--group=8: does not divide the 14 features of a layer of 7 channels"),
        ({}, {"resolution": 20}, "expected a power of two of at least 8"),
        ({"aug": "fixed", "fp32": True, "bf16": True}, {}, "--bf16 and --fp32: choose one"),
        ({"compile": "on"}, {}, "--compile=on: is for StyleGAN2 and StyleGAN3; R3GAN's D is differentiated twice"),
    ],
)
def test_contradictions_are_named(said: dict[str, Any], dataset: dict[str, Any], message: str) -> None:
    from sg3.errors import DataError, UsageError

    with pytest.raises(DataError if dataset else UsageError, match=message):
        r3gan_config(dataset=facts(**dataset), **said)


@pytest.mark.parametrize("penalty", ["exact", pytest.param("approximate", marks=pytest.mark.slow)])
def test_continued_run_equals_uninterrupted(labelled_discs: Path, tmp_path: Path, penalty: str) -> None:
    """With labels, augmentation and all schedules on their way."""
    data = facts(path=str(labelled_discs), label_dim=3, has_labels=True)
    config = r3gan_config(labelled_discs, data, cond=True, penalty=penalty, mirror=True, final_p=0.9)
    whole = train(config, tmp_path / "whole", 7)
    train(config, tmp_path / "parts", 3)
    parts = train(config, tmp_path / "parts", 7)
    assert parts["step"] == 7
    assert 0 < parts["augment_p"] < 0.9
    assert_same(comparable(whole), comparable(parts))
    start = R3GAN(config, torch.device("cpu"), Reports(), lambda _: None).D.state_dict()
    assert any(not torch.equal(whole["D"][key], value) for key, value in start.items())


def test_snapshots_have_what_its_own_code_goes_on_from(discs: Path, tmp_path: Path) -> None:
    """Both optimisers' states, parameters in the order of the module, and the number of images."""
    config = r3gan_config(discs)
    train(config, tmp_path, 1)  # the first tick ends with the first step
    snapshot = sg3.load(tmp_path)
    state = load_state(tmp_path, pytest.fail)
    assert snapshot.progress == {"cur_nimg": state["nimg"]} == {"cur_nimg": 4}
    assert snapshot.optimizers is not None
    for letter, network in (("G", snapshot.G), ("D", snapshot.D)):
        assert network is not None
        ours = state["optimizers"][letter]
        assert_same(ours["state"], snapshot.optimizers[letter]["state"])
        parameters = list(network.parameters())
        optimizer = torch.optim.Adam(parameters, lr=0.0, betas=(0.0, 0.0))
        optimizer.load_state_dict(snapshot.optimizers[letter])
        for index, parameter in enumerate(parameters):
            assert torch.equal(optimizer.state[parameter]["exp_avg_sq"], ours["state"][index]["exp_avg_sq"])
        assert optimizer.param_groups[0]["betas"] == (0.0, pytest.approx(0.9))
