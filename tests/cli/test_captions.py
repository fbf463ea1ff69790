"""Captions of pictures name the class of networks that have classes: in each command that writes any."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

import sg3
from sg3.models import stylegan2, stylegan3
from sg3.tools.equivariance import Step, draw_step
from sg3.tools.files import sheet

MAPPING = {"num_layers": 1}


@pytest.fixture(scope="module")
def networks(tmp_path_factory) -> dict[int, Path]:
    """By number of classes."""
    folder = tmp_path_factory.mktemp("networks")
    torch.manual_seed(1)
    for classes in (0, 3):
        G = stylegan2.Generator(8, classes, 8, 16, 3, channel_base=128, channel_max=8, mapping_kwargs=MAPPING)
        sg3.save(sg3.Snapshot(G_ema=G), folder / f"{classes}.pkl")
    return {classes: folder / f"{classes}.pkl" for classes in (0, 3)}


def head(text: str, width: int, height: int = 14) -> np.ndarray:
    """A caption as Pillow draws it."""
    strip = Image.new("L", (width, height))
    ImageDraw.Draw(strip).text((2, 1), text, fill=255)
    return np.asarray(strip)


def heads(path: Path, columns: int, rows: int) -> list[list[np.ndarray]]:
    page = np.asarray(Image.open(path))[..., 0]
    height, width = page.shape[0] // rows, page.shape[1] // columns
    return [[page[r * height :][:14, c * width :][:, :width] for c in range(columns)] for r in range(rows)]


@pytest.mark.parametrize(("classes", "said"), [(0, ""), (3, ", class 2")])
def test_grids_say_the_class(classes: int, said: str, networks, run, tmp_path: Path) -> None:
    common = [f"--network={networks[classes]}", f"--outdir={tmp_path}", "--captions", "--class=2"]
    assert run("generate", *common, "--seeds=4,5", "--grid=2x1").code == 0
    for seed, shown in zip((4, 5), heads(tmp_path / "grid.png", 2, 1)[0], strict=True):
        assert np.array_equal(shown, head(f"seed {seed}{said}", shown.shape[1]))
    assert run("style-mix", *common, "--rows=1", "--cols=2,3", "--styles=0").code == 0
    page = heads(tmp_path / "grid.png", 3, 2)
    assert np.array_equal(page[0][2], head(f"seed 3{said}", page[0][2].shape[1]))
    assert np.array_equal(page[1][0], head(f"seed 1{said}", page[1][0].shape[1]))
    assert np.array_equal(page[1][1], head("1-2", page[1][1].shape[1]))
    assert run("directions", *common, "--num=1", "--seeds=123456", "--degree=5", "--steps=3", "--samples=2").code == 0
    shown = heads(tmp_path / "direction00.png", 3, 1)[0][0]
    text = f"seed 123456{said}: -5"
    assert np.array_equal(shown, head(text, shown.shape[1]))
    assert shown.shape[1] >= head(text, 500).max(axis=0).nonzero()[0].max()  # nothing is cut off


def test_grids_of_latents_say_the_class_where_it_counts(networks, run, tmp_path: Path) -> None:
    """In z; w holds a class already, whatever is said."""
    for name in "zw":
        np.savez(tmp_path / f"{name}.npz", **{name: np.ones([2, 8], np.float32)})
    said = [f"--network={networks[3]}", "--captions", "--class=2", "--grid=2x1"]
    for name, words, of_class in (("z", ", class 2", 2), ("w", "", None)):
        outdir = tmp_path / name
        assert run("generate", *said, f"--outdir={outdir}", f"--latents={tmp_path / f'{name}.npz'}").code == 0
        for number, shown in enumerate(heads(outdir / "grid.png", 2, 1)[0]):
            assert np.array_equal(shown, head(f"{name}.npz {number}{words}", shown.shape[1]))
        for file in ("grid.png", "latent0001.png"):
            settings = json.loads(Image.open(outdir / file).info["sg3"])
            assert settings["class"] == of_class


def test_pictures_are_as_wide_as_their_captions() -> None:
    picture = np.zeros((16, 16, 3), np.uint8)
    wide = sheet([[picture]], [["seed 123456789, class 1234: -10"]])
    assert wide.shape[1] % 16 == 0
    assert wide.shape[1] >= head("seed 123456789, class 1234: -10", 500).max(axis=0).nonzero()[0].max() > 96
    assert not wide[:14, -1].any()


def test_videos_of_equivariance_say_the_class(run, tmp_path: Path) -> None:
    images = [torch.zeros(1, 3, 128, 128)] * 3
    step = Step(1.0, images[0], images[1], images[2], 50.0)
    plain, said = draw_step(step, "x_t"), draw_step(step, "x_t", class_idx=7)
    different = (plain != said).any(axis=2)
    rows, columns = different.nonzero()
    assert (rows.min() >= 17, rows.max() < 32, columns.min() >= 2 * 128) == (True, True, True)
    strip = Image.new("L", (128, 32))
    ImageDraw.Draw(strip).text((4, 17), "class 7", fill=255)
    assert np.array_equal(said[17:32, 256:, 0], np.asarray(strip)[17:32])

    torch.manual_seed(1)
    for classes in (0, 2):
        G = stylegan3.Generator(8, classes, 8, 16, 3, channel_base=64, channel_max=4, num_layers=3, num_critical=1,
                                mapping_kwargs=MAPPING)  # fmt: skip
        sg3.save(sg3.Snapshot(G_ema=G), tmp_path / "net.pkl")
        frames = tmp_path / f"frames{classes}"
        common = ["equivariance-video", f"--network={tmp_path / 'net.pkl'}", "--class=1", "--num-samples=1"]
        assert run(*common, f"--output={frames}").code == 0
        first = np.asarray(Image.open(next(iter(sorted(frames.iterdir())))))
        third = first[17:32, 2 * first.shape[1] // 3 :]
        assert bool(third.any()) == bool(classes)
