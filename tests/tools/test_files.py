"""Arrays in files: what was written comes back; what is no such file is named in one line, and nothing in it runs."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sg3 import limits
from sg3.errors import DataError, MissingInputError, StorageError
from sg3.tools.files import load_arrays, save_arrays


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
