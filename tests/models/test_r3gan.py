"""R3GAN's networks against the numbers of the original."""

from __future__ import annotations

from math import sqrt
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from sg3.models import r3gan
from sg3.models.layers import count_parameters
from tests.helpers.golden_gan import GoldenGan, fill, makers, one_hot

NETWORKS = ("uncond16", "cond16", "uncond32_samewidth")
TYPES = (torch.float64, torch.float32)


@pytest.fixture(scope="module")
def gan(golden: Path) -> GoldenGan:
    return GoldenGan(golden, "r3gan")


@pytest.mark.parametrize("name", [*NETWORKS, "bf16_32"])
def test_state_dict(gan: GoldenGan, name: str) -> None:
    case = gan.case(name)
    G, D = r3gan.Generator(**case["G_kwargs"]), r3gan.Discriminator(**case["D_kwargs"])
    for network, expected in ((G, case["G_state_dict"]), (D, case["D_state_dict"])):
        assert [(k, list(v.shape)) for k, v in network.state_dict().items()] == list(expected.items())


def both_phases(gan: GoldenGan, name: str, dtype: torch.dtype) -> None:
    """Images, logits, and the gradients of D's and G's loss: relativistic pairing, R1 and R2."""
    case = gan.case(name)
    seed, gamma, gain = case["seed"], case["gamma"], case["gain"]
    G, D = r3gan.Generator(**case["G_kwargs"]), r3gan.Discriminator(**case["D_kwargs"])
    fill(G, gan.recipe, seed)
    fill(D, gan.recipe, 500 + seed)
    G, D = G.to(dtype), D.to(dtype)
    make = makers(gan.recipe, dtype)
    count, res = case["tensors"]["img"]["shape"][0], G.img_resolution
    z = make["normal"]("z", (count, G.z_dim), seed)
    real = make["image"]("real", (count, 3, res, res), seed)
    c = one_hot(case["classes"], G.c_dim).to(dtype) if G.c_dim else None

    fake = G(z, c)
    gan.check(case, "img", fake)
    gan.check(case, "logits_real", D(real, c))
    gan.check(case, "logits_fake", D(fake, c))

    seen_real, seen_fake = real.clone().requires_grad_(), fake.detach().requires_grad_()
    real_logits, fake_logits = D(seen_real, c), D(seen_fake, c)
    r1, r2 = (
        torch.autograd.grad(logits.sum(), images, create_graph=True)[0].square().sum(dim=(1, 2, 3))
        for logits, images in ((real_logits, seen_real), (fake_logits, seen_fake))
    )
    pairing = F.softplus(-(real_logits - fake_logits))
    gan.check(case, "D_report/scores/real", real_logits - fake_logits)
    gan.check(case, "D_report/r1_penalty", r1)
    gan.check(case, "D_report/r2_penalty", r2)
    gan.check(case, "D_report/D/loss", pairing)
    ((pairing + gamma / 2 * (r1 + r2)).mean() * gain).backward()
    for key, parameter in D.named_parameters():
        gan.check(case, f"grad_D/{key}", parameter.grad)

    pairing = F.softplus(-(D(fake, c) - D(real, c)))
    gan.check(case, "G_report/G/loss", pairing)
    (pairing.mean() * gain).backward()
    for key, parameter in G.named_parameters():
        gan.check(case, f"grad_G/{key}", parameter.grad)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("name", NETWORKS)
def test_both_phases(gan: GoldenGan, name: str, dtype: torch.dtype) -> None:
    both_phases(gan, name, dtype)


@pytest.mark.parametrize("dtype", TYPES)
def test_bfloat16_stages(gan: GoldenGan, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a CPU they are for tests only."""
    monkeypatch.setattr(r3gan, "HALF_DEVICES", ("cpu",))
    both_phases(gan, "bf16_32", dtype)


def test_bfloat16_stages_stay_float32_on_a_cpu(gan: GoldenGan) -> None:
    case = gan.case("bf16_32")
    G = r3gan.Generator(**case["G_kwargs"])
    plain = r3gan.Generator(**case["G_kwargs"] | {"FP16Stages": []})
    plain.load_state_dict(G.state_dict())
    z = torch.randn(2, G.z_dim)
    assert torch.equal(G(z), plain(z))


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("name", ["up", "down", "resblock", "gbasis", "dbasis"])
def test_layers(gan: GoldenGan, name: str, dtype: torch.dtype) -> None:
    case = gan.case(name)
    layer = {
        "up": lambda: r3gan.UpsampleLayer(3, 3, (1, 2, 1)),
        "down": lambda: r3gan.DownsampleLayer(3, 3, (1, 2, 1)),
        "resblock": lambda: r3gan.ResidualBlock(16, 4, 2, 3, 8),
        "gbasis": lambda: r3gan.GenerativeBasis(10, 12),
        "dbasis": lambda: r3gan.DiscriminativeBasis(12, 5),
    }[name]()
    fill(layer, gan.recipe, case["seed"])
    layer = layer.to(dtype)
    make = makers(gan.recipe, dtype)
    x = make["normal"]("x", case["tensors"]["grad_x"]["shape"], case["seed"]).requires_grad_()
    y = layer(x)
    y.backward(make["normal"]("dy", y.shape, case["seed"]))
    gan.check(case, "y", y)
    gan.check(case, "grad_x", x.grad)


def test_resampling_kernel(gan: GoldenGan) -> None:
    torch.testing.assert_close(r3gan.Resampler((1, 2, 1)).Kernel, gan.array("lowpass_kernel"))


@pytest.mark.parametrize("preset", ["CIFAR10", "FFHQ-64", "FFHQ-256", "ImageNet-32"])
def test_presets(gan: GoldenGan, preset: str) -> None:
    """Sizes and names of the published configurations, without their memory."""
    expected = gan.data["presets"][preset]
    with torch.device("meta"):
        G, D = r3gan.Generator(**expected["G_kwargs"]), r3gan.Discriminator(**expected["D_kwargs"])
    for network, key in ((G, "G"), (D, "D")):
        assert count_parameters(network) == expected[f"{key}_params"]
        if f"{key}_state_dict" in expected:
            listing = expected[f"{key}_state_dict"]
            assert [(k, list(v.shape)) for k, v in network.state_dict().items()] == list(listing.items())


def test_initialisation(gan: GoldenGan) -> None:
    """Standard deviations, to what their estimates from so many numbers allow."""
    recorded = gan.data["init_mean_std"]
    modules = {
        "ResidualBlock(256,32,2,3,VarianceScalingParameter=14)": r3gan.ResidualBlock(256, 32, 2, 3, 14),
        "GenerativeBasis(128,512)": r3gan.GenerativeBasis(128, 512),
        "DiscriminativeBasis(512,128)": r3gan.DiscriminativeBasis(512, 128),
    }
    for title, module in modules.items():
        state = module.state_dict()
        assert list(state) == list(recorded[title])
        for name, (_, std, shape) in recorded[title].items():
            assert list(state[name].shape) == shape
            sampling_error = 5 * std / sqrt(state[name].numel())
            assert state[name].std().item() == pytest.approx(std, abs=sampling_error), name
            assert abs(state[name].mean().item()) <= sampling_error, name
    widths = {"WidthPerStage": [256], "CardinalityPerStage": [8], "BlocksPerStage": [1]}
    D = r3gan.Discriminator(**widths, c_dim=100, ConditionEmbeddingDimension=256)
    G = r3gan.Generator(NoiseDimension=64, **widths, c_dim=100)
    for network, title in (
        (D, "Discriminator embedding (100 classes, 256)"), (G, "Generator embedding (100 classes, 64)"),
    ):  # fmt: skip
        weight = network.Model.EmbeddingLayer.weight
        assert weight.std().item() == pytest.approx(recorded[title][1], rel=0.05), title


def test_a_new_network_is_an_affine_map(gan: GoldenGan) -> None:
    """The last convolution of each block starts at zero, so blocks begin as identities."""
    case = gan.case("uncond16")
    D = r3gan.Discriminator(**case["D_kwargs"])
    x, y = torch.randn(2, 2, 3, 16, 16).unbind()
    torch.testing.assert_close(D(x) + D(y), D(x + y) + D(torch.zeros_like(x)))


def test_wrong_arguments() -> None:
    shape = {"WidthPerStage": [8, 8], "CardinalityPerStage": [2, 2], "BlocksPerStage": [1, 1]}
    with pytest.raises(ValueError, match="BlocksPerStage: got 2, 2 and 1"):
        r3gan.Discriminator(**shape | {"BlocksPerStage": [1]})
    with pytest.raises(ValueError, match="img_resolution: got 16, but 2 stages end at 8"):
        r3gan.Discriminator(**shape, img_resolution=16)
    with pytest.raises(ValueError, match="FP16Stages"):
        r3gan.Discriminator(**shape, FP16Stages=[-3])
    with pytest.raises(ValueError, match="3 groups do not divide 16"):
        r3gan.Discriminator(**shape | {"CardinalityPerStage": [3, 2]})
    G = r3gan.Generator(4, **shape, c_dim=3)
    with pytest.raises(ValueError, match=r"c: got None, expected \[2, 3\]"):
        G(torch.zeros(2, 4))
    with pytest.raises(ValueError, match=r"z: got shape \[2, 5\]"):
        G(torch.zeros(2, 5), torch.zeros(2, 3))
