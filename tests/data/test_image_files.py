"""Which files of a folder or zip are images, under which names, and what is said of the others."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sg3.data import folder_or_zip
from sg3.data.dataset import ImageFolderDataset
from sg3.data.folder_or_zip import plain_name
from sg3.data.image_files import open_images
from sg3.data.image_kind import image_kind
from sg3.data.prepare import prepare
from sg3.errors import DataError
from tests.helpers.image_files import encoded, pixels, read_zip, write_folder, write_zip

PNG = encoded(pixels(0))
PLACES: list[Callable[[Path, dict[str, bytes]], Path]] = [
    lambda path, files: write_folder(path, files),
    lambda path, files: write_zip(path.with_suffix(".zip"), files),
]
both = pytest.mark.parametrize("write", PLACES, ids=["folder", "zip"])


def labelled(labels: Any) -> bytes:
    return json.dumps({"labels": labels}).encode()


# ---- recognised by content


def test_kinds_by_content() -> None:
    for kind, name in [("PNG", "PNG"), ("JPEG", "JPEG"), ("WEBP", "WebP"), ("BMP", "BMP"), ("GIF", "GIF"),
                       ("TIFF", "TIFF"), ("JPEG2000", "JPEG 2000")]:  # fmt: skip
        assert image_kind(encoded(pixels(0, 32), kind)[:32]) == name
    assert image_kind(b"\0\0\0\x1cftypavif" + bytes(20)) == "AVIF"
    assert image_kind(b"\0\0\0\x1cftypheic" + bytes(20)) == "HEIF"
    for text in (b"", b"BMW and other cars, a text of some length", b"RIFF....WAVE", b"\0\0\0\x1cftypisom", b"hello"):
        assert image_kind(text) is None


@both
def test_suffixes_do_not_matter(write: Any, tmp_path: Path) -> None:
    """None, an odd one, and one that lies: eight images are eight images."""
    jpeg = encoded(pixels(0), "JPEG")
    files = {"a.jpe": jpeg, "b.pjpeg": jpeg, "c.jfif": jpeg, "d.apng": PNG, "e.dib": encoded(pixels(0), "BMP"),
             "f": PNG, "g.tif": jpeg, "h.jpg_large": jpeg, "notes.txt": b"no image"}  # fmt: skip
    dataset = ImageFolderDataset(write(tmp_path / "x", files))
    assert len(dataset) == 8
    assert [dataset[i][0].shape for i in range(8)] == [(3, 8, 8)] * 8
    assert dataset.notes() == ["1 not used: no image by its content (notes.txt)"]


@both
@pytest.mark.parametrize("name", ["a", "a.txt", "a.gif"])
def test_other_formats_are_refused_under_any_name(write: Any, name: str, tmp_path: Path) -> None:
    path = write(tmp_path / "x", {name: encoded(pixels(0), "GIF"), "b.png": PNG})
    with pytest.raises(DataError, match=rf"{name}: GIF images are not read; convert them to PNG"):
        ImageFolderDataset(path)
    path = write(tmp_path / "y", {name: encoded(pixels(0), "GIF"), "b.tiff": encoded(pixels(0), "TIFF"),
                                  "c.gif": encoded(pixels(0), "GIF")})
    with pytest.raises(DataError, match=rf"{name}: GIF images are not read \(in all 2 GIF, 1 TIFF\); convert them to"):
        ImageFolderDataset(path)


def test_other_format_behind_the_name_of_one_that_is_read(tmp_path: Path) -> None:
    """As `sg3 dataset` and the loader meet it."""
    path = write_folder(tmp_path / "x", {"a.png": encoded(pixels(0), "TIFF")})
    with pytest.raises(DataError, match=r"a\.png: TIFF, not PNG, JPEG, WebP or BMP; convert it to PNG"):
        ImageFolderDataset(path)
    avif = b"\0\0\0\x1cftypavif" + bytes(100)
    with pytest.raises(DataError, match=r"a\.png: AVIF, not PNG"):
        prepare(write_folder(tmp_path / "y", {"a.png": avif}), tmp_path / "out.zip")


def test_first_frame_of_an_animation(tmp_path: Path, dest: Path) -> None:
    frames = [Image.fromarray(pixels(seed)) for seed in range(3)]
    files = {f"a.{kind.lower()}": encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
             for kind, options in [("PNG", {}), ("WEBP", {"lossless": True})]}  # fmt: skip
    prepare(write_folder(tmp_path / "x", files), dest)
    for image in read_zip(dest)[0].values():
        np.testing.assert_array_equal(image, pixels(0))


# ---- what is not used, and why


@both
def test_everything_that_is_not_used_is_said(write: Any, tmp_path: Path, dest: Path) -> None:
    files = {"a.png": PNG, "@eaDir/a.png/SYNOPHOTO_THUMB_M.jpg": PNG, "@eaDir/b.png": PNG, ".DS_Store": b"x",
             "__MACOSX/._a.png": b"x", "#recycle/old.png": PNG, **{f"{i}.txt": b"x" for i in range(5)}}  # fmt: skip
    path = write(tmp_path / "x", files)
    said = [
        "1 not used: a recycle bin (#recycle/)",
        "1 not used: hidden (.DS_Store)",
        "1 not used: made by macOS (__MACOSX/)",
        "5 not used: no image by its content (0.txt, 1.txt, 2.txt, ...)",
        "1 not used: thumbnails and indices of a network drive (@eaDir/)",
    ]
    assert ImageFolderDataset(path).notes() == said
    made = prepare(path, dest)
    assert (made.num_images, made.notes) == (1, said)


def test_pipe_without_an_image_name_does_not_hang(tmp_path: Path) -> None:
    path = write_folder(tmp_path / "x", {"a.png": PNG})
    os.mkfifo(path / "pipe")
    (path / "gone").symlink_to(tmp_path / "nothing")
    assert open_images(path).unused.lines() == ["2 not used: unreadable, and no image by the name (gone, pipe)"]


# ---- links


def test_linked_folders_are_followed(tmp_path: Path, dest: Path) -> None:
    """Classes collected by links, as people do to make a subset."""
    for name in ("cat", "dog"):
        write_folder(tmp_path / "all" / name, {"1.png": PNG})
        (tmp_path / "some").mkdir(exist_ok=True)
        (tmp_path / "some" / name).symlink_to(tmp_path / "all" / name)
    assert prepare(tmp_path / "some", dest, labels="folders").label_dim == 2


def test_links_never_go_on_forever(tmp_path: Path) -> None:
    path = write_folder(tmp_path / "x", {"a/1.png": PNG, "b/c/2.png": PNG})
    (path / "a" / "up").symlink_to(path)
    (path / "b" / "c" / "round").symlink_to(path / "b")
    (path / "0-again").symlink_to(path / "a")
    (path / "everything").symlink_to("/")
    (path / "a" / "self").symlink_to(path / "a" / "self")
    files = open_images(path)
    assert files.names == ["a/1.png", "b/c/2.png"]
    assert files.unused.lines() == [
        "2 not used: links to a folder that holds this one (everything/, a/up/)",
        "2 not used: links to folders that are listed already (0-again/, b/c/round/)",
        "1 not used: unreadable, and no image by the name (a/self)",
    ]


def test_too_many_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder_or_zip.limits, "IMAGES", 2)
    with pytest.raises(DataError, match="more than 2 files in it"):
        open_images(write_folder(tmp_path / "x", {f"{i}.png": PNG for i in range(3)}))


# ---- names


@pytest.mark.parametrize(("name", "plain"), [
    ("a.png", "a.png"), ("./a.png", "a.png"), ("x\\y\\a.png", "x/y/a.png"), (".\\x//a.png", "x/a.png"),
    ("/x/a.png", "x/a.png"), ("x./a.png", "x./a.png"), ("x/./a.png", "x/a.png"), ("x/", "x"),
])  # fmt: skip
def test_plain_name(name: str, plain: str) -> None:
    assert plain_name(name) == plain


@both
def test_names_written_by_other_systems(write: Any, tmp_path: Path, dest: Path) -> None:
    """In the folder or zip, and in dataset.json: whoever writes \\ or ./ means the same file."""
    names = [["cat/a.png", "./cat/b.png"], ["cat\\a.png", "cat\\b.png"]]
    for theirs in names if write is PLACES[1] else [["cat/a.png", "cat/b.png"], ["cat\\a.png", "cat\\b.png"]]:
        for ours in (*names, [".\\cat\\a.png", "cat//b.png"]):
            files = {**dict.fromkeys(theirs, PNG), "dataset.json": labelled([[ours[0], 0], [ours[1], 1]])}
            folder = tmp_path / str(len(list(tmp_path.iterdir())))
            path = write(folder, files)
            dataset = ImageFolderDataset(path, use_labels=True)
            assert [int(dataset.get_details(i).raw_label) for i in range(2)] == [0, 1]
            assert dataset[1][0].shape == (3, 8, 8)
            assert prepare(path, dest, labels="folders", force=True).label_dim == 1


@both
def test_two_names_for_one_file_are_refused(write: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"the name 'x/a\.png' occurs twice, written differently"):
        open_images(write(tmp_path / "x", {"x/a.png": PNG, "x\\a.png": PNG}))


# ---- folders that everything shares


@both
def test_labels_in_a_shared_folder(write: Any, tmp_path: Path, dest: Path) -> None:
    """As most programs pack a folder: its name comes first."""
    files = {"pets/cat/1.png": PNG, "pets/dog/1.png": PNG,
             "pets/dataset.json": labelled([["cat/1.png", 0], ["dog/1.png", 1]])}  # fmt: skip
    path = write(tmp_path / "in", files)
    dataset = ImageFolderDataset(path, use_labels=True)
    assert (dataset.label_dim, dataset.get_label(1).tolist()) == (2, [0, 1])
    assert dataset.labels_available
    assert prepare(path, dest).label_dim == 2
    made = prepare(path, dest, labels="folders", force=True)
    assert (made.label_dim, made.notes) == (2, [])
    assert read_zip(dest)[1]["sg3"]["classes"] == ["cat", "dog"]


@both
def test_shared_folder_beside_other_files(write: Any, tmp_path: Path, dest: Path) -> None:
    files = {"in/pets/cat/1.png": PNG, "in/pets/dog/1.png": PNG, "in/README": b"x", "LICENCE": b"x"}
    made = prepare(write(tmp_path / "in", files), dest, labels="folders")
    assert (made.label_dim, made.notes) == (2, ["2 not used: no image by its content (LICENCE, in/README)"])


@both
def test_what_sg3_writes_keeps_its_names(write: Any, tmp_path: Path) -> None:
    """All images in 00000, dataset.json above it."""
    files = {"00000/img00000000.png": PNG, "dataset.json": labelled([["00000/img00000000.png", 3]])}
    dataset = ImageFolderDataset(write(tmp_path / "x", files), use_labels=True)
    assert dataset.label_dim == 4


@both
def test_labels_of_parts_are_not_taken_for_those_of_the_whole(write: Any, tmp_path: Path) -> None:
    files = {f"{part}/{name}": data for part in "ab" for name, data in
             {"1.png": PNG, "dataset.json": labelled([["1.png", 0]])}.items()}  # fmt: skip
    dataset = ImageFolderDataset(write(tmp_path / "x", files), use_labels=True)
    assert not dataset.has_labels
    assert dataset.notes() == [
        "2 not used: labels of another folder than all images are in (a/dataset.json, b/dataset.json)"
    ]


@both
def test_one_class_is_said(write: Any, tmp_path: Path, dest: Path) -> None:
    made = prepare(write(tmp_path / "x", {"cat/1.png": PNG, "cat/2.png": PNG}), dest, labels="folders")
    assert (made.label_dim, made.notes) == (1, ["all images are of one class, so the labels tell nothing apart"])
    assert ImageFolderDataset(dest, use_labels=True).notes() == made.notes


# ---- labels


@both
def test_whole_numbers_written_as_fractions_are_classes(write: Any, tmp_path: Path) -> None:
    files = {"a.png": PNG, "b.png": PNG, "dataset.json": labelled([["a.png", 0.0], ["b.png", 1]])}
    dataset = ImageFolderDataset(write(tmp_path / "x", files), use_labels=True)
    assert dataset.has_onehot_labels
    assert dataset.get_label(1).tolist() == [0, 1]


@both
def test_gaps_between_classes_are_said(write: Any, tmp_path: Path, dest: Path) -> None:
    files = {"a.png": PNG, "b.png": PNG, "dataset.json": labelled([["a.png", 1], ["b.png", 5], ["c.png", 2]])}
    path = write(tmp_path / "x", files)
    gaps = "4 of the 6 class numbers have no image (0, 2, 3, ...); the networks are made for all of them"
    assert ImageFolderDataset(path, use_labels=True).notes() == [gaps]
    assert prepare(path, dest).notes == [gaps, "1 labels are for names that are no image's"]


@both
@pytest.mark.parametrize("theirs", ["images/a.png", "a.jpg"])
def test_names_that_do_not_match_are_shown_from_both_sides(write: Any, theirs: str, tmp_path: Path, dest: Path) -> None:
    path = write(tmp_path / "x", {"a.png": PNG, "dataset.json": labelled([[theirs, 1]])})
    for read in (lambda: prepare(path, dest), lambda: ImageFolderDataset(path, use_labels=True)):
        with pytest.raises(DataError, match=rf"'a\.png'.*names like '{theirs}'") as caught:
            read()
        assert "--labels=none" not in str(caught.value)
