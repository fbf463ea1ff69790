"""Every picture tool with networks whose images have alpha, and with gray ones."""

from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import sg3
from sg3.sampling import seed_latents
from sg3.transparency import RULE, SQUARES, opaque, straight
from sg3.viewer.encode import jpeg, png
from sg3.viewer.pictures import Painter
from sg3.viewer.sockets import _packed
from sg3.viewer.state import State
from sg3.viewer.viewer import Frame, Wanted
from sg3.viewer.views import view
from tests.helpers.for_tools import saved, tiny2, tiny3

MODES = {1: "L", 2: "LA", 4: "RGBA"}
OPAQUE = {1: "L", 2: "L", 4: "RGB"}


@pytest.fixture(scope="module", params=[("stylegan2", 4), ("stylegan3", 4), ("stylegan3", 2), ("stylegan2", 1)],
                ids=lambda param: "-".join(map(str, param)))  # fmt: skip
def network(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    family, channels = request.param
    G = (tiny2 if family == "stylegan2" else tiny3)(img_channels=channels)
    return saved(G, tmp_path_factory.mktemp("networks") / f"{family}-{channels}.pkl")


def channels_of(network: Path) -> int:
    return int(network.stem[-1])


def test_generate(network: Path, run, tmp_path: Path) -> None:
    """Straight PNGs that say how they were made, and a grid over a checkerboard."""
    channels = channels_of(network)
    result = run("generate", f"--network={network}", "--seeds=0-2", "--grid=2x2", f"--outdir={tmp_path}")
    assert result.code == 0, result.err
    picture = Image.open(tmp_path / "seed0001.png")
    assert picture.mode == MODES[channels]
    assert json.loads(picture.text["sg3"]).get("alpha") == (RULE if channels > 1 else None)
    G = sg3.load(network).G_ema
    with torch.no_grad():
        image = G(seed_latents([1], 8), None, noise_mode="const")
    if channels > 1:
        np.testing.assert_allclose(np.asarray(picture), straight(image)[0].permute(1, 2, 0), atol=1)
    grid = Image.open(tmp_path / "grid.png")
    assert (grid.mode, grid.size) == (OPAQUE[channels], (32, 32))
    shown = opaque(np.asarray(picture).reshape(16, 16, -1))
    np.testing.assert_array_equal(np.asarray(grid).reshape(32, 32, -1)[:16, 16:], shown)
    assert not np.asarray(grid)[16:, 16:].any()
    scaled = ["--scale=3", "--captions", "--grid=3x1"]
    assert run("generate", f"--network={network}", "--seeds=0-2", f"--outdir={tmp_path}", *scaled).code == 0
    assert Image.open(tmp_path / "grid.png").size == (144, 62)


def test_style_mix_and_directions(network: Path, run, tmp_path: Path) -> None:
    channels = channels_of(network)
    common = [f"--network={network}", f"--outdir={tmp_path}"]
    assert run("style-mix", *common, "--rows=0,1", "--cols=2", "--captions").code == 0
    assert Image.open(tmp_path / "0-2.png").mode == MODES[channels]
    assert Image.open(tmp_path / "grid.png").mode == OPAQUE[channels]
    assert run("directions", *common, "--num=1", "--steps=3").code == 0
    strip = Image.open(tmp_path / "direction00.png")
    assert (strip.mode, strip.size) == (OPAQUE[channels], (48, 16))


def test_viewer(network: Path) -> None:
    """What is saved has alpha; what is shown lies over a checkerboard, and so does what is compared."""
    channels = channels_of(network)
    painter = Painter(sg3.load(network).G_ema)
    state = State(seed=3)
    seen = view(state, lambda _: painter)
    assert seen.shape == (16, 16, channels)
    kept = Image.open(BytesIO(png(seen)))
    assert kept.mode == MODES[channels]
    np.testing.assert_array_equal(np.asarray(kept).reshape(seen.shape), seen)
    assert Image.open(BytesIO(jpeg(seen))).mode == OPAQUE[channels]
    other = Painter(tiny2())
    split = State(seed=3, compare="split", network="a", network_b="b")
    both = view(split, lambda name: {"a": painter, "b": other}[name])
    np.testing.assert_array_equal(both[:, :8], opaque(seen)[:, :8])
    layer = painter.G.synthesis.layer_names[-1] if network.stem[:9] == "stylegan3" else "b16.torgb"
    assert view(State(seed=3, layer=layer), lambda _: painter).dtype == np.uint8


def test_a_frame_of_nothing_is_the_checkerboard() -> None:
    frame = Frame(np.zeros((16, 16, 4), np.uint8), 0.0)
    packed = _packed(Wanted(0, State(), moving=False), frame)
    start = packed.index(b"\x89PNG")
    shown = np.asarray(Image.open(BytesIO(packed[start:])))
    assert shown.shape == (16, 16, 3)
    assert shown[0, 0].tolist() == [SQUARES[0]] * 3
    assert shown[0, 8].tolist() == [SQUARES[1]] * 3


def test_video(network: Path, run, tmp_path: Path) -> None:
    """Alpha where it can be; refused, with the way out, where it cannot."""
    pytest.importorskip("av")
    channels = channels_of(network)
    common = ["video", f"--network={network}", "--seeds=0,1", "--w-frames=2"]
    result = run(*common, f"--output={tmp_path / 'walk.mp4'}")
    if channels == 1:
        assert result.code == 0, result.err
        result = run(*common, f"--output={tmp_path / 'walk.webm'}", "--background=red")
        assert "note: --background=red has no effect, the network's images have no alpha" in result.err
        return
    assert result.code == 2
    assert ".mp4 cannot hold the alpha of these images" in result.error_line()
    assert run(*common, f"--output={tmp_path / 'walk.mp4'}", "--background=#ff8000").code == 0
    for name in ("walk.webm", "walk.mov", "walk.apng", "walk.png", "frames"):
        assert run(*common, f"--output={tmp_path / name}").code == 0
    sheet = Image.open(tmp_path / "walk.png")
    assert (sheet.mode, sheet.size) == ("RGBA", (64, 16))
    first = Image.open(tmp_path / "frames" / "00000.png")
    assert run("generate", f"--network={network}", "--seeds=0", f"--outdir={tmp_path}").code == 0
    single = Image.open(tmp_path / "seed0000.png").convert("RGBA")
    np.testing.assert_allclose(np.asarray(first), np.asarray(single), atol=1)
    assert run(*common, f"--output={tmp_path / 'red'}", "--background=red").code == 0
    assert Image.open(tmp_path / "red" / "00000.png").mode == "RGB"
    assert "not a colour" in run(*common, f"--output={tmp_path / 'b'}", "--background=rd").error_line()


def test_equivariance_video(network: Path, run, tmp_path: Path) -> None:
    if network.stem[:9] != "stylegan3":
        pytest.skip("StyleGAN2 cannot move its images")
    common = ["equivariance-video", f"--network={network}", "--num-samples=2"]
    assert run(*common, f"--output={tmp_path / 'eq.png'}").code == 0
    assert Image.open(tmp_path / "eq.png").mode == "RGB"
    assert run(*common, "--transform=rotate", f"--output={tmp_path / 'turn.png'}").code == 0
