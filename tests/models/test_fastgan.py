"""FastGAN's generator against the numbers of Projected GAN's code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from sg3.models import fastgan
from sg3.models.layers import count_parameters
from tests.helpers.golden_gan import GoldenGan, buffer_starts, fill, gradient_norms, makers, one_hot

FULL_WIDTH = ("lite256_eval", "big256_eval_noise")  # 80 and 106 million parameters
LARGE = ("lite512_ngf16_eval", "big1024_ngf16_eval_noise", "lite1024_ngf16_eval_v")
TRAINED = ("lite256_ngf16_train", "big256_ngf16_train_noise")
SMALL = (
    "big256_ngf16_eval_noise0", "lite128_ngf32_eval", "lite256_cond_ngf16_eval", "big256_cond_ngf16_train_noise",
)  # fmt: skip


@pytest.fixture(scope="module")
def gan(golden: Path) -> GoldenGan:
    return GoldenGan(golden, "fastgan")


@pytest.fixture(scope="module")
def listings(golden: Path) -> dict[str, Any]:
    return json.loads((golden / "gan" / "fastgan_state_dicts.json").read_text())


def compare(gan: GoldenGan, name: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """Image, features after every block, gradients, buffers."""
    case = gan.case(name)
    seed = case["seed"]
    G = fastgan.Generator(**case["kwargs"])
    assert count_parameters(G) == case["n_params"]
    options = {key: case[key] for key in ("noise_scale", "var_scale", "iters", "transposed") if key in case}
    fill(G, gan.recipe, seed, **options)
    G = G.to(dtype).train(case["mode"] == "train")
    make = makers(gan.recipe, dtype)
    count = case["tensors"]["img"]["shape"][0]
    z = make["normal"]("z", (count, G.z_dim), seed).requires_grad_()
    c = one_hot(case["classes"], case["c_width"]) if "classes" in case else None
    drawn = [make["normal"](f"noise{k}", shape, seed) for k, shape in enumerate(case["noise_shapes"])]
    monkeypatch.setattr(G.synthesis, "noise_maps", lambda z, mode: iter(drawn))
    features = record_features(G.synthesis)

    with torch.set_grad_enabled(case["mode"] == "train"):
        img = G(z, c)
    gan.check(case, "img", img)
    for key in case["tensors"]:
        if key.startswith("feat/"):
            gan.check(case, key, features[key.removeprefix("feat/")])
    if f"{name}/img.topleft24" in gan.arrays:
        for corner, part in (("topleft24", img[..., :24, :24]), ("bottomright24", img[..., -24:, -24:])):
            gan.near(part, gan.array(f"{name}/img.{corner}"), gan.bound(case, "img", dtype), corner)
    if case["mode"] == "train":
        img.backward(make["normal"]("dy", img.shape, seed) / case["kwargs"]["img_resolution"])
        gan.check(case, "grad_z", z.grad)
        gan.check(case, "param_grad_norm", gradient_norms(G, case["params"]))
        gan.check(case, "buffers_after", buffer_starts(G))


def record_features(synthesis: nn.Module) -> dict[str, torch.Tensor]:
    """Filled by the next forward pass: what each part of the synthesis network gives, by its name."""
    seen: dict[str, torch.Tensor] = {}

    def hook(name: str) -> Any:
        return lambda module, inputs, output: seen.update({name: output})

    for name, child in synthesis.named_children():
        child.register_forward_hook(hook(name))
    return seen


@pytest.mark.parametrize("name", SMALL)
def test_float64(gan: GoldenGan, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    compare(gan, name, torch.float64, monkeypatch)


@pytest.mark.parametrize("name", ["big256_cond_ngf16_train_noise"])
def test_float32(gan: GoldenGan, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    compare(gan, name, torch.float32, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", [*FULL_WIDTH, *LARGE, *TRAINED])
def test_larger(gan: GoldenGan, name: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    compare(gan, name, dtype, monkeypatch)


@pytest.mark.parametrize("resolution", [128, 256, 512, 1024])
@pytest.mark.parametrize("kind", ["", "_lite", "_cond", "_lite_cond"])
def test_state_dict(listings: dict[str, Any], resolution: int, kind: str) -> None:
    listing = listings[f"{resolution}{kind}"]
    cond = "cond" in kind
    with torch.device("meta"):
        G = fastgan.Generator(
            img_resolution=resolution, c_dim=10 if cond else 0, cond=cond, synthesis_kwargs={"lite": "lite" in kind}
        )
    if "error" in listing:  # the original cannot make these; ours has the names that follow from the others
        assert cond
        assert resolution > 256
        assert set(listings[f"256{kind}"]["keys"]) < set(G.state_dict())
        return
    assert count_parameters(G) == listing["n_params"]
    assert [(k, list(v.shape)) for k, v in G.state_dict().items()] == list(listing["keys"].items())


def small(resolution: int = 32, **options: Any) -> fastgan.Generator:
    G = fastgan.Generator(z_dim=8, img_resolution=resolution, ngf=4, **options).eval()
    for module in G.modules():
        if isinstance(module, fastgan.NoiseInjection):
            nn.init.constant_(module.weight, 0.3)
    return G


@torch.no_grad()
def test_noise_modes() -> None:
    G = small()
    z = torch.randn(3, 8)
    assert not torch.equal(G(z), G(z))
    assert torch.equal(G(z, noise_mode="none"), G(z, noise_mode="none"))
    const = G(z, noise_mode="const")
    assert torch.equal(const, G(z, noise_mode="const"))
    assert not torch.equal(const, G(z, noise_mode="none"))
    # The maps belong to the network and not to the batch: a seed's picture is the same however seeds are batched.
    torch.testing.assert_close(const, torch.cat([G(part, noise_mode="const") for part in z.split(1)]))
    with pytest.raises(ValueError, match="noise_mode: got 'fixed'"):
        G(z, noise_mode="fixed")


@torch.no_grad()
@pytest.mark.parametrize("resolution", [32, 64])
@pytest.mark.parametrize("options", [{}, {"cond": 1, "c_dim": 3}])
def test_sizes_below_the_originals(resolution: int, options: dict[str, int]) -> None:
    G = small(resolution, **options)
    c = torch.eye(3)[[0, 1]] if options else None
    img = G(torch.randn(1, 8).expand(2, 8), c, noise_mode="const")
    assert img.shape == (2, 3, resolution, resolution)
    assert torch.equal(img[0], img[1]) == (not options)
    assert all(p.requires_grad for p in G.parameters())
    assert not hasattr(G.synthesis, f"feat_{2 * resolution}")


def test_every_parameter_is_trained_at_the_sizes_below() -> None:
    G = small(64).train()
    G(torch.randn(4, 8)).square().mean().backward()
    assert [name for name, p in G.named_parameters() if p.grad is None] == []


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match="img_resolution: got 96"):
        fastgan.Generator(img_resolution=96)
    with pytest.raises(ValueError, match="c_dim: got 0"):
        fastgan.Generator(img_resolution=32, ngf=4, cond=1)
    with pytest.raises(TypeError, match="synthesis_kwargs: got num_fp16_res"):
        fastgan.Generator(img_resolution=32, ngf=4, synthesis_kwargs={"num_fp16_res": 4})
    G = small(cond=1, c_dim=3)
    with pytest.raises(ValueError, match=r"c: got None, expected \[2, 3\]"):
        G(torch.zeros(2, 8))
    with pytest.raises(ValueError, match="ws: got shape"):
        G(torch.zeros(2, 9), torch.eye(3)[:2])
