"""Arrays in files: what was written comes back; what is no such file is named in one line, and nothing in it runs."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sg3 import limits
from sg3.errors import DataError, MissingInputError, StorageError, UsageError
from sg3.tools.files import load_arrays, save_arrays, sheet
from sg3.transparency import opaque


class Runs:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_arrays_come_back(tmp_path: Path) -> None:
    save_arrays(tmp_path / "a.npz", {"w": np.arange(6.0).reshape(2, 3), "noise/b4.x": np.ones(2, np.float32)})
    found = load_arrays(tmp_path / "a.npz")
    assert list(found) == ["w", "noise/b4.x"]
    assert np.array_equal(found["w"], np.arange(6.0).reshape(2, 3))
    assert found["noise/b4.x"].dtype == np.float32


def header(shape: str) -> bytes:
    text = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}".encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


def make(kind: str, path: Path) -> None:
    if kind == "text":
        path.write_text("hello")
        return
    if kind == "an object":
        np.savez(path, w=np.array([Runs(path.with_name("ran"))], dtype=object))
        return
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("w.npy", {"cut off": b"\x93NUMPY\x01", "huge": header(f"({2**50},)") + bytes(8)}[kind])


@pytest.mark.parametrize("kind", ["text", "an object", "cut off", "huge"])
def test_other_files_are_refused(kind: str, tmp_path: Path) -> None:
    make(kind, tmp_path / "a.npz")
    with pytest.raises(DataError) as caught:
        load_arrays(tmp_path / "a.npz")
    name = tmp_path / "a.npz"
    if kind == "an object":
        assert str(caught.value).startswith(f"{name}: w: holds pickled Python objects, which reading would execute; if")
    else:
        assert str(caught.value) == f"{name}: is damaged or no .npz file of plain arrays"
    assert not (tmp_path / "ran").exists()


def test_a_compressed_file_that_unpacks_to_more_than_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez_compressed(tmp_path / "a.npz", w=np.zeros(10_000))
    assert load_arrays(tmp_path / "a.npz")["w"].shape == (10_000,)
    monkeypatch.setattr(limits, "ARRAYS", 2**16)
    with pytest.raises(DataError, match="of arrays; not loaded"):
        load_arrays(tmp_path / "a.npz")


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match="there is no such file"):
        load_arrays(tmp_path / "a.npz")
    with pytest.raises(StorageError, match="Is a directory"):
        load_arrays(tmp_path)


# ---- sheets


@pytest.mark.parametrize("channels", [1, 3])
def test_sheets_with_captions_and_larger_pictures(channels: int) -> None:
    pictures = [np.full((16, 16, channels), 40 * i, np.uint8) for i in range(3)]
    rows = [[pictures[0], pictures[1]], [pictures[2], None]]
    assert sheet(rows).shape == (32, 32, channels)
    larger = sheet(rows, scale=3)
    assert larger.shape == (96, 96, channels)
    assert np.array_equal(larger[::3, ::3], sheet(rows))
    said = sheet(rows, [["seed 1", "seed 2"], ["seed 3", ""]])  # 16 pixels hold no words: six times as large
    assert said.shape == (2 * (96 + 14), 2 * 96, channels)
    assert np.array_equal(said[14:110:6, :96:6], pictures[0])
    heads = [said[y : y + 14, x : x + 96, 0] for y in (0, 110) for x in (0, 96)]
    assert [bool(head.max() > 128) for head in heads] == [True, True, True, False]
    assert not np.array_equal(heads[0], heads[1])
    assert sheet(rows, [["a", "b"], ["c", "d"]], scale=2).shape == (2 * (32 + 14), 64, channels)


@pytest.mark.parametrize("channels", [2, 4])
def test_sheets_of_transparent_pictures_lie_over_a_checkerboard(channels: int) -> None:
    pictures = [np.random.default_rng(i).integers(0, 256, (16, 16, channels)).astype(np.uint8) for i in range(2)]
    page = sheet([[pictures[0], None], [pictures[1], pictures[0]]], scale=2)
    assert page.shape == (64, 64, channels - 1)
    assert np.array_equal(page[:32, :32], opaque(pictures[0].repeat(2, axis=0).repeat(2, axis=1)))
    assert np.array_equal(page[32:, 32:], page[:32, :32])
    assert not page[:32, 32:].any()
    assert sheet([[pictures[0]]], [["seed"]]).shape == (96 + 14, 96, channels - 1)


def test_sheets_do_not_grow_without_limit() -> None:
    with pytest.raises(UsageError, match="--scale=64: the sheet would have more than 128 Mi pixels"):
        sheet([[np.zeros((256, 256, 3), np.uint8)]], scale=64)
