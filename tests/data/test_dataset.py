from __future__ import annotations

import json
import os
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch.utils.data import DataLoader

from sg3.data.dataset import ImageFolderDataset
from sg3.errors import DataError, Sg3Error, UsageError
from tests.helpers.image_files import encoded, pixels, write_folder, write_zip

NAMES = ["b/2.png", "a.png", "b/10.png", "c.png", "b/1.png"]
FILES = {name: encoded(pixels(seed)) for seed, name in enumerate(NAMES)}
SORTED = sorted(NAMES)
IMAGES = {name: pixels(seed).transpose(2, 0, 1) for seed, name in enumerate(NAMES)}


def with_labels(labels: Any) -> dict[str, bytes]:
    return FILES | {"dataset.json": json.dumps({"labels": labels}).encode()}


@pytest.fixture(params=["zip", "folder"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    files = with_labels([[name, seed] for seed, name in enumerate(NAMES)])
    if request.param == "zip":
        return write_zip(tmp_path / "set.v1.zip", files)
    return write_folder(tmp_path / "set.v1", files)


def test_images_in_the_order_of_their_names(path: Path) -> None:
    dataset = ImageFolderDataset(path)
    assert len(dataset) == 5
    for index, name in enumerate(SORTED):
        image, label = dataset[index]
        assert image.dtype == np.uint8
        assert image.flags.c_contiguous
        np.testing.assert_array_equal(image, IMAGES[name])
        assert label.shape == (0,)


def test_properties(path: Path) -> None:
    dataset = ImageFolderDataset(path, resolution=8)
    assert dataset.name == "set.v1"
    assert dataset.image_shape == [3, 8, 8]
    assert (dataset.num_channels, dataset.resolution) == (3, 8)
    assert (dataset.label_shape, dataset.label_dim, dataset.has_labels, dataset.has_onehot_labels) \
        == ([0], 0, False, False)
    assert dataset.labels_available


def test_class_labels(path: Path) -> None:
    dataset = ImageFolderDataset(path, use_labels=True)
    assert (dataset.label_shape, dataset.label_dim) == ([5], 5)
    assert dataset.has_labels
    assert dataset.has_onehot_labels
    for index, name in enumerate(SORTED):
        label = dataset.get_label(index)
        assert label.dtype == np.float32
        np.testing.assert_array_equal(label, np.eye(5)[NAMES.index(name)])
        assert dataset.get_details(index).raw_label == NAMES.index(name)


def test_label_width_counts_all_images(path: Path) -> None:
    # The subset of seed 1 lacks the highest class; the width must not shrink with it.
    subsets = [ImageFolderDataset(path, use_labels=True, max_size=2, random_seed=seed) for seed in range(8)]
    highest = [max(int(dataset.get_details(i).raw_label) for i in range(2)) for dataset in subsets]
    assert min(highest) < 4
    assert all(dataset.label_dim == 5 for dataset in subsets)


def test_one_class_has_width_one(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "x.zip", with_labels([[name, 0] for name in NAMES]))
    dataset = ImageFolderDataset(path, use_labels=True)
    assert dataset.label_dim == 1
    assert dataset.has_labels


def test_vector_labels(tmp_path: Path) -> None:
    vectors = {name: [seed, 0.5, -seed / 4] for seed, name in enumerate(NAMES)}
    path = write_zip(tmp_path / "x.zip", with_labels([[*item] for item in vectors.items()]))
    dataset = ImageFolderDataset(path, use_labels=True)
    assert (dataset.label_dim, dataset.has_onehot_labels, dataset.get_label(0).dtype) == (3, False, np.float32)
    for index, name in enumerate(SORTED):
        np.testing.assert_array_equal(dataset.get_label(index), np.float32(vectors[name]))


@pytest.mark.parametrize("files", [FILES, with_labels(None)], ids=["no file", "null"])
def test_without_labels_the_width_is_zero(tmp_path: Path, files: dict[str, bytes]) -> None:
    dataset = ImageFolderDataset(write_zip(tmp_path / "x.zip", files), use_labels=True)
    assert (dataset.label_dim, dataset.has_labels, dataset.labels_available) == (0, False, False)


def test_labels_not_in_use_may_be_anything(tmp_path: Path) -> None:
    dataset = ImageFolderDataset(write_zip(tmp_path / "x.zip", FILES | {"dataset.json": b"not JSON"}))
    assert not dataset.labels_available


def test_mirrored_copies_follow(path: Path) -> None:
    dataset = ImageFolderDataset(path, xflip=True, use_labels=True)
    assert len(dataset) == 10
    for index in range(5):
        np.testing.assert_array_equal(dataset[index + 5][0], dataset[index][0][:, :, ::-1])
        np.testing.assert_array_equal(dataset[index + 5][1], dataset[index][1])
        assert dataset.get_details(index).xflip is False
        details = dataset.get_details(index + 5)
        assert (details.raw_idx, details.xflip) == (index, True)


def test_subset_is_drawn_by_the_seed_before_mirroring(path: Path) -> None:
    def chosen(**options: Any) -> list[int]:
        dataset = ImageFolderDataset(path, **options)
        return [dataset.get_details(index).raw_idx for index in range(len(dataset))]

    first = chosen(max_size=3, random_seed=0)
    assert first == sorted(set(first))
    assert len(first) == 3
    assert chosen(max_size=3, random_seed=0) == first
    assert len({tuple(chosen(max_size=3, random_seed=seed)) for seed in range(10)}) > 1
    assert chosen(max_size=3, random_seed=0, xflip=True) == first * 2
    assert chosen(max_size=5) == chosen(max_size=99) == [0, 1, 2, 3, 4]
    with pytest.raises(UsageError):
        chosen(max_size=0)


def test_pickled_without_the_handle(path: Path) -> None:
    dataset = ImageFolderDataset(path, use_labels=True)
    dataset[0]
    copy = pickle.loads(pickle.dumps(dataset))
    assert getattr(copy._files.store, "_handle", None) is None
    np.testing.assert_array_equal(copy[3][0], dataset[3][0])


def test_workers_read_as_the_parent_does(tmp_path: Path) -> None:
    files = {f"{i:03d}.png": encoded(pixels(i)) for i in range(64)}
    dataset = ImageFolderDataset(write_zip(tmp_path / "x.zip", files))
    dataset[0]  # the handle is open when the workers fork
    batches = list(DataLoader(dataset, batch_size=4, num_workers=2))
    loaded = np.concatenate([images.numpy() for images, _ in batches])
    np.testing.assert_array_equal(loaded, np.stack([dataset[i][0] for i in range(64)]))


def test_closed_and_read_again(path: Path) -> None:
    dataset = ImageFolderDataset(path)
    dataset.close()
    assert dataset[0][0].shape == (3, 8, 8)
    dataset.close()


def test_hidden_files_are_passed_over(tmp_path: Path) -> None:
    extra = {"__MACOSX/._a.png": b"x", "._a.png": b"x", ".git/a.png": b"x"}
    assert len(ImageFolderDataset(write_zip(tmp_path / "x.zip", FILES | extra))) == 5
    assert len(ImageFolderDataset(write_folder(tmp_path / "x", FILES | extra))) == 5


# What goes wrong: the type gives the exit code, the message is one line that names the file.

def refuses(exit_code: int, match: str, path: Path, **options: Any) -> None:
    def read_all() -> None:
        dataset = ImageFolderDataset(path, **options)
        for index in range(len(dataset)):
            dataset[index]

    with pytest.raises(Sg3Error, match=match) as caught:
        read_all()
    assert caught.value.exit_code == exit_code
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_path(tmp_path: Path) -> None:
    refuses(66, "no such file or folder", tmp_path / "none.zip")


def test_neither_zip_nor_folder(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("x")
    refuses(65, "neither a folder nor a zip", tmp_path / "x.txt")


def test_no_images(tmp_path: Path) -> None:
    refuses(65, "no images in it", write_zip(tmp_path / "x.zip", {"readme.txt": b"x"}))
    refuses(65, "no images in it", write_folder(tmp_path / "x", {"readme.txt": b"x"}))


def test_format_that_is_not_read(tmp_path: Path) -> None:
    refuses(65, r"z\.gif: \.gif images are not read", write_zip(tmp_path / "x.zip", FILES | {"z.gif": b"x"}))


def test_not_square(tmp_path: Path) -> None:
    data = encoded(np.zeros((40, 30, 3), np.uint8))
    refuses(65, r"30x40 is not square; `sg3 dataset .*--transform=center-crop --resolution=16x16`",
            write_zip(tmp_path / "x.zip", {"a.png": data}))


def test_resolution_differs(tmp_path: Path) -> None:
    refuses(65, "8x8, expected 16x16", write_zip(tmp_path / "x.zip", FILES), resolution=16)


@pytest.mark.parametrize(("odd", "message"), [
    (pixels(9, side=16), "16x16 with 3 channels, expected 8x8 with 3 channels like a.png.*--resolution=8x8"),
    (pixels(9, channels=1), "8x8 with 1 channel, expected 8x8 with 3 channels like a.png.*--convert=rgb"),
])
def test_odd_one_out_is_named(tmp_path: Path, odd: np.ndarray, message: str) -> None:
    refuses(65, r"x\.zip: z\.png: " + message, write_zip(tmp_path / "x.zip", FILES | {"z.png": encoded(odd)}))


@pytest.mark.parametrize("data", [b"", b"not an image", FILES["a.png"][:60]])
def test_broken_image_is_named(tmp_path: Path, data: bytes) -> None:
    refuses(65, r"z\.png: ", write_folder(tmp_path / "x", FILES | {"z.png": data}))


def test_link_to_nothing_is_named(tmp_path: Path) -> None:
    path = write_folder(tmp_path / "x", FILES)
    (path / "z.png").symlink_to(tmp_path / "nothing")
    refuses(65, r"z\.png: gone, or a link to nothing", path)


def test_pipe_in_the_folder_does_not_hang(tmp_path: Path) -> None:
    path = write_folder(tmp_path / "x", FILES)
    os.mkfifo(path / "z.png")
    refuses(65, r"z\.png: is no file, but a device or a pipe; remove it", path)


@pytest.mark.parametrize(("content", "message"), [
    (b"{", "not valid JSON"),
    (b"\xff\xfe", "not valid JSON"),
    (b"[" * 200_000, "not valid JSON"),
    (b'{"labels": [["a.png", ' + b"9" * 5000 + b"]]}", "not valid JSON"),
    (b"[]", "not an object"),
    (b"{}", 'no "labels" in it'),
    (b'{"labels": {"a.png": 0}}', "neither null nor a list"),
    (b'{"labels": [["a.png"]]}', r"labels\[0\] is not"),
    (b'{"labels": [[0, "a.png"]]}', r"labels\[0\] is not"),
    (b'{"labels": [["a.png", 0], ["a.png", 1]]}', "'a.png' has two labels"),
    (b'{"labels": [["a.png", -1]]}', "outside 0"),
    (b'{"labels": [["a.png", 10000000000]]}', "outside 0"),
    (b'{"labels": [["a.png", "cat"]]}', "neither a whole number nor a list"),
    (b'{"labels": [["a.png", true]]}', "neither a whole number nor a list"),
    (b'{"labels": [["a.png", 1.5]]}', "neither a whole number nor a list"),
    (b'{"labels": [["a.png", []]]}', "neither a whole number nor a list"),
    (b'{"labels": [["a.png", [NaN]]]}', "neither a whole number nor a list"),
    (b'{"labels": [["a.png", [1' + b"0" * 400 + b"]]]}", "holds a whole number of more than 64 bits"),
    (b'{"labels": [["a.png", 1], ["c.png", [1.0]]]}', "'c.png' is a list of 1, those before are a whole number"),
    (b'{"labels": [["a.png", [1, 2]], ["c.png", [1]]]}', "'c.png' is a list of 1, those before are a list of 2"),
    (b'{"labels": [["a.png", 1], ["c.png", 1]]}', r"no label for 3 of 5 images, first 'b/1\.png'"),
])
def test_unusable_labels(tmp_path: Path, content: bytes, message: str) -> None:
    path = write_folder(tmp_path / "x", FILES | {"dataset.json": content})
    refuses(65, r"dataset\.json: .*" + message, path, use_labels=True)


def test_huge_label_file_is_refused_unread(tmp_path: Path) -> None:
    path = write_folder(tmp_path / "x", FILES | {"dataset.json": b""})
    os.truncate(path / "dataset.json", 1 << 30)
    refuses(65, r"dataset\.json: 1073741824 bytes, too large", path, use_labels=True)


# Zips.

def test_truncated_zip(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "x.zip", FILES)
    path.write_bytes(path.read_bytes()[:-40])
    refuses(65, "not a readable zip", path)


def test_zip_with_damaged_entry(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "x.zip", FILES)
    data = bytearray(path.read_bytes())
    data[data.index(FILES["c.png"]) + 50] ^= 1
    path.write_bytes(data)
    refuses(65, r"c\.png: damaged in the zip", path)


def test_duplicate_names(tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.png", FILES["a.png"])
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("a.png", FILES["c.png"])
    refuses(65, "the name 'a.png' occurs twice", path)


@pytest.mark.parametrize("name", ["../a.png", "x/../../a.png", "/a.png", "..\\a.png", "C:\\a.png"])
def test_names_that_point_outside(tmp_path: Path, name: str) -> None:
    path = write_zip(tmp_path / "x.zip", FILES | {name: FILES["a.png"]})
    refuses(65, "unsafe name", path)
    assert sorted(os.listdir(tmp_path)) == ["x.zip"]


def test_zip_bomb(tmp_path: Path) -> None:
    bomb = FILES["c.png"] + bytes(20 << 20)
    path = write_zip(tmp_path / "x.zip", {"a.png": bomb}, compression=zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 50_000
    refuses(65, r"a\.png: compressed more than 200:1", path)


def test_zip_bomb_behind_a_small_declared_size(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "x.zip", {"a.png": FILES["c.png"] + bytes(20 << 20)},
                     compression=zipfile.ZIP_DEFLATED)
    data = path.read_bytes()
    true_size = struct.pack("<I", len(FILES["c.png"]) + (20 << 20))
    path.write_bytes(data.replace(true_size, struct.pack("<I", 100)))
    refuses(65, r"a\.png: damaged in the zip", path)


def test_entry_larger_than_any_such_image(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "x.zip", FILES | {"z.png": bytes(np.random.default_rng(0).bytes(2 << 20))})
    refuses(65, r"z\.png: 2097152 bytes, too large", path)


def test_compressions_that_cannot_be_bounded(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "x.zip", FILES, compression=zipfile.ZIP_BZIP2)
    refuses(65, r"a\.png: neither stored nor deflated", path)


def test_encrypted_entry(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "x.zip", {"a.png": FILES["a.png"]})
    data = bytearray(path.read_bytes())
    data[data.rindex(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(data)
    refuses(65, r"a\.png: encrypted", path)


def test_zip_replaced_while_in_use(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "x.zip", FILES)
    dataset = ImageFolderDataset(path)
    dataset.close()
    write_zip(path, {"other.png": FILES["a.png"]})
    with pytest.raises(DataError, match=r"a\.png: gone"):
        dataset[0]


@pytest.mark.parametrize("write", [write_zip, write_folder])
def test_what_training_sees_has_a_hash(write: Any, tmp_path: Path) -> None:
    """It is the same when the set is made anew elsewhere, and another with another pixel, name or label in use."""

    def hashes(number: int, files: dict[str, bytes], labels: list[Any], **how: str) -> tuple[str, str, str]:
        manifest = json.dumps({"labels": labels, "sg3": how}).encode()
        path = write(tmp_path / f"{number}.zip", files | {"dataset.json": manifest})
        with_them, without = (ImageFolderDataset(path, use_labels=use) for use in (True, False))
        return with_them.training_hash(), without.training_hash(), without.content_hash()

    labels = [[name, seed] for seed, name in enumerate(NAMES)]
    first = hashes(0, FILES, labels, source="photos", version="0.1.0")
    again = hashes(1, FILES, labels[::-1], source="there/photos", version="0.2.0")
    assert again[:2] == first[:2]
    assert again[2] != first[2]
    labelled = hashes(2, FILES, [[name, 4 - seed] for seed, name in enumerate(NAMES)])
    assert labelled[0] != first[0]
    assert labelled[1] == first[1]
    assert hashes(3, FILES | {"a.png": encoded(pixels(9))}, labels)[1] != first[1]
    renamed = {("d.png" if name == "c.png" else name): data for name, data in FILES.items()}
    assert hashes(4, renamed, [["d.png" if name == "c.png" else name, label] for name, label in labels])[1] != first[1]
