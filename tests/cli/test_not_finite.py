"""Networks that have diverged, and settings that make numbers overflow: named, not drawn black."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import sg3
from sg3.errors import NumericalError
from sg3.models import stylegan2, stylegan3
from sg3.sampling import to_uint8


def saved(path: Path, damage: float | None, family=stylegan3) -> Path:
    torch.manual_seed(1)
    shape = {"num_layers": 4} if family is stylegan3 else {}
    G = family.Generator(8, 0, 8, 16, 3, channel_base=128, channel_max=8, **shape)
    if damage is not None:
        with torch.no_grad():
            G.mapping.fc1.weight[2, 3] = damage
            G.mapping.w_avg[0] = damage
    sg3.save(sg3.Snapshot(G=G, G_ema=G), path)
    return path


@pytest.mark.parametrize("words", [
    ["generate", "--seeds=0", "--outdir=OUT"],
    ["style-mix", "--rows=0", "--cols=1", "--styles=0", "--outdir=OUT"],
    ["directions", "--outdir=OUT"],
    ["equivariance-video", "--output=OUT/a.mp4"],
    ["video", "--seeds=0,1", "--output=OUT/a.mp4"],
    ["spectra", "calc", "--source=NET", "--dest=OUT.npz", "--mean=0", "--std=1", "--num=1"],
    ["project", "--target=TARGET", "--outdir=OUT"],
    ["metrics", "--metrics=eqt16_int"],
], ids=lambda words: words[0])  # fmt: skip
def test_networks_that_have_diverged(words: list[str], discs: Path, run, tmp_path: Path) -> None:
    network = saved(tmp_path / "net.pkl", float("nan"))
    places = {"OUT": str(tmp_path / "out"), "NET": str(network), "TARGET": str(discs)}
    for name, place in places.items():
        words = [word.replace(name, place) for word in words]
    if words[0] != "spectra":
        words = [*words, f"--network={network}"]
    result = run(*words)
    assert result.code == 65, result.err
    assert (
        f"{network}: G_ema has NaN or infinite numbers in 2 tensors (mapping.fc1.weight, mapping.w_avg)"
        in result.error_line()
    )
    assert not (tmp_path / "out").exists()


def test_they_can_be_looked_at(run, tmp_path: Path) -> None:
    result = run("info", saved(tmp_path / "net.pkl", float("-inf")))
    assert result.code == 0
    line = next(line for line in result.out.splitlines() if line.startswith("G_ema.not_finite"))
    assert line.endswith("mapping.fc1.weight, mapping.w_avg")
    assert "not_finite" not in run("info", saved(tmp_path / "good.pkl", None)).out


@pytest.mark.parametrize("family", [stylegan2, stylegan3])
def test_numbers_that_overflow(family, run, tmp_path: Path) -> None:
    """Every weight is finite, what is made of them is not."""
    network = saved(tmp_path / "net.pkl", None, family)
    snapshot = sg3.load(network)
    for parameter in snapshot.G_ema.synthesis.parameters():
        parameter.mul_(1e30)
    sg3.save(snapshot, network)
    result = run("generate", f"--network={network}", "--seeds=0", f"--outdir={tmp_path / 'out'}")
    assert result.code == 70, result.err
    assert "the network's pictures have NaN or infinite pixels" in result.error_line()
    assert "bug" not in result.error_line()
    assert list((tmp_path / "out").iterdir()) == []


def test_latents_that_overflow(run, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.full((2, 8), 1e300))
    network = saved(tmp_path / "net.pkl", None)
    result = run("video", f"--network={network}", f"--latents={tmp_path / 'a.npy'}", f"--output={tmp_path / 'a.mp4'}")
    assert result.code == 65, result.err
    assert "a.npy: w holds something else than finite fractional numbers of 32 bits" in result.error_line()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_pictures_that_are_none(value: float) -> None:
    images = torch.zeros(2, 3, 4, 4)
    assert to_uint8(images).shape == (2, 4, 4, 3)
    images[1, 2, 3, 0] = value
    with pytest.raises(NumericalError, match="NaN or infinite pixels"):
        to_uint8(images)
