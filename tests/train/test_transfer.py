"""Starting from another network's weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import sg3
from sg3.errors import DataError
from sg3.train.transfer import transfer_weights
from tests.helpers import tiny_networks as tiny
from tests.helpers.compare import assert_same_state
from tests.helpers.for_tools import tiny2


def scaled(generator: torch.nn.Module, factor: float) -> torch.nn.Module:
    with torch.no_grad():
        for parameter in generator.parameters():
            parameter.mul_(factor)
    return generator


@pytest.mark.parametrize("slot", ["G", "G_ema"])
def test_a_file_with_one_generator_starts_both_from_it(slot: str, tmp_path: Path) -> None:
    theirs = tiny.generator2(seed=1)
    sg3.save(sg3.Snapshot(**{slot: theirs}), tmp_path / "a.pkl")
    ours = {"G": tiny.generator2(seed=2), "G_ema": tiny.generator2(seed=3), "D": tiny.discriminator(c_dim=0)}
    before = {name: tensor.clone() for name, tensor in ours["D"].state_dict().items()}
    report = transfer_weights(str(tmp_path / "a.pkl"), ours, least=0.5)
    assert_same_state(ours["G"], theirs)
    assert_same_state(ours["G_ema"], theirs)
    assert all(torch.equal(tensor, before[name]) for name, tensor in ours["D"].state_dict().items())
    assert report[2] == f"D: {tmp_path / 'a.pkl'} has none, starting from random weights"


def test_each_from_its_own_if_there_are_both(tmp_path: Path) -> None:
    files = {"G": tiny.generator2(seed=1), "G_ema": scaled(tiny.generator2(seed=1), 2)}
    sg3.save(sg3.Snapshot(**files), tmp_path / "a.pkl")
    ours = {name: tiny.generator2(seed=2) for name in files}
    transfer_weights(str(tmp_path / "a.pkl"), ours, least=0.5)
    for name, network in ours.items():
        assert_same_state(network, files[name])


def test_a_discriminator_alone_fits_no_generator(tmp_path: Path) -> None:
    sg3.save(sg3.Snapshot(D=tiny.discriminator()), tmp_path / "a.pkl")
    with pytest.raises(DataError, match="has 0% of the numbers of this run's G"):
        transfer_weights(str(tmp_path / "a.pkl"), {"G": tiny.generator2(), "G_ema": tiny.generator2()}, 0.5)


def test_what_was_not_taken_as_it_is_is_said(tmp_path: Path) -> None:
    """As where an image is drawn: of a file whose noise had to be drawn."""
    path = tmp_path / "a.pt"
    sg3.save(sg3.Snapshot(G_ema=tiny2()), path)
    content = torch.load(path)
    content["g_ema"] = {name: x for name, x in content["g_ema"].items() if not name.startswith("noises.")}
    torch.save(content, path)
    report = transfer_weights(str(path), {"G": tiny2(), "G_ema": tiny2()}, least=1.0)
    assert report[2:] == [f"note: {path}: g_ema: has no constant noise; it is drawn anew, the same each time"]


@pytest.mark.parametrize("opaque", [tiny.generator2, tiny.generator3])
def test_alpha_is_added_to_networks_without(opaque: Callable[[int], torch.nn.Module], tmp_path: Path) -> None:
    """G's pictures are the same ones, opaque; D judges opaque images as before, and can learn to look at alpha."""
    D = type(tiny.discriminator())(c_dim=0, img_resolution=8, img_channels=3, channel_base=64, channel_max=6)
    theirs = {"G": opaque(1), "G_ema": opaque(4), "D": D.eval()}
    sg3.save(sg3.Snapshot(**theirs), tmp_path / "a.pkl")
    ours = {name: type(network)(**{**network.init_kwargs, "img_channels": 4}) for name, network in theirs.items()}
    report = transfer_weights(str(tmp_path / "a.pkl"), ours, least=1.0)
    assert all("made there for images without alpha" in line for line in report)
    for name in ("G", "G_ema"):
        image, before = tiny.image(ours[name].eval(), 2), tiny.image(theirs[name], 2)
        torch.testing.assert_close(image[:, :3], before)
        torch.testing.assert_close(image[:, 3], torch.ones_like(image[:, 3]))
    seen = torch.randn(4, 4, 8, 8)
    torch.testing.assert_close(ours["D"](seen, None), theirs["D"](seen[:, :3], None))
    ours["D"](seen, None).sum().backward()
    assert ours["D"].b8.fromrgb.weight.grad[:, 3].abs().min() > 0


def test_alpha_is_added_to_gray_only_by_gray(tmp_path: Path) -> None:
    theirs = tiny.generator2(seed=1)
    sg3.save(sg3.Snapshot(G_ema=theirs), tmp_path / "a.pkl")
    ours = type(theirs)(**{**theirs.init_kwargs, "img_channels": 2})
    line = transfer_weights(str(tmp_path / "a.pkl"), {"G": ours}, least=0.5)[0]
    assert "of another shape (synthesis.b4.torgb.weight" in line
