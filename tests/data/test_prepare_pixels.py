"""What `sg3 dataset` makes of pixels: crops, sizes, colours and alpha."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sg3.data.prepare import prepare
from sg3.data.transforms import ImagePlan
from tests.helpers.image_files import encoded, pixels, read_zip, write_zip


def made(dest: Path, image: np.ndarray, **plan: Any) -> np.ndarray:
    source = write_zip(dest.with_name("one.zip"), {"a.png": encoded(image)})
    prepare(source, dest, ImagePlan(**plan), force=True)
    return next(iter(read_zip(dest)[0].values()))


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize(("height", "width"), [(8, 13), (12, 8), (8, 8)])
def test_center_crop(dest: Path, height: int, width: int, channels: int) -> None:
    image = pixels(0, side=16, channels=channels)[:height, :width]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = image[top:top + side, left:left + side]
    np.testing.assert_array_equal(made(dest, image, crop="center-crop", resolution=(8, 8)), square)


def test_center_crop_then_resize(dest: Path) -> None:
    image = pixels(0, side=32)[:, :20]
    expected = Image.fromarray(image[6:26]).resize((8, 8), Image.Resampling.LANCZOS)
    np.testing.assert_array_equal(made(dest, image, crop="center-crop", resolution=(8, 8)), expected)


def test_center_crop_wide_leaves_black_bars(dest: Path) -> None:
    image = np.maximum(pixels(0, side=32), 1)[:, :16]  # taller than 2:1 wide
    out = made(dest, image, crop="center-crop-wide", resolution=(16, 8))
    assert out.shape == (16, 16, 3)
    assert out[:4].max() == out[12:].max() == 0
    np.testing.assert_array_equal(out[4:12], image[12:20])


def test_plain_resize_uses_the_filter_asked_for(dest: Path) -> None:
    image = pixels(0, side=16)
    box = image.reshape(8, 2, 8, 2, 3).mean(axis=(1, 3))
    out = made(dest, image, resolution=(8, 8), resize_filter="box")
    np.testing.assert_allclose(out, box, atol=1)  # Pillow rounds between its two passes
    lanczos = Image.fromarray(image).resize((8, 8), Image.Resampling.LANCZOS)
    np.testing.assert_array_equal(made(dest, image, resolution=(8, 8)), lanczos)
    assert read_zip(dest)[1]["sg3"]["resize_filter"] == "lanczos"


def test_convert_and_background(dest: Path) -> None:
    image = pixels(0, channels=4)
    image[0, 0] = [10, 20, 30, 0]
    image[0, 1] = [10, 20, 30, 255]
    rgb = made(dest, image, convert="rgb", background="#ff8000")
    assert rgb[0, 0].tolist() == [255, 128, 0]
    assert rgb[0, 1].tolist() == [10, 20, 30]
    assert made(dest, image, convert="gray", background="black")[0, 0] == 0
    np.testing.assert_array_equal(made(dest, image), image)
    assert made(dest, pixels(0, channels=1), convert="rgba")[0, 0, 3] == 255


def test_alpha_is_kept_added_and_gray(dest: Path) -> None:
    image = pixels(0, channels=4)
    gray_alpha = np.ascontiguousarray(image[:, :, [0, 3]])
    np.testing.assert_array_equal(made(dest, gray_alpha), gray_alpha)
    np.testing.assert_array_equal(made(dest, image, convert="la")[:, :, 1], image[:, :, 3])
    np.testing.assert_array_equal(made(dest, gray_alpha, convert="rgba"), image[:, :, [0, 0, 0, 3]])
    opaque = made(dest, pixels(0, channels=1), convert="la")
    np.testing.assert_array_equal(opaque[:, :, 0], pixels(0, channels=1))
    assert (opaque[:, :, 1] == 255).all()
    gray_alpha[0, 0] = 7, 0
    assert made(dest, gray_alpha, convert="gray", background="#646464")[0, 0] == 100


@pytest.mark.parametrize("channels", [2, 4])
@pytest.mark.parametrize("resize_filter", ["lanczos", "box"])
def test_shrinking_has_no_fringe(dest: Path, channels: int, resize_filter: Any) -> None:
    """A red disc on transparent green, or a dark one on transparent white."""
    yy, xx = np.mgrid[:128, :128]
    inside = (yy - 64) ** 2 + (xx - 60) ** 2 < 40**2
    disc, around = ([255, 0, 0, 255], [0, 255, 0, 0]) if channels == 4 else ([20, 255], [255, 0])
    image = np.where(inside[:, :, None], np.array(disc), np.array(around)).astype(np.uint8)
    out = made(dest, image, resolution=(16, 16), resize_filter=resize_filter)
    alpha = out[:, :, -1:] / 255
    fringe = np.abs(out[:, :, :-1] - np.array(disc[:-1], float)) * alpha  # 8 bits hold colours up to 0.5 / alpha
    assert fringe.max() <= 2  # Pillow rounds three times; the surroundings would add 60
    assert ((alpha > 0.1) & (alpha < 0.9)).sum() > 10  # soft edges
    np.testing.assert_allclose(out[8, 7], disc, atol=1)


def test_bars_beside_transparent_images_are_transparent(dest: Path) -> None:
    out = made(dest, np.full((12, 16, 4), 200, np.uint8), crop="center-crop-wide", resolution=(16, 8))
    assert (out[[0, 15]] == 0).all()
    assert (out[8, 8] == 200).all()
