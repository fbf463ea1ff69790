"""`sg3 convert`, and the other commands on files of every format."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import sg3
from sg3.cli import convert
from sg3.formats import mmagic
from tests.helpers import other_names
from tests.helpers import tiny_networks as tiny


@pytest.fixture
def stylegan2(tmp_path: Path) -> Path:
    G = other_names.generator()
    sg3.save(sg3.Snapshot(G=G, D=other_names.discriminator(), G_ema=G), tmp_path / "sg2.pkl")
    return tmp_path / "sg2.pkl"


@pytest.mark.parametrize("suffix", [".pkl", ".safetensors", ".pt"])
def test_conversions_are_verified(suffix: str, stylegan2: Path, run, tmp_path: Path) -> None:
    result = run("convert", stylegan2, tmp_path / f"b{suffix}", "--verify", "--seed=7")
    assert result.code == 0, result.err
    lines = result.out.splitlines()
    assert lines[0] == str(tmp_path / f"b{suffix}")
    assert lines[1:] == [f"{slot}: largest difference 0" for slot in ("G_ema", "G", "D")]
    assert "read official snapshot (.pkl); missing: augment_pipe" in result.err
    assert torch.equal(tiny.image(sg3.load(tmp_path / f"b{suffix}").G_ema), tiny.image(other_names.generator()))


def test_parts_and_licence(stylegan2: Path, run, tmp_path: Path) -> None:
    dest = tmp_path / "b.safetensors"
    result = run("convert", stylegan2, dest, "--network-slot=G_ema", "--licence=CC0")
    assert result.code == 0
    assert "missing: G, D, augment_pipe" in result.err
    loaded = sg3.load(dest)
    assert (loaded.G, loaded.D, loaded.licence) == (None, None, "CC0")
    facts = json.loads(run("info", dest, "--json").out)
    assert facts["format"] == "sg3 safetensors"
    assert facts["missing"] == ["G", "D", "augment_pipe"]
    assert facts["licence"] == "CC0"


def test_verification_fails_when_weights_differ(stylegan2: Path, run, tmp_path: Path, monkeypatch) -> None:
    save = sg3.formats.save

    def wrong_save(snapshot: sg3.Snapshot, path: Path) -> None:
        with torch.no_grad():
            snapshot.G_ema.synthesis.b16.torgb.bias[0] += 0.01
            save(snapshot, path)
            snapshot.G_ema.synthesis.b16.torgb.bias[0] -= 0.01

    monkeypatch.setattr(sg3.formats, "save", wrong_save)
    result = run("convert", stylegan2, tmp_path / "b.pkl", "--verify")
    assert result.code == 70
    assert "G_ema: largest difference 0.01" in result.out
    assert "b.pkl: differs from" in result.err


def test_a_lost_network_counts_as_a_difference() -> None:
    snapshot = sg3.Snapshot(D=tiny.discriminator())
    assert convert.differences(snapshot, sg3.Snapshot(), seed=0) == [("D", float("inf"))]


def test_colours(run, tmp_path: Path) -> None:
    G = other_names.generator()
    state = {f"generator_ema.{name}": t for name, t in other_names.mmagic_generator(G).items()}
    torch.save({"state_dict": state}, tmp_path / "a.pth")
    for order, flipped in (("auto", True), ("rgb", False)):
        args = ["convert", tmp_path / "a.pth", tmp_path / "b.safetensors", f"--channel-order={order}", "--verify"]
        assert run(*args).code == 0
        expected = tiny.image(G).flip(1) if flipped else tiny.image(G)
        torch.testing.assert_close(tiny.image(sg3.load(tmp_path / "b.safetensors").G_ema), expected, rtol=0, atol=1e-5)
    facts = json.loads(run("info", tmp_path / "a.pth", "--json").out)
    assert facts["format"] == mmagic.ORIGINS[0]
    assert facts["G_ema"]["image"] == "16 x 16 x 3"


def test_info_of_an_address(stylegan2: Path, run, tmp_path: Path) -> None:
    facts = json.loads(run("info", stylegan2.as_uri(), "--json").out)
    assert facts["format"] == "official snapshot (.pkl)"
    missing = run("info", (tmp_path / "nothing.pkl").as_uri())
    assert missing.code == 66
    assert "nothing.pkl" in missing.error_line()


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (["SG2", "b.onnx"], 2, "sg3 writes .pkl, .safetensors, .pt files, not .onnx"),
        (["SG2", "b.pkl", "--network-slot=augment_pipe"], 65, "sg2.pkl: has no augment_pipe"),
        (["SG2", "b.pkl", "--licence=CC0"], 2, "--licence: only .safetensors files have a place for it"),
        (["SG2", "nowhere/b.pkl"], 66, "there is no such folder"),
        (["nothing.pkl", "b.pkl"], 66, "nothing.pkl: there is no such file"),
    ],
)
def test_wrong_inputs(args: list[str], code: int, words: str, stylegan2: Path, run, tmp_path: Path) -> None:
    source, dest, *rest = args
    result = run("convert", source.replace("SG2", str(stylegan2)), tmp_path / dest, *rest)
    assert result.code == code, result.err
    assert words in result.error_line()
    assert [path.name for path in tmp_path.iterdir()] == ["sg2.pkl"]


def test_augmentation_has_no_place_in_a_pt_file(run, golden: Path, tmp_path: Path) -> None:
    G = other_names.generator()
    pipe = sg3.load(golden / "ada-sg2-32.pkl").augment_pipe
    sg3.save(sg3.Snapshot(G_ema=G, augment_pipe=pipe), tmp_path / "a.pkl")
    result = run("convert", tmp_path / "a.pkl", tmp_path / "a.pt", "--verify")
    assert result.code == 0
    assert "note: augment_pipe is left out" in result.err
    facts = json.loads(run("info", tmp_path / "a.pkl", "--json").out)
    assert facts["augment_pipe"]["operations"] == ["xflip", "rotate90", "xint", "scale"]


@pytest.mark.parametrize("name", ["sg3t-64", "sg3r-64", "sg2-32-cond", "tf-sg2-16", "ada-sg2-32"])
def test_golden_images_through_generate(
    name: str, golden: Path, golden_networks, run, tmp_path: Path, monkeypatch
) -> None:
    """Golden latents and labels in place of a seed's: the PNG is the golden image, as the original would save it."""
    own = golden / f"{name}.npz"
    arrays = np.load(own) if own.is_file() else golden_networks[1].under(f"{name}/")
    z, c, image = (torch.as_tensor(arrays[key]) for key in ("z", "c", "img"))
    monkeypatch.setattr("sg3.sampling.seed_latents", lambda seeds, z_dim: z[list(seeds)])
    monkeypatch.setattr("sg3.sampling.class_labels", lambda G, class_idx, count: c[:count])
    sources = [golden / f"{name}.pkl", tmp_path / "a.safetensors"]
    assert run("convert", *sources).code == 0
    pixels = (image * 127.5 + 128).clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).numpy()
    for source in sources:
        result = run("generate", f"--network={source}", "--seeds=0-1", f"--outdir={tmp_path}", "--device=cpu")
        assert result.code == 0, result.err
        for seed in (0, 1):
            seen = np.asarray(Image.open(tmp_path / f"seed000{seed}.png")).astype(int)
            assert np.abs(seen - pixels[seed]).max() <= 1  # truncation shows differences of 1e-6 at a whole number
            assert (seen != pixels[seed]).mean() < 0.01
