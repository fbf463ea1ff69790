"""Images from anywhere -> a dataset: equal images of a size that networks have, in a zip or folder.

Two passes. The first (`scan`) looks at every image and collects whatever cannot be used, so that nothing is
written until all is known to fit. The second decodes, transforms and writes.
"""

from __future__ import annotations

import contextlib
import io
import json
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import PIL
from PIL import Image

from sg3._version import __version__
from sg3.canvas import is_plain
from sg3.data.dataset_json import Label, in_array, notes_on
from sg3.data.decode import CHANNELS, Mode, decode_image
from sg3.data.image_files import LABELS_FILE
from sg3.data.scan import Found, Progress, ReadResult, UnusableImages, ordered_map, read_all, scan
from sg3.data.sources import Source, open_source
from sg3.data.transforms import ImagePlan, Size, nearest_side
from sg3.data.writer import AddFile, check_destination, new_dataset
from sg3.errors import DataError, UsageError

LabelChoice = Literal["auto", "folders", "json", "none"]


@dataclass(frozen=True)
class Prepared:
    """What was written. skipped: a message for each image left out. notes: what the user may want to know."""

    path: Path
    num_images: int
    resolution: int  # of rectangles the longer side
    channels: int
    label_dim: int
    skipped: list[str]
    notes: list[str]
    width: int
    height: int


@dataclass(frozen=True)
class Labelling:
    """Labels by key, None for a set without; names of the classes, if known."""

    labels: dict[str, Label] | None = None
    classes: list[str] | None = None


@dataclass(frozen=True)
class Target:
    """What every image of the result is: its width and height in pixels, and its mode."""

    size: Size
    mode: Mode


def prepare(
    source: str | Path,
    dest: str | Path,
    plan: ImagePlan | None = None,
    labels: LabelChoice = "auto",
    max_images: int | None = None,
    skip_unusable: bool = False,
    force: bool = False,
    progress: Progress = lambda _what, _done, _total: None,
) -> Prepared:
    """Write the images of `source` (see `sg3.data.sources`) to `dest`, a .zip or an empty or new folder.

    labels: "json" takes those stored with the source, "folders" makes the first-level folders classes,
    "auto" takes stored ones if there are any. max_images: use only the first so many. skip_unusable: leave
    out what cannot be used instead of raising. force: replace an existing dataset.

    Raises UnusableImages and other DataErrors, MissingInputError, UsageError, StorageError; nothing is written
    then.
    """
    plan, dest = plan or ImagePlan(), Path(dest)
    check_destination(dest, force)
    _check_not_inside(Path(source), dest)
    wanted = plan.output_size(*plan.resolution) if plan.resolution else None
    opened = open_source(source, wanted, with_labels=labels in ("auto", "json"))
    # Pillow's own warning comes at another size than our limit, which is an error naming the file.
    quiet = warnings.catch_warnings(action="ignore", category=Image.DecompressionBombWarning)
    with contextlib.closing(opened), quiet:
        keys = opened.keys[:max_images]
        labelling = _choose_labels(opened, labels)
        others = set(labelling.labels or ()).difference(opened.keys)
        usable, offenders = scan(opened, keys, plan, labelling.labels, min(others, default=""), progress)
        if not usable or (offenders and not skip_unusable):
            raise UnusableImages(opened, usable, offenders, plan)
        header = usable[0].header
        target = Target(plan.output_size(header.width, header.height), plan.output_mode(header.mode))
        with new_dataset(dest, force) as add:
            written, failed = _write_images(add, opened, usable, plan, target, skip_unusable, progress)
            skipped = [offender.message for offender in offenders] + failed
            kept = _labels_of(written, labelling)
            manifest = {
                "labels": None if kept is None else [[image_name(i), label] for i, label in enumerate(kept)],
                "sg3": _record(opened, usable, plan, target, labelling) | {"num_images": len(written)},
            }
            add(LABELS_FILE, json.dumps(manifest).encode())
    notes = [*_notes(opened, usable, plan, target, labelling), *_notes_on_labels(kept, len(others)),
             *opened.unused.lines()]
    return Prepared(dest, len(written), max(target.size), CHANNELS[target.mode], _label_dim(kept), skipped, notes,
                    *target.size)


def prepare_openmoji(
    dest: str | Path,
    resolution: int = 64,
    subset: str = "faces",
    ground: str = "",
    force: bool = False,
    progress: Progress = lambda _what, _done, _total: None,
) -> Prepared:
    """Write a subset of OpenMoji's emoji as a dataset zip, without labels and with the attribution.

    On a light background unless `ground` is "white" or "alpha".

    Raises as `prepare` does.
    """
    plan = ImagePlan(resolution=(resolution, resolution))
    source = ":".join(filter(None, ["openmoji", subset, ground]))
    return prepare(source, dest, plan, labels="none", force=force, progress=progress)


def image_name(index: int) -> str:
    """Name of the index-th image in a dataset; a thousand to a folder."""
    return f"{index // 1000:05d}/img{index:08d}.png"


def _check_not_inside(source: Path, dest: Path) -> None:
    if dest.suffix.lower() != ".zip" and source.is_dir() and dest.resolve().is_relative_to(source.resolve()):
        raise UsageError(f"--dest={dest}: inside the source, whose images it would join; "
                         "name another folder or a .zip")


def _choose_labels(source: Source, choice: LabelChoice) -> Labelling:
    if choice == "none":
        return Labelling()
    if choice == "folders":
        return _labels_from_folders(source)
    if source.labels is None:
        if choice == "json":
            raise DataError(f"{source.name}: no labels stored with it; use --labels=folders or none")
        return Labelling()
    return Labelling(source.labels, source.facts.get("classes"))


def _labels_from_folders(source: Source) -> Labelling:
    folders = {key: key.split("/", 1)[0] for key in source.keys if source.has_paths and "/" in key}
    if not folders and source.shared:
        folders = dict.fromkeys(source.keys, source.shared.rstrip("/").rpartition("/")[2])
    if not folders:
        raise DataError(f"{source.name}: no subfolders to take labels from; use --labels=json or none")
    classes = sorted(set(folders.values()))
    numbers = {folder: number for number, folder in enumerate(classes)}
    return Labelling({key: numbers[folder] for key, folder in folders.items()}, classes)


def _write_images(
    add: AddFile, source: Source, usable: list[Found], plan: ImagePlan, target: Target, skip: bool,
    progress: Progress
) -> tuple[list[str], list[str]]:
    """Write the images. Returns the keys written, and messages for images that failed only now, if `skip`."""
    def encode(item: tuple[str, ReadResult]) -> bytes | DataError:
        try:
            return _encode(source, *item, plan, target)
        except DataError as error:
            return error

    written: list[str] = []
    failed: list[str] = []
    keys = [found.key for found in usable]
    pixels = target.size[0] * target.size[1]
    sizes = {found.key: max(found.header.width * found.header.height, pixels) for found in usable}
    results = zip(keys, ordered_map(encode, read_all(source, keys), lambda item: sizes[item[0]]), strict=True)
    for count, (key, result) in enumerate(results, start=1):
        if isinstance(result, bytes):
            add(image_name(len(written)), result)
            written.append(key)
        elif skip:
            failed.append(str(result))
        else:
            raise result
        progress("writing", count, len(keys))
    if not written:
        raise DataError(f"{source.name}: none of the images can be used; first {failed[0]}")
    return written, failed


def _encode(source: Source, key: str, payload: ReadResult, plan: ImagePlan, target: Target) -> bytes:
    """One image of the source -> PNG, uncompressed, which decodes several times faster."""
    if isinstance(payload, DataError):
        raise payload
    where = source.where(key)
    # In one go, so that nobody holds on to the image as it was.
    image = plan.apply(decode_image(payload, where) if isinstance(payload, bytes) else Image.fromarray(payload))
    if image.size != target.size or image.mode != target.mode:
        raise DataError(f"{where}: changed while it was being read; start again")
    file = io.BytesIO()
    # Written from the bare pixels: nothing of the original's metadata goes along.
    Image.frombytes(image.mode, image.size, image.tobytes()).save(file, "PNG", compress_level=0)
    return file.getvalue()


def _labels_of(keys: list[str], labelling: Labelling) -> list[Label] | None:
    return None if labelling.labels is None else [labelling.labels[key] for key in keys]


def _label_dim(labels: list[Label] | None) -> int:
    if labels is None:
        return 0
    return max(len(label) if isinstance(label, list) else label + 1 for label in labels)


def _notes_on_labels(labels: list[Label] | None, others: int) -> list[str]:
    if labels is None:
        return []
    notes = notes_on(in_array(labels))
    return [*notes, f"{others} labels are for names that are no image's"] if others else notes


def _record(
    source: Source, usable: list[Found], plan: ImagePlan, target: Target, labelling: Labelling
) -> dict[str, Any]:
    """How the dataset was made, for dataset.json; no dates or paths: equal input gives equal files."""
    facts = {key: value for key, value in source.facts.items() if key != "classes"}
    if labelling.classes:
        facts["classes"] = labelling.classes
    scaled = plan.resolution is not None and any(
        (found.header.width, found.header.height) != plan.resolution for found in usable)
    return {
        "version": __version__,
        "source": source.name,
        "resolution": target.size[0] if target.size[0] == target.size[1] else list(target.size),
        "channels": CHANNELS[target.mode],
        "transform": plan.crop,
        "scaled_to": plan.resolution,
        "resize_filter": plan.resize_filter if scaled else None,
        "resize_library": f"Pillow {PIL.__version__}" if scaled else None,
        "convert": plan.convert,
        "background": plan.background,
        **facts,
    }


def _notes(
    source: Source, usable: list[Found], plan: ImagePlan, target: Target, labelling: Labelling
) -> list[str]:
    notes: list[str] = []
    sizes = [(found.header.width, found.header.height) for found in usable]
    enlarged = sum(plan.enlarges(*size) for size in sizes)
    if enlarged:
        notes.append(f"{enlarged} images are smaller than the resolution and were enlarged")
    several = sum(found.header.frames > 1 for found in usable)
    if several:
        notes.append(f"{several} files hold more than one image (animations, for example); the first of each is used")
    width, height = target.size
    stretched = sum(w * height != h * width for w, h in sizes) if plan.crop is None else 0
    if stretched:
        shape = "not square" if width == height else f"not {width}:{height}"
        notes.append(f"{stretched} images are {shape} and were stretched; --transform=center-crop crops")
    if width != height:
        notes.append("images that are not square are for --cfg=stylegan2, stylegan3-t and stylegan3-r")
    elif not is_plain((height, width)):
        side = nearest_side(width)
        notes.append(f"squares of {width} pixels are for --cfg=stylegan2, stylegan3-t and stylegan3-r; "
                     f"--resolution={side}x{side} makes what every system and the official tools take")
    if target.mode.endswith("A"):
        opaque = "gray" if target.mode == "LA" else "rgb"
        notes.append(f"the images have alpha, and networks will make it, too; --convert={opaque} removes it")
    folders = {found.key.split("/", 1)[0] for found in usable if source.has_paths and "/" in found.key}
    if labelling.labels is None and len(folders) > 1 and not all(folder.isdigit() for folder in folders):
        notes.append(f"{len(folders)} subfolders; --labels=folders makes them classes")
    return notes
