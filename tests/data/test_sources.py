"""Sources other than folders and zips: MNIST, CIFAR-10, LMDB."""

from __future__ import annotations

import gzip
import io
import os
import pickle
import struct
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sg3.data.prepare import prepare
from sg3.data.scan import UnusableImages
from sg3.data.transforms import ImagePlan
from sg3.errors import DataError, MissingInputError, StorageError, UsageError
from tests.helpers.image_files import encoded, pixels, read_zip, write_folder


def write_idx(path: Path, array: np.ndarray) -> Path:
    header = struct.pack(f">{1 + array.ndim}I", 0x800 + array.ndim, *array.shape)
    with (gzip.open(path, "wb") if path.suffix == ".gz" else path.open("wb")) as file:
        file.write(header + array.astype(np.uint8).tobytes())
    return path


@pytest.mark.parametrize("suffix", [".gz", ""])
def test_mnist(tmp_path: Path, dest: Path, suffix: str) -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 28, 28))
    source = write_idx(tmp_path / f"train-images-idx3-ubyte{suffix}", images)
    with pytest.raises(MissingInputError, match="train-labels-idx1-ubyte"):
        prepare(source, dest)
    assert prepare(source, dest, labels="none").label_dim == 0
    write_idx(tmp_path / f"train-labels-idx1-ubyte{suffix}", np.array([4, 0, 9]))
    result = prepare(source, dest, force=True)
    assert (result.num_images, result.resolution, result.channels, result.label_dim) == (3, 32, 1, 10)
    written, manifest = read_zip(dest)
    expected = np.zeros((3, 32, 32))
    expected[:, 2:30, 2:30] = images
    np.testing.assert_array_equal(np.stack(list(written.values())), expected)
    assert [label for _, label in manifest["labels"]] == [4, 0, 9]


@pytest.mark.parametrize("content", [
    b"", b"not gzip", gzip.compress(b"x"), gzip.compress(struct.pack(">4I", 0x803, 3, 28, 28) + bytes(100)),
    gzip.compress(struct.pack(">4I", 0x801, 3, 28, 28) + bytes(3 * 28 * 28)),
    gzip.compress(struct.pack(">4I", 0x803, 2**32 - 1, 2**32 - 1, 28)),
    gzip.compress(bytes(5000))[:-4],
])
def test_broken_mnist(tmp_path: Path, dest: Path, content: bytes) -> None:
    source = tmp_path / "train-images-idx3-ubyte.gz"
    source.write_bytes(content)
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte\.gz: "):
        prepare(source, dest, labels="none")


FASHION = Path("/usr/share/datasets/fashion-mnist/t10k-images-idx3-ubyte.gz")


@pytest.mark.skipif(not FASHION.is_file(), reason="Debian's dataset-fashion-mnist is not installed")
def test_fashion_mnist(dest: Path) -> None:
    result = prepare(FASHION, dest, max_images=500)
    assert (result.num_images, result.resolution, result.channels, result.label_dim) == (500, 32, 1, 10)


class Python2Dump:
    """CIFAR-10's files were written by Python 2: strings are bytes, arrays refer to numpy.core."""

    @staticmethod
    def batch(data: np.ndarray, labels: list[int]) -> bytes:
        raw = data.tobytes()
        return (b"\x80\x02}q\x00(U\x04datacnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b"
                b"\x87R(K\x01M" + struct.pack("<H", len(data)) + b"M\x00\x0c\x86cnumpy\ndtype\nU\x02u1K\x00K\x01"
                b"\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89T" + struct.pack("<I", len(raw))
                + raw + b"tbU\x06labels](" + b"".join(b"K" + bytes([label]) for label in labels) + b"eu.")


def write_cifar(path: Path, batch: Callable[[int], bytes], meta: bytes | None = None) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        members = {f"cifar-10-batches-py/data_batch_{i}": batch(i) for i in range(1, 6)}
        members["cifar-10-batches-py/readme.html"] = b"x"
        for name, data in (members | ({"cifar-10-batches-py/batches.meta": meta} if meta else {})).items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def cifar_arrays(i: int) -> tuple[np.ndarray, list[int]]:
    return np.random.default_rng(i).integers(0, 256, (2, 3072)).astype(np.uint8), [i, 9 - i]


@pytest.mark.parametrize("writer", ["python 2", 2, 4])
def test_cifar10(tmp_path: Path, dest: Path, writer: Any) -> None:
    def batch(i: int) -> bytes:
        data, labels = cifar_arrays(i)
        if writer == "python 2":
            return Python2Dump.batch(data, labels)
        return pickle.dumps({"data": data, "labels": labels}, protocol=writer)

    names = [f"class {i}" for i in range(10)]
    source = write_cifar(tmp_path / "cifar-10-python.tar.gz", batch, pickle.dumps({"label_names": names}))
    result = prepare(source, dest)
    assert (result.num_images, result.resolution, result.channels) == (10, 32, 3)
    images, manifest = read_zip(dest)
    expected = np.concatenate([cifar_arrays(i)[0] for i in range(1, 6)]).reshape(10, 3, 32, 32)
    np.testing.assert_array_equal(np.stack(list(images.values())), expected.transpose(0, 2, 3, 1))
    assert [label for _, label in manifest["labels"]] == [1, 8, 2, 7, 3, 6, 4, 5, 5, 4]
    assert manifest["sg3"]["classes"] == names


def test_batches_of_real_size(tmp_path: Path, dest: Path) -> None:
    """Those of the real archives are one string of 30 and 154 million bytes."""
    large = Python2Dump.batch(np.full((5500, 3072), 7, np.uint8), [0] * 5500)
    small = Python2Dump.batch(np.zeros((1, 3072), np.uint8), [9])
    source = write_cifar(tmp_path / "cifar-10-python.tar.gz", lambda i: large if i == 1 else small)
    assert prepare(source, dest, max_images=2).num_images == 2


class Touch:
    """Pickles to a call of a function."""

    def __init__(self, *call: Any) -> None:
        self.call = call

    def __reduce__(self) -> Any:
        return self.call[0], self.call[1:]


@pytest.mark.parametrize("call", ["os.system", "eval", "getattr", "open"])
def test_hostile_cifar10_runs_nothing(tmp_path: Path, dest: Path, call: str) -> None:
    mark = tmp_path / "ran"
    hostile = {
        "os.system": Touch(os.system, f"touch {mark}"),
        "eval": Touch(eval, f"open({str(mark)!r}, 'w')"),
        "getattr": Touch(getattr, Touch(__import__, "os"), "getcwd"),
        "open": Touch(open, str(mark), "w"),
    }[call]
    source = write_cifar(tmp_path / "cifar-10-python.tar.gz", lambda _: pickle.dumps({"data": hostile, "labels": [0]}))
    with pytest.raises(DataError, match="data_batch_1: refused, nothing in it was run"):
        prepare(source, dest)
    assert not mark.exists()


@pytest.mark.parametrize("batch", [
    b"", b"x", pickle.dumps([1]), pickle.dumps({"data": 1, "labels": [0]}),
    pickle.dumps({"data": np.zeros((1, 3072), np.float32), "labels": [0]}),
    pickle.dumps({"data": np.zeros((1, 3071), np.uint8), "labels": [0]}),
    pickle.dumps({"data": np.zeros((1, 3072), np.uint8), "labels": [10]}),
    pickle.dumps({"data": np.zeros((1, 3072), np.uint8), "labels": [0, 1]}),
    Python2Dump.batch(np.zeros((1, 3072), np.uint8), [0]).replace(b"M\x00\x0c", b"\x8a\x09" + bytes(8) + b"\x7f"),
    b"\x80\x02r\xff\xff\xff\x7f.",  # a memo slot that would take 16 GiB
    b"\x80\x04\x8e" + struct.pack("<Q", 1 << 62),
])
def test_broken_cifar10(tmp_path: Path, dest: Path, batch: bytes) -> None:
    source = write_cifar(tmp_path / "cifar-10-python.tar.gz", lambda _: batch)
    with pytest.raises(DataError, match=r"cifar-10-python\.tar\.gz: "):
        prepare(source, dest)


def test_truncated_cifar10(tmp_path: Path, dest: Path) -> None:
    source = write_cifar(tmp_path / "cifar-10-python.tar.gz", lambda i: pickle.dumps(cifar_arrays(i)))
    source.write_bytes(source.read_bytes()[:-200])
    with pytest.raises(DataError, match=r"not a whole \.tar\.gz"):
        prepare(source, dest)


def test_lmdb(tmp_path: Path, dest: Path) -> None:
    lmdb = pytest.importorskip("lmdb", reason="the lmdb package is not installed")
    source = tmp_path / "church_lmdb"
    with lmdb.open(str(source), map_size=1 << 20) as environment, environment.begin(write=True) as transaction:
        for i in (2, 0, 1):
            transaction.put(f"{i}".encode(), encoded(pixels(i), "WEBP", lossless=True))
    assert prepare(source, dest).num_images == 3
    for i, image in enumerate(read_zip(dest)[0].values()):
        np.testing.assert_array_equal(image, pixels(i))
    with lmdb.open(str(source), map_size=1 << 20) as environment, environment.begin(write=True) as transaction:
        transaction.put(b"3", b"x")
    with pytest.raises(UnusableImages, match="church_lmdb: 3: not PNG"):
        prepare(source, dest, force=True)


def write_cifar100(path: Path, batch: dict[str, Any]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        meta = {"fine_label_names": [f"class {i}" for i in range(100)], "coarse_label_names": ["x"]}
        for name, value in (("test", batch), ("train", batch), ("meta", meta)):
            data = pickle.dumps(value, protocol=2)
            member = tarfile.TarInfo(f"cifar-100-python/{name}")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def test_cifar100_has_its_fine_labels(tmp_path: Path, dest: Path) -> None:
    data = np.random.default_rng(0).integers(0, 256, (4, 3072)).astype(np.uint8)
    batch = {"data": data, "fine_labels": [3, 99, 0, 7], "coarse_labels": [1, 2, 3, 4], "filenames": ["a"] * 4}
    made = prepare(write_cifar100(tmp_path / "cifar-100-python.tar.gz", batch), dest)
    assert (made.num_images, made.label_dim) == (4, 100)
    images, manifest = read_zip(dest)
    expected = data.reshape(4, 3, 32, 32).transpose(0, 2, 3, 1)
    np.testing.assert_array_equal(np.stack(list(images.values())), expected)
    assert [label for _, label in manifest["labels"]] == [3, 99, 0, 7]
    assert manifest["sg3"]["classes"][99] == "class 99"
    write_cifar100(tmp_path / "cifar-100-python.tar.gz", batch | {"fine_labels": [3, 100, 0, 7]})
    with pytest.raises(DataError, match=r"cifar-100-python/train: not one label of 0\.\.99"):
        prepare(tmp_path / "cifar-100-python.tar.gz", dest, force=True)


def test_archive_that_is_no_cifar(tmp_path: Path, dest: Path) -> None:
    """Photos packed by tar: said at the first file, however large the rest."""
    with tarfile.open(tmp_path / "photos.tar.gz", "w:gz") as archive:
        archive.add(write_folder(tmp_path / "photos", {"a.png": encoded(pixels(0))}), "./photos")
    with pytest.raises(DataError, match="neither CIFAR-10 nor CIFAR-100 but an archive of photos and more; unpack it"):
        prepare(tmp_path / "photos.tar.gz", dest)
    with tarfile.open(tmp_path / "empty.tar.gz", "w:gz") as archive:
        archive.add(write_folder(tmp_path / "x", {"readme.html": b"x"}), "cifar-10-batches-py")
    with pytest.raises(DataError, match="no batch of images in it"):
        prepare(tmp_path / "empty.tar.gz", dest)


def write_lmdb(path: Path, values: dict[str, bytes]) -> Path:
    lmdb = pytest.importorskip("lmdb", reason="the lmdb package is not installed")
    with lmdb.open(str(path), map_size=1 << 20) as environment, environment.begin(write=True) as transaction:
        for key, value in values.items():
            transaction.put(key.encode(), value)
    return path


@pytest.mark.parametrize(("resolution", "chosen"), [(None, 32), (16, 16), (8, 16), (32, 32), (64, 32)])
def test_rosinality_lmdb_gives_each_image_once(tmp_path: Path, dest: Path, resolution: int | None, chosen: int) -> None:
    images = {(size, i): pixels(10 * size + i, size) for size in (16, 32) for i in range(12)}
    values = {f"{size}-{i:05d}": encoded(image) for (size, i), image in images.items()} | {"length": b"12"}
    source = write_lmdb(tmp_path / "data", values)
    plan = ImagePlan(resolution=None if resolution is None else (resolution, resolution))
    made = prepare(source, dest, plan)
    assert (made.num_images, made.resolution) == (12, resolution or 32)
    other = 48 - chosen
    names = ", ".join(f"{other}-{i:05d}" for i in range(3))
    line = f"12 not used: images of other sizes than {chosen}, which --resolution chooses ({names}, ...)"
    assert made.notes[-1] == line
    if made.resolution == chosen:
        for i, image in enumerate(read_zip(dest)[0].values()):
            np.testing.assert_array_equal(image, images[chosen, i])


def test_keys_that_only_look_like_sizes(tmp_path: Path, dest: Path) -> None:
    source = write_lmdb(tmp_path / "data", {f"{i}-1": encoded(pixels(i)) for i in range(3)} | {"a": encoded(pixels(3))})
    assert prepare(source, dest).num_images == 4


def test_lmdb_without_the_package(tmp_path: Path, dest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "church_lmdb").mkdir()
    monkeypatch.setitem(sys.modules, "lmdb", None)
    with pytest.raises(MissingInputError, match=r"pip install 'sg3\[lmdb\]'"):
        prepare(tmp_path / "church_lmdb", dest)


@pytest.mark.parametrize("content", [b"", b"x" * 100_000])
def test_broken_lmdb(tmp_path: Path, dest: Path, content: bytes) -> None:
    pytest.importorskip("lmdb", reason="the lmdb package is not installed")
    write_folder(tmp_path / "church_lmdb", {"data.mdb": content})
    with pytest.raises((DataError, StorageError), match="church_lmdb"):
        prepare(tmp_path / "church_lmdb", dest)


def test_unknown_source(tmp_path: Path, dest: Path) -> None:
    (tmp_path / "x.tar").write_bytes(b"x")
    with pytest.raises(DataError, match="not a source that is read"):
        prepare(tmp_path / "x.tar", dest)


@pytest.mark.parametrize("name", ["x.tar", "x.tar.gz", "x.TGZ", "x.lmdb", "x.7z", "x.json"])
def test_destinations_that_are_not_written(tmp_path: Path, name: str) -> None:
    source = write_folder(tmp_path / "in", {"a.png": encoded(pixels(0))})
    with pytest.raises(UsageError, match=f"--dest=.*{name}: .* files are not written; name a .zip, or a folder"):
        prepare(source, tmp_path / name)
    assert not (tmp_path / name).exists()
    assert prepare(source, tmp_path / "set.v1").num_images == 1  # a dot alone does not make it a file


def test_on_error_has_the_same_words_everywhere() -> None:
    from sg3.cli.dataset import command
    from sg3.train.recipes import known_options

    (option,) = [option for option in command.params if option.name == "on_error"]
    assert tuple(option.type.choices) == known_options()["on_error"].choices
    assert option.default == known_options()["on_error"].shown_default
