"""mmagic's and mmgeneration's checkpoints, StyleGAN3 and StyleGAN2: names, prefixes, order of colours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import sg3
from sg3.errors import DataError, UsageError
from sg3.formats import arguments_from_shapes, networks
from sg3.models import stylegan2, stylegan3
from tests.helpers import other_names
from tests.helpers import tiny_networks as tiny


def stylegan3_generator(radial: bool = False, c_dim: int = 0) -> stylegan3.Generator:
    kwargs: dict[str, Any] = {"conv_kernel": 1, "use_radial_filters": True} if radial else {}
    network = stylegan3.Generator(
        z_dim=8, c_dim=c_dim, w_dim=6, img_resolution=32, img_channels=3, channel_base=256, channel_max=14,
        num_layers=6, margin_size=4, **kwargs,
    )  # fmt: skip
    return other_names.randomized(network)


def prefixed(prefix: str, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {prefix + name: tensor for name, tensor in state.items()}


def write(path: Path, *parts: dict[str, Any], **more: Any) -> Path:
    """A checkpoint as these programs save it, with what else they keep."""
    state = {name: tensor for part in parts for name, tensor in part.items()}
    meta = {"mmgen_version": "0.7.1", "cfg": "model = dict()", "hooks": {0: {"x": 1}}, "iter": 5}
    optimizer = {"generator": {"state": {0: {"exp_avg": torch.ones(3)}}, "param_groups": [{"betas": (0.0, 0.99)}]}}
    torch.save({"meta": meta, "state_dict": state, "optimizer": optimizer, **more}, path)
    return path


def test_whole_checkpoints_of_both_programs(tmp_path: Path) -> None:
    G, D, G_ema = other_names.generator(), other_names.discriminator(), other_names.generator()
    with torch.no_grad():
        G.synthesis.b4.const.neg_()
    extra = {"mean_path_length": torch.ones([]), "generator_ema.steps": torch.tensor(5)}
    for prefix in ("generator_ema.", "generator_ema.module."):
        path = write(
            tmp_path / "a_rgb.pth", prefixed("generator.", other_names.mmagic_generator(G)),
            prefixed(prefix, other_names.mmagic_generator(G_ema)),
            prefixed("discriminator.", other_names.mmagic_discriminator(D)), extra,
            {"discriminator.ada_aug.log_buffer": torch.ones(2), "discriminator.ada_aug.aug_pipeline.p": torch.ones([])},
        )  # fmt: skip
        loaded = sg3.load(path)
        assert torch.equal(tiny.image(loaded.G), tiny.image(G))
        assert torch.equal(tiny.image(loaded.G_ema), tiny.image(G_ema))
        images = torch.randn(4, 3, 16, 16)
        assert torch.equal(loaded.D(images), D(images))
        assert loaded.origin == "mmagic StyleGAN2 checkpoint (.pth)"


@pytest.mark.parametrize("prefix", ["generator_ema.", "generator_ema.module.", ""])
@pytest.mark.parametrize("radial", [False, True])
def test_stylegan3(radial: bool, prefix: str, tmp_path: Path) -> None:
    G = stylegan3_generator(radial)
    path = write(tmp_path / "cvt_official_rgb_32.pth", prefixed(prefix, other_names.mmagic_stylegan3(G)))
    loaded = sg3.load(path).G_ema
    assert loaded.init_kwargs["channel_base"] == 256
    for name, tensor in G.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name
    assert torch.equal(tiny.image(loaded), tiny.image(G))


def test_real_sizes_are_found_from_the_shapes() -> None:
    """The arguments of the published configurations come out of nothing but names and shapes."""
    for resolution, base, most, radial in ((256, 16384, 512, False), (512, 65536, 1024, True)):
        kwargs: dict[str, Any] = {"conv_kernel": 1, "use_radial_filters": True} if radial else {}
        with networks._BlankTensors(10**9):
            G = stylegan3.Generator(512, 0, 512, resolution, 3, channel_base=base, channel_max=most, **kwargs)
        found = arguments_from_shapes.stylegan3_generator(G.state_dict())
        assert (found["channel_base"], found["channel_max"], found["num_layers"]) == (base, most, 14)
        assert (found["margin_size"], found["filter_size"], found["use_radial_filters"]) == (10, 6, radial)
    for resolution, base in ((256, 16384), (1024, 32768)):
        with networks._BlankTensors(10**9):
            G2 = stylegan2.Generator(512, 0, 512, resolution, 3, channel_base=base)
            D = stylegan2.Discriminator(0, resolution, 3, channel_base=base)
        assert arguments_from_shapes.stylegan2_generator(G2.state_dict())["channel_base"] == base
        assert arguments_from_shapes.stylegan2_discriminator(D.state_dict())["channel_base"] == base


@pytest.mark.parametrize(("base", "most"), [(250, 16), (203, 400), (97, 9), (1024, 8), (202, 51)])
def test_unusual_numbers_of_channels(base: int, most: int) -> None:
    """Whatever the numbers were, the ones found make the same layers."""
    kwargs = {"channel_base": base, "channel_max": most}
    G = stylegan3.Generator(4, 0, 4, 32, 3, num_layers=7, **kwargs)
    again = stylegan3.Generator(**arguments_from_shapes.stylegan3_generator(G.state_dict()))
    assert again.synthesis.layer_names == G.synthesis.layer_names
    assert again.synthesis.input.channels == G.synthesis.input.channels
    G2, D = stylegan2.Generator(4, 0, 4, 32, 3, **kwargs), stylegan2.Discriminator(0, 32, 3, **kwargs)
    finders = arguments_from_shapes.stylegan2_generator, arguments_from_shapes.stylegan2_discriminator
    for network, find in zip((G2, D), finders, strict=True):
        again = type(network)(**find(network.state_dict()))
        expected = {name: tensor.shape for name, tensor in network.state_dict().items()}
        assert {name: tensor.shape for name, tensor in again.state_dict().items()} == expected


def test_conditional_networks(tmp_path: Path) -> None:
    """Their mapping layers are numbered from 0, as there is nothing to normalise in layer 0."""
    G = other_names.generator(c_dim=3)
    state = {}
    for name, tensor in other_names.mmagic_generator(G).items():
        head, _, rest = name.partition(".")
        number, _, tail = rest.partition(".")
        state[f"{head}.{int(number) - 1}.{tail}" if head == "style_mapping" else name] = tensor
    state["embed.weight"], state["embed.bias"] = G.mapping.embed.weight, G.mapping.embed.bias
    state["style_mapping.w_avg"] = G.mapping.w_avg
    loaded = sg3.load(write(tmp_path / "a_rgb.pth", prefixed("generator_ema.", state))).G_ema
    assert loaded.c_dim == 3
    assert torch.equal(tiny.image(loaded, 2), tiny.image(G, 2))
    assert torch.equal(loaded.mapping.w_avg, G.mapping.w_avg)

    G3 = stylegan3_generator(c_dim=2)
    path = write(tmp_path / "b_rgb.pth", prefixed("generator_ema.", other_names.mmagic_stylegan3(G3)))
    assert torch.equal(tiny.image(sg3.load(path).G_ema, 2), tiny.image(G3, 2))


def test_order_of_colours(tmp_path: Path) -> None:
    """Files are taken for blue, green, red unless their name says rgb; both can be overruled."""
    G, D = other_names.generator(), other_names.discriminator()
    parts = prefixed("generator_ema.", other_names.mmagic_generator(G))
    parts |= prefixed("discriminator.", other_names.mmagic_discriminator(D))
    trained = write(tmp_path / "stylegan2_c2_ffhq.pth", parts)
    converted = write(tmp_path / "stylegan2_cvt_official_rgb_ffhq.pth", parts)
    images = torch.randn(4, 3, 16, 16)
    for path, order, flipped in (
        (trained, "auto", True), (trained, "rgb", False), (trained, "bgr", True),
        (converted, "auto", False), (converted, "bgr", True),
    ):  # fmt: skip
        loaded = sg3.load(path, channel_order=order)
        expected = tiny.image(G).flip(1) if flipped else tiny.image(G)
        torch.testing.assert_close(tiny.image(loaded.G_ema), expected, rtol=0, atol=1e-5)
        torch.testing.assert_close(loaded.D(images), D(images.flip(1) if flipped else images), rtol=1e-5, atol=1e-5)
    G3 = stylegan3_generator()
    path = write(tmp_path / "trained.pth", prefixed("generator_ema.", other_names.mmagic_stylegan3(G3)))
    torch.testing.assert_close(tiny.image(sg3.load(path).G_ema), tiny.image(G3).flip(1), rtol=0, atol=1e-5)
    with pytest.raises(UsageError, match="channel_order: got 'brg', expected auto, rgb or bgr"):
        sg3.load(path, channel_order="brg")


def test_order_of_colours_of_other_formats(tmp_path: Path) -> None:
    sg3.save(sg3.Snapshot(G_ema=other_names.generator()), tmp_path / "a.pkl")
    swapped = sg3.load(tmp_path / "a.pkl", channel_order="bgr")
    expected = tiny.image(other_names.generator()).flip(1)
    torch.testing.assert_close(tiny.image(swapped.G_ema), expected, rtol=0, atol=1e-5)
    grey = stylegan2.Generator(4, 0, 4, 8, 1, channel_base=32, channel_max=4)
    sg3.save(sg3.Snapshot(G_ema=grey), tmp_path / "a.pkl")
    with pytest.raises(UsageError, match=r"a.pkl: G_ema: has images of 1 channels; only three have"):
        sg3.load(tmp_path / "a.pkl", channel_order="bgr")


def test_plain_weights_and_biases_inside_layers(tmp_path: Path) -> None:
    """Variants of names that do not change the meaning."""
    G = other_names.generator()
    state = {
        name.replace("weight_orig", "weight").replace("style_mapping.1.bias", "style_mapping.1.linear.bias"): tensor
        for name, tensor in other_names.mmagic_generator(G).items()
    }
    loaded = sg3.load(write(tmp_path / "a_rgb.pth", prefixed("generator_ema.", state))).G_ema
    assert torch.equal(tiny.image(loaded), tiny.image(G))


WRONG = {
    "L3_.*affine.bias missing": lambda s: s.pop(next(n for n in s if n.startswith("synthesis.L3") and "affine.b" in n)),
    "synthesis.extra unexpected": lambda s: s.update({"synthesis.extra": torch.ones(1)}),
    "its shapes are not those of a StyleGAN3 generator": lambda s: [s.pop(n) for n in list(s) if ".L2_" in n],
    "mapping.w_avg holds torch.int64": lambda s: s.update({"style_mapping.w_avg": torch.ones(6, dtype=torch.int64)}),
    "mapping.w_avg has shape .7. instead of .6.": lambda s: s.update({"style_mapping.w_avg": torch.ones(7)}),
    "StyleGAN3 generator .ValueError: no channel_base gives these numbers of channels": lambda s: s.update(
        {n.replace("L1_24_14", "L1_24_3"): s.pop(n) for n in list(s) if ".L1_" in n}
    ),
    "KeyError": lambda s: [s.pop(n) for n in list(s) if n.startswith("style_mapping.fc")],
}


@pytest.mark.parametrize("message", WRONG)
def test_files_that_do_not_fit(message: str, tmp_path: Path) -> None:
    state = other_names.mmagic_stylegan3(stylegan3_generator())
    WRONG[message](state)
    path = write(tmp_path / "a.pth", prefixed("generator_ema.", state))
    with pytest.raises(DataError, match=message) as caught:
        sg3.load(path)
    assert str(caught.value).startswith(f"{path}: G_ema: ")
    assert str(caught.value).isprintable()


def test_other_networks_are_refused_by_what_they_hold(tmp_path: Path) -> None:
    torch.save({"state_dict": torch.nn.Linear(2, 2).state_dict()}, tmp_path / "a.pth")
    with pytest.raises(DataError, match="holds weights, but of no network that sg3 knows"):
        sg3.load(tmp_path / "a.pth")
    torch.save({"model": 3, "epoch": 7}, tmp_path / "a.pth")
    with pytest.raises(DataError, match=r"a torch\.save file, but of no network that sg3 knows .it holds model, epoch"):
        sg3.load(tmp_path / "a.pth")
