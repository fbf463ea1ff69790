from __future__ import annotations

import errno
import json
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sg3.data import prepare as prepare_module
from sg3.data import scan as scan_module
from sg3.data.dataset import ImageFolderDataset
from sg3.data.prepare import prepare
from sg3.data.scan import UnusableImages
from sg3.data.transforms import ImagePlan
from sg3.errors import DataError, StorageError, UsageError
from tests.helpers.image_files import encoded, files_below, pixels, read_zip, write_folder, write_zip

FILES = {f"{i}.png": encoded(pixels(i)) for i in range(4)}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "in", FILES)


# What comes out.

def test_images_are_renamed_and_keep_their_pixels(source: Path, dest: Path) -> None:
    result = prepare(source, dest)
    assert (result.num_images, result.resolution, result.channels, result.label_dim) == (4, 8, 3, 0)
    assert (result.skipped, result.notes) == ([], [])
    images, manifest = read_zip(dest)
    assert list(images) == [f"00000/img{i:08d}.png" for i in range(4)]
    for i, image in enumerate(images.values()):
        np.testing.assert_array_equal(image, pixels(i))
    assert manifest["labels"] is None
    assert manifest["sg3"]["source"] == "in"
    assert manifest["sg3"]["num_images"] == 4
    assert manifest["sg3"]["resize_filter"] is None
    np.testing.assert_array_equal(ImageFolderDataset(dest)[2][0], pixels(2).transpose(2, 0, 1))


def test_zip_and_pngs_are_uncompressed(source: Path, dest: Path) -> None:
    write_folder(source, {f"{i}.png": encoded(np.zeros((64, 64, 3), np.uint8)) for i in range(4)})
    prepare(source, dest)
    assert dest.stat().st_size > 4 * 64 * 64 * 3


def test_equal_input_gives_equal_bytes(source: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        prepare(source, tmp_path / f"{name}.zip", ImagePlan(resolution=(16, 16)))
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


def test_zip_source_and_folder_destination(tmp_path: Path) -> None:
    source = write_zip(tmp_path / "in.zip", {f"deep/er/{name}": data for name, data in FILES.items()})
    (tmp_path / "out").mkdir()  # may exist if empty
    for name in ("out", "new/out"):
        prepare(source, tmp_path / name)
        assert (tmp_path / name / "00000" / "img00000003.png").is_file()
        assert len(ImageFolderDataset(tmp_path / name)) == 4


def test_thousand_images_to_a_folder() -> None:
    assert prepare_module.image_name(999) == "00000/img00000999.png"
    assert prepare_module.image_name(1000) == "00001/img00001000.png"


def test_max_images(source: Path, dest: Path) -> None:
    assert prepare(source, dest, max_images=2).num_images == 2


def test_metadata_of_the_original_stays_behind(tmp_path: Path, dest: Path) -> None:
    exif = Image.Exif()
    exif[0x010E] = "where I live"
    source = write_folder(tmp_path / "in", {"a.jpg": encoded(pixels(0), "JPEG", exif=exif)})
    prepare(source, dest)
    assert b"where I live" not in dest.read_bytes()


def test_notes_say_what_may_surprise(tmp_path: Path, dest: Path) -> None:
    files = {"cat/a.png": encoded(pixels(0, channels=4)), "dog/b.png": encoded(pixels(0, channels=4)[:, :6])}
    notes = prepare(write_folder(tmp_path / "in", files), dest, ImagePlan(resolution=(16, 16))).notes
    assert [note.split(";")[-1].strip() for note in notes] == [
        "2 images are smaller than the resolution and were enlarged",
        "--transform=center-crop crops",
        "--convert=rgb removes it",
        "--labels=folders makes them classes",
    ]


@pytest.mark.parametrize("plan", [
    {"resolution": (8, 16)}, {"resolution": (10, 10)}, {"resolution": (2, 2)}, {"resolution": (0, 0)},
    {"crop": "center-crop", "resolution": (16, 8)}, {"crop": "center-crop-wide"},
    {"crop": "center-crop-wide", "resolution": (8, 16)}, {"crop": "center-crop-wide", "resolution": (16, 0)},
    {"background": "nocolour"},
])
def test_plans_that_cannot_be(plan: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="--"):
        ImagePlan(**plan)


# Labels.

def labels_of(path: Path) -> Any:
    return read_zip(path)[1]["labels"]


def test_labels_follow_their_images(tmp_path: Path, dest: Path) -> None:
    labels = [["2.png", 7], ["0.png", 1], ["1.png", 0], ["3.png", 2], ["absent.png", 9]]
    files = FILES | {"dataset.json": json.dumps({"labels": labels}).encode()}
    source = write_folder(tmp_path / "in", files)
    assert prepare(source, dest).label_dim == 8
    assert labels_of(dest) == [[f"00000/img{i:08d}.png", label] for i, label in enumerate([1, 0, 7, 2])]
    assert ImageFolderDataset(dest, use_labels=True).get_label(2).argmax() == 7
    assert prepare(source, dest, labels="none", force=True).label_dim == 0
    assert labels_of(dest) is None


def test_folders_as_classes(tmp_path: Path, dest: Path) -> None:
    files = {f"{kind}/x/{name}": data for kind, names in [("dog", "01"), ("cat", "23")]
             for name, data in FILES.items() if name[0] in names}
    assert prepare(write_folder(tmp_path / "in", files), dest, labels="folders").label_dim == 2
    assert [label for _, label in labels_of(dest)] == [0, 0, 1, 1]
    assert read_zip(dest)[1]["sg3"]["classes"] == ["cat", "dog"]


def test_licence_and_classes_are_handed_on(tmp_path: Path, dest: Path) -> None:
    manifest = {"labels": [[name, 0] for name in FILES],
                "sg3": {"licence": "CC0", "attribution": "me", "classes": ["all"], "other": 1}}
    prepare(write_zip(tmp_path / "in.zip", FILES | {"dataset.json": json.dumps(manifest).encode()}), dest)
    record = read_zip(dest)[1]["sg3"]
    assert (record["licence"], record["attribution"], record["classes"]) == ("CC0", "me", ["all"])
    assert "other" not in record


@pytest.mark.parametrize("choice", ["folders", "json"])
def test_labels_asked_for_but_absent(source: Path, dest: Path, choice: Any) -> None:
    with pytest.raises(DataError, match="labels"):
        prepare(source, dest, labels=choice)


@pytest.mark.parametrize("choice", ["auto", "json", "folders"])
def test_image_without_label_is_never_silent(tmp_path: Path, dest: Path, choice: Any) -> None:
    files = {f"a/{name}": data for name, data in FILES.items()} | {"odd.png": FILES["0.png"]}
    labels = {"labels": [[f"a/{name}", 0] for name in FILES]}
    source = write_folder(tmp_path / "in", files | {"dataset.json": json.dumps(labels).encode()})
    with pytest.raises(UnusableImages, match=r"1 of 5 images cannot be used, first .*odd\.png: no label"):
        prepare(source, dest, labels=choice)
    assert prepare(source, dest, labels=choice, skip_unusable=True).num_images == 4


# Images that cannot be used: all are found before anything is written.

def offending(tmp_path: Path) -> Path:
    broken = bytearray(FILES["1.png"])
    broken[60] ^= 1
    return write_folder(tmp_path / "in", FILES | {
        "broken.png": bytes(broken),
        "cut.jpg": encoded(pixels(0, side=8), "JPEG")[:-200],
        "empty.png": b"",
        "gray.png": encoded(pixels(0, channels=1)),
        "large.png": encoded(pixels(0, side=16)),
        "odd.png": encoded(pixels(0, side=12)),
        "scan.tif": encoded(pixels(0), "TIFF"),
        "wide.png": encoded(pixels(0)[:4]),
    })


def test_every_offender_is_named(tmp_path: Path, dest: Path) -> None:
    source = offending(tmp_path)
    with pytest.raises(UnusableImages) as caught:
        prepare(source, dest)
    reasons = {Path(message.split(": ")[0]).name: message for message in caught.value.messages}
    assert sorted(reasons) == ["broken.png", "cut.jpg", "empty.png", "gray.png", "large.png", "odd.png",
                               "scan.tif", "wide.png"]
    assert "gray, most are RGB" in reasons["gray.png"]
    assert "16x16, most are 8x8" in reasons["large.png"]
    assert "12x12, the networks take powers of two" in reasons["odd.png"]
    assert "8x4, not square" in reasons["wide.png"]
    assert "not PNG, JPEG, WebP or BMP" in reasons["scan.tif"]
    text = str(caught.value)
    assert text.startswith("in: 8 of 12 images cannot be used, first ")
    assert "\n" not in text
    convert, resize = "--convert=rgb (or gray, rgba)", "--transform=center-crop --resolution=8x8"
    assert text.endswith(
        f"; {convert} would make 1 of them usable; {resize} would make 3 of them usable; "
        f"{resize} {convert} would make 4 of them usable; --on-error=skip leaves them out")
    assert files_below(tmp_path) == files_below(source.parent)
    assert not dest.exists()


@pytest.mark.parametrize(
    ("more", "advice"),
    [
        ({"broken.png": b""}, ["--on-error=skip leaves them out"]),  # no option mends a file
        ({"large.png": encoded(pixels(0, side=16))}, ["--resolution=8x8 would make 1 of them usable",
                                                      "--on-error=skip leaves them out"]),
        # Neither option alone helps.
        ({"gray.png": encoded(pixels(0, side=16, channels=1))}, [
            "--resolution=8x8 --convert=rgb (or gray, rgba) would make 1 of them usable",
            "--on-error=skip leaves them out"]),
    ],
)
def test_only_what_helps_is_advised(tmp_path: Path, dest: Path, more: dict[str, bytes], advice: list[str]) -> None:
    with pytest.raises(UnusableImages) as caught:
        prepare(write_folder(tmp_path / "in", FILES | more), dest)
    assert str(caught.value).partition(caught.value.messages[0])[2] == "".join(f"; {words}" for words in advice)


def test_offenders_can_be_left_out(tmp_path: Path, dest: Path) -> None:
    result = prepare(offending(tmp_path), dest, skip_unusable=True)
    assert (result.num_images, len(result.skipped)) == (4, 8)
    images, _ = read_zip(dest)
    assert list(images) == [f"00000/img{i:08d}.png" for i in range(4)]
    more = prepare(offending(tmp_path), dest, ImagePlan("center-crop", (8, 8), convert="rgb"),
                   skip_unusable=True, force=True)
    assert (more.num_images, len(more.skipped)) == (8, 4)


def test_nothing_usable_is_an_error_even_when_skipping(tmp_path: Path, dest: Path) -> None:
    source = write_folder(tmp_path / "in", {"a.png": b"", "b.png": b""})
    with pytest.raises(UnusableImages, match="2 of 2"):
        prepare(source, dest, skip_unusable=True)


@pytest.mark.parametrize("skip", [True, False])
def test_image_that_fails_only_when_decoded(
    source: Path, dest: Path, skip: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = prepare_module.decode_image

    def decode(data: bytes, where: str) -> Image.Image:
        if where.endswith("1.png"):
            raise DataError(f"{where}: broken")
        return real(data, where)

    monkeypatch.setattr(prepare_module, "decode_image", decode)
    if skip:
        result = prepare(source, dest, skip_unusable=True)
        assert (result.num_images, result.skipped) == (3, [f"{source}/1.png: broken"])
        np.testing.assert_array_equal(read_zip(dest)[0]["00000/img00000001.png"], pixels(2))
    else:
        with pytest.raises(DataError, match=r"1\.png: broken"):
            prepare(source, dest)
        assert not dest.exists()


# All or nothing.

@pytest.mark.parametrize("name", ["out.zip", "new/deep/out.zip", "out", "new/deep/out"])
@pytest.mark.parametrize(("error", "expected"), [
    (KeyboardInterrupt(), KeyboardInterrupt),
    (OSError(errno.ENOSPC, "No space left on device"), StorageError),
])
def test_interrupted_writing_leaves_nothing(
    tmp_path: Path, source: Path, name: str, error: BaseException, expected: type[BaseException]
) -> None:
    def fail(what: str, done: int, _total: int) -> None:
        if (what, done) == ("writing", 3):
            raise error

    before = files_below(tmp_path)
    with pytest.raises(expected):
        prepare(source, tmp_path / name, progress=fail)
    assert files_below(tmp_path) == before


@pytest.mark.filterwarnings("error")
def test_interrupted_in_the_middle_of_an_entry(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def half_written(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, data: bytes) -> None:
        archive.open(entry, "w").write(data[:10])
        raise KeyboardInterrupt

    monkeypatch.setattr(zipfile.ZipFile, "writestr", half_written)
    before = files_below(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        prepare(source, tmp_path / "out.zip")
    assert files_below(tmp_path) == before


def test_interrupted_replacement_keeps_the_old_one(source: Path, dest: Path) -> None:
    def fail(what: str, _done: int, _total: int) -> None:
        if what == "writing":
            raise KeyboardInterrupt

    prepare(source, dest, max_images=1)
    old = dest.read_bytes()
    with pytest.raises(KeyboardInterrupt):
        prepare(source, dest, force=True, progress=fail)
    assert dest.read_bytes() == old


def test_existing_destinations(tmp_path: Path, source: Path, dest: Path) -> None:
    prepare(source, dest, max_images=1)
    with pytest.raises(UsageError, match="--force"):
        prepare(source, dest)
    assert prepare(source, dest, force=True).num_images == 4
    assert len(read_zip(dest)[0]) == 4

    folder = tmp_path / "out"
    prepare(source, folder, max_images=1)
    with pytest.raises(UsageError, match="--force"):
        prepare(source, folder)
    prepare(source, folder, force=True)
    assert len(ImageFolderDataset(folder)) == 4
    (folder / "thesis.txt").write_text("x")
    with pytest.raises(UsageError, match="holds something else"):
        prepare(source, folder, force=True)
    with pytest.raises(UsageError, match="is no folder"):
        prepare(source, folder / "thesis.txt", force=True)
    assert sorted(os.listdir(tmp_path)) == ["in", "out", "out.zip"]


def test_destination_inside_the_source(source: Path) -> None:
    with pytest.raises(UsageError, match="inside the source"):
        prepare(source, source / "out")
    assert prepare(source, source / "out.zip").num_images == 4


def test_order_is_kept_across_threads() -> None:
    assert list(scan_module.ordered_map(lambda i: i * i, iter(range(50)))) == [i * i for i in range(50)]


def test_the_first_of_several_images_in_a_file_is_used_and_said(tmp_path: Path, dest: Path) -> None:
    first, second = (Image.fromarray(pixels(seed)) for seed in (0, 1))
    several = {"save_all": True, "append_images": [second]}
    source = write_folder(tmp_path / "in", {
        "a.png": encoded(pixels(2)), "b.png": encoded(first, "PNG", **several),
        "c.webp": encoded(first, "WEBP", lossless=True, **several),
    })  # fmt: skip
    made = prepare(source, dest)
    assert [note for note in made.notes if "more than one" in note] == [
        "2 files hold more than one image (animations, for example); the first of each is used"]  # fmt: skip
    data = ImageFolderDataset(dest)
    for item in (1, 2):
        assert np.array_equal(data[item][0].transpose(1, 2, 0), pixels(0))
