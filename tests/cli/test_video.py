"""`sg3 video` and `sg3 equivariance-video`: the files they write, and clear refusals."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import sg3
from sg3.formats import Snapshot
from sg3.models import stylegan2, stylegan3

av = pytest.importorskip("av")


@pytest.fixture(scope="module")
def networks(tmp_path_factory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("networks")
    torch.manual_seed(1)
    small = {"channel_base": 128, "channel_max": 8}
    nets = {
        "SG3": stylegan3.Generator(8, 0, 8, 16, 3, num_layers=4, **small),
        "SG2": stylegan2.Generator(8, 0, 8, 16, 3, **small),
        "COND": stylegan2.Generator(8, 3, 8, 16, 3, **small),
        "ODD": stylegan3.Generator(8, 0, 8, 17, 3, num_layers=4, **small),
        # as the preset `demo-stylegan3` trains it
        "DEMO": stylegan3.Generator(64, 0, 64, 32, 3, channel_base=1024, channel_max=64, num_layers=4, margin_size=4),
    }
    for name, G in nets.items():
        sg3.save(Snapshot(G_ema=G), folder / f"{name}.pkl")
    return {name: str(folder / f"{name}.pkl") for name in nets}


def read(path: Path) -> tuple[np.ndarray, av.VideoStream, dict[str, str]]:
    """Frames [N, H, W, 3], the stream's description, metadata."""
    with av.open(str(path)) as container:
        pictures = [f.to_ndarray(format="rgb24") for f in container.decode(video=0)]
        return np.stack(pictures), container.streams.video[0], dict(container.metadata)


def pngs(folder: Path) -> np.ndarray:
    return np.stack([np.asarray(Image.open(path)) for path in sorted(folder.iterdir())])


def test_the_originals_flags(networks, run, tmp_path: Path) -> None:
    result = run("video", f"--network={networks['DEMO']}", "--seeds=0-7", "--shuffle-seed=1", "--grid=2x2",
                 "--num-keyframes=1", "--w-frames=9", "--trunc=0.7", f"--output={tmp_path / 'walk.mp4'}")
    assert (result.code, result.out.strip()) == (0, str(tmp_path / "walk.mp4")), result.err
    assert "9 frames of 64x64" in result.err
    frames, stream, metadata = read(tmp_path / "walk.mp4")
    assert frames.shape == (9, 64, 64, 3)
    assert (stream.codec_context.name, stream.average_rate) == ("h264", 60)
    assert float(stream.duration * stream.time_base) == pytest.approx(9 / 60)
    settings = json.loads(metadata["comment"])
    assert (settings["trunc"], settings["grid"], len(settings["seeds"])) == (0.7, [2, 2], 4)


@pytest.mark.parametrize(
    ("name", "size", "classes"),
    [("sg3t-64", 64, ""), ("sg3r-64", 64, ""), ("ada-sg2-32", 32, ""), ("sg2-32-cond", 32, "0,4")],
)
def test_golden_networks(golden, run, tmp_path: Path, name: str, size: int, classes: str) -> None:
    """The same frames at the second call; the video shows them; a loop begins where `generate` begins."""
    network = f"--network={golden / name}.pkl"
    more = [f"--class={classes}"] if classes else []
    common = ["video", network, "--seeds=2-4", "--w-frames=3", *more]
    for folder in ("a", "b"):
        assert run(*common, f"--output={tmp_path / folder}").code == 0
    first, second = pngs(tmp_path / "a"), pngs(tmp_path / "b")
    assert first.shape == (9, size, size, 3)
    assert np.array_equal(first, second)
    assert run(*common, f"--output={tmp_path / 'a.webm'}", "--fps=25").code == 0
    frames, stream, _ = read(tmp_path / "a.webm")
    assert (frames.shape, stream.codec_context.name, stream.average_rate) == (first.shape, "vp9", 25)
    distances = np.abs(frames[:, None].astype(int) - first[None]).mean(axis=(2, 3, 4))
    assert distances.argmin(axis=1).tolist() == list(range(9))  # lossy, but each frame is the one it should be
    run("generate", network, "--seeds=2", *["--class=0" for _ in more], f"--outdir={tmp_path / 'still'}")
    assert np.abs(first[0].astype(int) - pngs(tmp_path / "still")[0]).max() <= 1


def test_interpolation_between_endpoints(networks, run, tmp_path: Path) -> None:
    """--endpoint: N seeds from --seed on, no loop, nothing twice; groups are pairs, each in its own tile."""
    common = ["video", f"--network={networks['SG3']}", "--interval=4", "--interp-mode=lerp", "--space=z"]
    assert run(*common, "--endpoint=3", "--seed=5", f"--output={tmp_path / 'a'}").code == 0
    assert run(*common, "--seeds=5-7", "--no-loop", f"--output={tmp_path / 'b'}").code == 0
    assert run(*common, "--seeds=5-7", "--loop=1", f"--output={tmp_path / 'loop'}").code == 0
    assert pngs(tmp_path / "a").shape == (9, 16, 16, 3)
    assert np.array_equal(pngs(tmp_path / "a"), pngs(tmp_path / "b"))
    assert np.array_equal(pngs(tmp_path / "a"), pngs(tmp_path / "loop")[:9])
    assert len(pngs(tmp_path / "loop")) == 12

    for name in ("sheet.png", "tiles"):
        result = run(*common, "--endpoint=12", "--show-mode=group", f"--output={tmp_path / name}")
        assert result.code == 0, result.err
    tiles = pngs(tmp_path / "tiles")
    assert tiles.shape == (5, 2 * 16, 3 * 16, 3)
    sheet = np.asarray(Image.open(tmp_path / "sheet.png"))
    assert sheet.shape == (6 * 16, 5 * 16, 3)
    assert np.abs(sheet[16:32, 32:48].astype(int) - tiles[2, :16, 16:32]).max() <= 1


def test_kinds_of_paths(networks, run, tmp_path: Path) -> None:
    """They meet at keyframes and differ between."""
    found = {}
    for option in ("--interpolation=cubic", "--interpolation=linear", "--interp-mode=slerp", "--space=z", "--ease"):
        folder = tmp_path / option.strip("-")
        run("video", f"--network={networks['SG2']}", "--seeds=0-3", "--w-frames=4", option, f"--output={folder}")
        found[option] = pngs(folder).astype(int)
    first = found.pop("--interpolation=cubic")
    for option, frames in found.items():
        assert np.abs(frames - first)[::4].max() <= 1, option
        assert np.abs(frames - first)[1::4].max() > 1, option


def test_saved_latents(networks, run, tmp_path: Path) -> None:
    G = sg3.load(networks["COND"]).G_ema
    w = torch.randn(2, G.num_ws, G.w_dim)
    for i in range(2):
        np.savez(tmp_path / f"{i}.npz", w=w[i : i + 1].numpy())
    result = run("video", f"--network={networks['COND']}", f"--latents={tmp_path / '0.npz'}", "--class=1",
                 f"--proj-latent={tmp_path / '1.npz'}", "--w-frames=3", "--no-loop", f"--output={tmp_path / 'v'}")
    assert result.code == 0, result.err
    assert "--class has no effect, w holds a class already" in result.err
    frames = pngs(tmp_path / "v")
    assert len(frames) == 4
    with torch.no_grad():
        expected = (G.synthesis(w, noise_mode="const") * 127.5 + 128).clamp(0, 255).to(torch.uint8)
    assert np.abs(frames[[0, 3]].astype(int) - expected.permute(0, 2, 3, 1).numpy()).max() <= 1


def test_classes(networks, run, tmp_path: Path) -> None:
    result = run("video", f"--network={networks['COND']}", "--seeds=4", "--class=2,0-1", "--w-frames=2",
                 f"--output={tmp_path / 'v'}")
    assert result.code == 0, result.err
    frames = pngs(tmp_path / "v")
    assert len(frames) == 6
    for i, c in enumerate((2, 0, 1)):
        run("generate", f"--network={networks['COND']}", "--seeds=4", f"--class={c}", f"--outdir={tmp_path / str(c)}")
        assert np.abs(frames[2 * i].astype(int) - pngs(tmp_path / str(c))[0]).max() <= 1


def test_notes(networks, run, tmp_path: Path) -> None:
    result = run("video", f"--network={networks['ODD']}", "--seeds=0", "--w-frames=2", "--noise-mode=random",
                 "--class=1", f"--output={tmp_path / 'new' / 'odd.mp4'}")
    assert result.code == 0, result.err
    assert "note: --noise-mode=random has no effect, StyleGAN3 has no noise" in result.err
    assert "has no effect, the network is unconditional" in result.err
    assert "note: video has even sides" in result.err
    assert read(tmp_path / "new" / "odd.mp4")[0].shape == (2, 18, 18, 3)


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (["SG3"], 2, "--seeds, --latents, --endpoint: give exactly one"),
        (["SG3", "--seeds=0", "--endpoint=2"], 2, "give exactly one"),
        (["SG3", "--seeds=0", "--seed=2"], 2, "--seed: is the first of --endpoint"),
        (["SG3", "--seeds=0-4", "--grid=2x2"], 2, "--grid: 5 seeds cannot be shared equally by 4 tiles"),
        (["SG3", "--seeds=0-3", "--grid=2x"], 2, "is not columns x rows"),
        (["SG3", "--seeds=0-3", "--grid=999x999"], 2, "at most 10000 tiles"),
        (["SG3", "--seeds=0-2", "--show-mode=group"], 2, "takes pairs of keyframes"),
        (["SG3", "--seeds=0-3", "--show-mode=group", "--grid=3x1"], 2, "2 pairs of keyframes need as many tiles"),
        (["SG3", "--seeds=0", "--codec=divx"], 2, "--codec=divx: no video encoder"),
        (["SG3", "--seeds=0", "--codec=libx264", "--output=pngs"], 2, "is for .mp4, .webm and .mkv"),
        (["SG3", "--seeds=0-99", "--w-frames=1000000"], 2, "100000000 frames, more than ten million"),
        (["SG3", "--seeds=0", "--bitrate=fast"], 2, "is not a bit rate like 12M"),
        (["SG3", "--seeds=0", "--bitrate=1"], 2, "is not a bit rate like 12M"),
        (["SG3", "--seeds=0", "--trunc=nan"], 2, "'--trunc': 'nan' is not a finite number"),
        (["SG3", "--seeds=0", "--loop=1", "--no-loop"], 2, "contradict"),
        (["SG3", "--seeds=0", "--output=a.gif"], 2, "expected .mp4, .webm or .mkv"),
        (["SG3", "--latents=missing.npz"], 66, "missing.npz: there is no such file"),
        (["SG3", "--latents=x.npz", "--num-keyframes=2"], 2, "belong to --seeds"),
        (["COND", "--seeds=0"], 2, "--class: needed, this network is conditional"),
        (["COND", "--seeds=0", "--class=0,3"], 2, "--class=3: out of range, this network has classes 0 to 2"),
        (["missing.pkl", "--seeds=0"], 66, "missing.pkl"),
    ],
)
def test_wrong_input(networks, run, tmp_path: Path, args: list[str], code: int, words: str) -> None:
    network, *more = args
    result = run("video", f"--network={networks.get(network, network)}", f"--output={tmp_path / 'a.mp4'}", *more)
    assert result.code == code, result.err
    assert words in result.error_line()
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(("transform", "name"), [("x_t", "x_t"), ("translate-y", "y_t"), ("rotate", "rotate")])
def test_equivariance_video(networks, run, tmp_path: Path, transform: str, name: str) -> None:
    result = run("equivariance-video", f"--network={networks['DEMO']}", f"--transform={transform}", "--seed=3",
                 "--translate-max=0.25", "--num-samples=5", f"--outdir={tmp_path}")
    path = tmp_path / f"eq-{name}-seed-3.mp4"
    assert (result.code, result.out.strip()) == (0, str(path)), result.err
    assert "lowest PSNR" in result.err
    frames, stream, metadata = read(path)
    assert frames.shape == (5, 32 + 128, 3 * 128, 3)
    assert stream.average_rate == 40
    assert json.loads(metadata["comment"])["transform"] == name


def test_equivariance_video_of_golden_networks(golden, run, tmp_path: Path) -> None:
    """Zero difference is gray; the frames of one seed are the same each time."""
    for network in ("sg3t-64", "sg3r-64"):
        common = ["equivariance-video", f"--network={golden / network}.pkl", "--num-samples=3"]
        for folder in ("a", "b"):
            assert run(*common, f"--output={tmp_path / network / folder}").code == 0
        frames = pngs(tmp_path / network / "a")
        assert frames.shape == (3, 160, 384, 3)
        assert np.array_equal(frames, pngs(tmp_path / network / "b"))
        assert (frames[1, 32:, 256:] == 128).all()


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["SG2"], "--network: only StyleGAN3 networks can be moved"),
        (["SG3", "--transform=zoom"], "'zoom' is not one of"),
        (["SG3", "--translate-max=2"], "2.0 is not in the range"),
        (["SG3", "--trunc=inf"], "'--trunc': 'inf' is not a finite number"),
        (["SG3", "--codec=divx"], "--codec=divx: no video encoder"),
    ],
)
def test_wrong_input_for_equivariance(networks, run, tmp_path: Path, args: list[str], words: str) -> None:
    network, *more = args
    result = run("equivariance-video", f"--network={networks[network]}", f"--outdir={tmp_path}", *more)
    assert result.code == 2, result.err
    assert words in result.error_line()
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("command", ["video", "equivariance-video"])
def test_help_has_examples_and_every_option_a_panel(run, command: str) -> None:
    import importlib

    from sg3.cli.video import PANELS

    text = run(command, "--help").out
    assert "Examples:" in text
    module = importlib.import_module(f"sg3.cli.{command.replace('-', '_')}")
    if command == "video":
        shown = {option for options in PANELS.values() for option in options}
        assert {parameter.opts[0] for parameter in module.command.params} <= shown
