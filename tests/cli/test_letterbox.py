"""Wide images between black bars (--transform=center-crop-wide): squares to train on, without bars when shown."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import sg3
from sg3.cli.network import open_framed
from sg3.data.dataset import ImageFolderDataset
from sg3.data.prepare import prepare
from sg3.data.transforms import ImagePlan
from sg3.formats.snapshot import visible_part
from sg3.metrics.real_images import RealImages
from sg3.tools import project
from sg3.tools.equivariance import CAPTION
from sg3.tools.files import without_bars
from sg3.train.dataset import probe_dataset
from sg3.train.snapshots import Snapshots
from tests.helpers.for_tools import pyramid, tiny3
from tests.helpers.runs import tiny_config, tiny_options
from tests.helpers.trainers import new_trainer


@pytest.fixture(scope="module")
def cars(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("cars")
    (folder / "in").mkdir()
    for i in range(4):
        pixels = np.full((48, 64, 3), 60 + 40 * i, np.uint8)
        Image.fromarray(pixels).save(folder / "in" / f"{i}.png")
    prepare(folder / "in", folder / "cars.zip", ImagePlan(crop="center-crop-wide", resolution=(16, 12)))
    return folder / "cars.zip"


def test_from_data_set_to_pictures(cars: Path, tmp_path: Path, run) -> None:
    data = ImageFolderDataset(cars)
    assert (data.size, data.visible) == ((16, 16), (12, 16))
    assert (data[0][0][:, :2] == 0).all()
    facts = probe_dataset(tiny_options(cars))
    assert (facts.is_square, facts.visible_height) == (True, 12)
    trainer = new_trainer(tiny_config(cars, facts, cfg="stylegan2"))
    Snapshots(trainer, tmp_path).write()
    path = tmp_path / "network-snapshot-000000.pkl"  # squares: the original's format
    snapshot = sg3.load(path)
    assert visible_part(snapshot) == (12, 16)
    assert snapshot.G_ema.img_size == (16, 16)
    assert RealImages(cars).facts(data)["letterboxed"] == "16 x 12"

    assert open_framed(str(path), "cpu", None, bars=True)[1] is None
    for command, outputs in (
        (["generate", "--seeds=0,1", "--grid=2x1", f"--outdir={tmp_path / 'g'}"], {"g/seed0001.png": (16, 12),
                                                                                  "g/grid.png": (32, 12)}),
        (["generate", "--seeds=0", "--bars", f"--outdir={tmp_path / 'b'}"], {"b/seed0000.png": (16, 16)}),
        (["style-mix", "--rows=0", "--cols=1", f"--outdir={tmp_path / 's'}"], {"s/0-1.png": (16, 12)}),
        (["directions", "--num=1", "--steps=3", "--samples=8", "--scale=1", f"--outdir={tmp_path / 'd'}"],
         {"d/direction00.png": (48, 12)}),
        (["directions", "--bars", "--num=1", "--steps=3", "--samples=8", "--scale=1", f"--outdir={tmp_path / 'e'}"],
         {"e/direction00.png": (48, 16)}),
        (["video", "--seeds=0,1", "--w-frames=1", f"--output={tmp_path / 'v'}/"], {"v/*0.png": (16, 12)}),
    ):  # fmt: skip
        result = run(*command, f"--network={path}", "--device=cpu")
        assert result.code == 0, result.err
        assert ("cut off: 16 x 12" in result.err) == ("--bars" not in command)
        for name, size in outputs.items():
            with Image.open(next(tmp_path.glob(name))) as picture:
                assert picture.size == size, name


    latents = sg3.generate(path, [0, 1], device="cpu")
    assert latents.shape == (2, 12, 16, 3)
    with Image.open(tmp_path / "g/seed0001.png") as picture:
        assert np.array_equal(latents[1], np.asarray(picture))
    assert sg3.generate(path, 0, bars=True, device="cpu").shape == (1, 16, 16, 3)
    assert sg3.generate(path, [], device="cpu").shape == (0, 12, 16, 3)


@pytest.mark.parametrize("bars", [False, True])
def test_projection(tmp_path: Path, run, monkeypatch, bars: bool) -> None:
    """The target lies between the same bars; pictures have none of them."""
    monkeypatch.setattr("sg3.tools.perceptual.open_perceptual", lambda *_: pyramid)
    targets: list[np.ndarray] = []
    first = project.project

    def watched(G, target, *args, **kwargs):
        targets.append(target)
        return first(G, target, *args, **kwargs)

    monkeypatch.setattr(project, "project", watched)
    path = tmp_path / "net.pkl"
    sg3.save(sg3.Snapshot(G_ema=tiny3(), training_set_kwargs={"visible": [12, 16]}), path)
    Image.fromarray(np.full((30, 40, 3), 200, np.uint8)).save(tmp_path / "wide.png")
    result = run("project", f"--network={path}", f"--target={tmp_path / 'wide.png'}", "--num-steps=2", "--pose=0",
                 f"--outdir={tmp_path / 'out'}", "--device=cpu", *(["--bars"] if bars else []))
    assert result.code == 0, result.err
    (target,) = targets
    assert target.shape == (16, 16, 3)
    assert (target[2:14] == 200).all()
    assert (target[[0, 1, 14, 15]] == (200 if bars else 0)).all()
    for name in ("target.png", "proj.png"):
        with Image.open(tmp_path / "out" / name) as picture:
            assert picture.size == (16, 16 if bars else 12)


@pytest.mark.parametrize("bars", [False, True])
def test_equivariance_video(tmp_path: Path, run, bars: bool) -> None:
    path = tmp_path / "net.pkl"
    sg3.save(sg3.Snapshot(G_ema=tiny3(), training_set_kwargs={"visible": [12, 16]}), path)
    result = run("equivariance-video", f"--network={path}", "--num-samples=2", f"--output={tmp_path / 'eq'}/",
                 "--device=cpu", *(["--bars"] if bars else []))
    assert result.code == 0, result.err
    with Image.open(next((tmp_path / "eq").glob("*.png"))) as picture:
        assert picture.size == (3 * 128, CAPTION + 8 * (16 if bars else 12))


def test_without_bars() -> None:
    pixels = np.arange(16 * 16).reshape(16, 16, 1).astype(np.uint8)
    assert without_bars(pixels, None) is pixels
    assert np.array_equal(without_bars(pixels, (12, 16)), pixels[2:14])
    assert without_bars(pixels, (20, 16)).shape == (16, 16, 1)


@pytest.mark.parametrize("value", [None, "12x16", [12], [12, 16, 3], [0, 16], [True, 16], [12.0, 16]])
def test_what_a_file_may_say(value) -> None:
    assert visible_part(sg3.Snapshot(training_set_kwargs={"visible": value})) is None
