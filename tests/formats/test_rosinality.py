"""rosinality's StyleGAN2 files: reading what its names say, and writing the same names."""

from __future__ import annotations

import argparse
import io
from pathlib import Path
from typing import Any

import pytest
import torch

import sg3
from sg3.errors import DataError, UsageError
from sg3.models import stylegan2
from tests.helpers import other_names
from tests.helpers import tiny_networks as tiny


def content(**more: Any) -> dict[str, Any]:
    G, D = other_names.generator(), other_names.discriminator()
    return {
        "g": other_names.rosinality_generator(G),
        "d": other_names.rosinality_discriminator(D),
        "g_ema": other_names.rosinality_generator(G),
        "latent_avg": G.mapping.w_avg,
        **more,
    }


def saved(value: Any, path: Path, **options: Any) -> Path:
    torch.save(value, path, **options)
    return path


@pytest.mark.parametrize("is_zip", [True, False])
def test_weights_arrive_where_they_belong(is_zip: bool, tmp_path: Path) -> None:
    """A training run's file, which also holds optimizers and settings: images, logits and truncation are the same."""
    G, D = other_names.generator(), other_names.discriminator()
    optimizer = torch.optim.Adam(torch.nn.Linear(2, 2).parameters())
    optimizer.step(lambda: torch.nn.Linear(2, 2)(torch.ones(2)).sum().backward())
    steps = {0: {"step": 1, "exp_avg": torch.ones(2)}}  # older versions number the parameters by their addresses
    more = {"g_optim": optimizer.state_dict(), "d_optim": {"state": {140_000_000_000_000 + i: steps for i in range(3)}}}
    more |= {"args": argparse.Namespace(size=16, path="x"), "ada_aug_p": torch.tensor(0.5)}
    path = saved(content(**more), tmp_path / "a.pt", _use_new_zipfile_serialization=is_zip)
    loaded = sg3.load(path)
    for network in (loaded.G_ema, loaded.G):
        assert torch.equal(tiny.image(network, 3), tiny.image(G, 3))
        z = torch.randn(2, 8)
        assert torch.equal(network.mapping(z, None, truncation_psi=0.5), G.mapping(z, None, truncation_psi=0.5))
        assert network.init_kwargs["channel_max"] == 10
    images = torch.randn(4, 3, 16, 16)
    assert torch.equal(loaded.D(images), D(images))
    assert loaded.origin == "rosinality StyleGAN2 checkpoint (.pt)"


def test_generator_alone_and_data_parallel(tmp_path: Path) -> None:
    plain = other_names.rosinality_generator(other_names.generator())
    state = {f"module.{name}": tensor for name, tensor in plain.items()}
    for value in ({"g_ema": state}, state):
        loaded = sg3.load(saved(value, tmp_path / "a.pt"))
        assert (loaded.G, loaded.D) == (None, None)
        assert torch.equal(tiny.image(loaded.G_ema), tiny.image(other_names.generator()))


def test_mean_of_w_is_estimated_where_there_is_none(tmp_path: Path) -> None:
    value = content()
    del value["latent_avg"]
    G = other_names.generator()
    loaded = sg3.load(saved(value, tmp_path / "a.pt")).G_ema
    rng = torch.Generator().manual_seed(3)
    expected = G.mapping(torch.randn(20_000, 8, generator=rng), None)[:, 0]
    error = (loaded.mapping.w_avg - expected.mean(dim=0)).abs() / expected.std(dim=0)
    assert error.max() < 0.06  # four standard errors of a mean of 4096
    again = sg3.load(tmp_path / "a.pt").G_ema
    assert torch.equal(loaded.mapping.w_avg, again.mapping.w_avg)


def test_constant_noise_that_is_not_there_is_drawn(tmp_path: Path) -> None:
    """As files of its first versions have none."""
    G = other_names.generator()
    state = {name: t for name, t in other_names.rosinality_generator(G).items() if not name.startswith("noises.")}
    loaded = sg3.load(saved({"g_ema": state, "latent_avg": G.mapping.w_avg}, tmp_path / "a.pt"))
    assert loaded.notes == [f"{tmp_path / 'a.pt'}: g_ema: has no constant noise; it is drawn anew, the same each time"]
    noise = {name: b for name, b in loaded.G_ema.named_buffers() if name.endswith("noise_const")}
    assert {name: b.shape for name, b in noise.items()} == {name: G.get_buffer(name).shape for name in noise}
    assert all(0.5 < b.std() < 1.5 for b in noise.values())
    again = sg3.load(tmp_path / "a.pt").G_ema
    assert all(torch.equal(b, again.get_buffer(name)) for name, b in noise.items())
    ws = torch.randn(1, G.num_ws, 8)
    assert torch.equal(loaded.G_ema.synthesis(ws, noise_mode="none"), G.synthesis(ws, noise_mode="none"))
    state |= {"noises.noise_0": torch.zeros(1, 1, 4, 4)}  # some, but not all: that file is damaged
    with pytest.raises(DataError, match=r"noises\.noise_1 missing"):
        sg3.load(saved({"g_ema": state}, tmp_path / "a.pt"))


@pytest.mark.parametrize("differ", [False, True])
def test_mean_of_w_for_each_layer(differ: bool, tmp_path: Path) -> None:
    """As encoders keep it, which also bring the generator along under another name."""
    G = other_names.generator()
    layers = G.mapping.w_avg + (torch.randn(6, 8) if differ else torch.zeros(6, 8))
    state = {f"decoder.{name}": t for name, t in other_names.rosinality_generator(G).items()}
    state["encoder.input_layer.0.weight"] = torch.ones(2)
    loaded = sg3.load(saved({"state_dict": state, "latent_avg": layers, "opts": {"a": 1}}, tmp_path / "a.pt"))
    torch.testing.assert_close(loaded.G_ema.mapping.w_avg, layers.mean(dim=0))
    said = f"{tmp_path / 'a.pt'}: g_ema: has another mean of w for each of 6 layers; their mean is taken"
    assert loaded.notes == ([said] if differ else [])
    assert torch.equal(tiny.image(loaded.G_ema), tiny.image(G))


def test_discriminator_alone(tmp_path: Path) -> None:
    D = other_names.discriminator()
    state = other_names.rosinality_discriminator(D)
    for value in (state, {"d": state}):
        loaded = sg3.load(saved(value, tmp_path / "a.pt"))
        assert (loaded.G, loaded.G_ema) == (None, None)
        images = torch.randn(4, 3, 16, 16)
        assert torch.equal(loaded.D(images), D(images))


def test_unusual_blur_becomes_an_argument(tmp_path: Path) -> None:
    value = content()
    row = torch.tensor([1.0, 2.0, 1.0]) / 4
    for state in (value["g_ema"], value["g"], value["d"]):
        for name in [name for name in state if name.endswith("kernel")]:
            state[name] = torch.outer(row, row) * (4 if "convs.0.conv.blur" in name else 1)
    loaded = sg3.load(saved(value, tmp_path / "a.pt"))
    assert loaded.G_ema.init_kwargs["resample_filter"] == [0.25, 0.5, 0.25]
    torch.testing.assert_close(loaded.D.b16.conv1.resample_filter, torch.outer(row, row))


def without(name: str) -> Any:
    return lambda state: state.pop(name)


WRONG = {
    r"g_ema: .*convs.1.conv.modulation.bias missing": without("convs.1.conv.modulation.bias"),
    r"g_ema: .*convs.1.extra unexpected": lambda state: state.update({"convs.1.extra": torch.ones(1)}),
    r"g_ema: to_rgb1.bias has an unexpected shape \[3\]": lambda s: s.update({"to_rgb1.bias": torch.ones(3)}),
    r"b8.conv0.weight has shape \[10, 9, 3, 3\] instead of": lambda s: s.update(
        {"convs.0.conv.weight": torch.ones(1, 10, 9, 3, 3)}
    ),
    r"g_ema: .*its shapes are not those of a StyleGAN2 generator": lambda s: s.update(
        {"style.3.weight": torch.tensor(1.0)}
    ),
    r"g_ema: .*style.1.weight missing": lambda s: [s.pop(name) for name in list(s) if name.startswith("style.")],
    r"g_ema: is not a dictionary of tensors": lambda s: s.update({"style.1.weight": 3}),
}


@pytest.mark.parametrize("message", WRONG)
def test_files_that_do_not_fit(message: str, tmp_path: Path) -> None:
    state = other_names.rosinality_generator(other_names.generator())
    WRONG[message](state)
    with pytest.raises(DataError, match=message) as caught:
        sg3.load(saved({"g_ema": state}, tmp_path / "a.pt"))
    assert str(caught.value).startswith(f"{tmp_path / 'a.pt'}: ")
    assert str(caught.value).isprintable()


# ---- writing


def test_written_files_have_the_names_and_read_back(tmp_path: Path) -> None:
    G, D = other_names.generator(), other_names.discriminator()
    sg3.save(sg3.Snapshot(G=G, D=D, G_ema=G), tmp_path / "a.pt")
    written = torch.load(tmp_path / "a.pt", weights_only=True)
    expected = content()
    assert set(written) == set(expected)
    for name in ("g", "d", "g_ema"):
        assert set(written[name]) == set(expected[name])
        for key, tensor in expected[name].items():
            assert torch.equal(written[name][key], tensor), key
    assert torch.equal(written["latent_avg"], G.mapping.w_avg)
    loaded = sg3.load(tmp_path / "a.pt")
    for key, tensor in G.state_dict().items():
        assert torch.equal(loaded.G.state_dict()[key], tensor), key
    assert torch.equal(tiny.image(loaded.G_ema), tiny.image(G))


def small(**kwargs: Any) -> stylegan2.Generator:
    return stylegan2.Generator(4, 0, 4, 8, 3, channel_base=32, **kwargs)


@pytest.mark.parametrize(
    ("slot", "make", "message"),
    [
        ("G_ema", tiny.stylegan3_generator, "has no place for other networks than StyleGAN2's"),
        ("G", tiny.stylegan2_generator, "has no place for labels, or a z_dim other than w_dim"),
        ("D", tiny.discriminator, "has no place for labels"),
        ("D", lambda: tiny.discriminator(c_dim=0), "minibatch statistics of other groups than 4"),
        ("G", lambda: small(mapping_kwargs={"lr_multiplier": 1.0}), "lr_multiplier other than 0.01"),
        ("G", lambda: small(architecture="resnet"), "has no place for another architecture"),
        ("G", lambda: small(use_noise=False), "has no place for another architecture"),
    ],
)
def test_what_the_format_has_no_place_for(slot: str, make: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"a.pt: {slot}: .*{message}.*; write .pkl or .safetensors"):
        sg3.save(sg3.Snapshot(**{slot: make()}), tmp_path / "a.pt")
    assert not list(tmp_path.iterdir())


def test_torch_reads_what_sg3_writes_without_this_project(tmp_path: Path) -> None:
    """No class of sg3 is named in the file."""
    sg3.save(sg3.Snapshot(G_ema=other_names.generator()), tmp_path / "a.pt")
    data = (tmp_path / "a.pt").read_bytes()
    assert b"sg3" not in data
    assert set(torch.load(io.BytesIO(data), weights_only=True)) == {"g_ema", "latent_avg"}
