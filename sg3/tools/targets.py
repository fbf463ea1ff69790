"""Images from outside as the pictures a generator could make: the targets of projection."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from sg3 import limits
from sg3.canvas import Size
from sg3.data.decode import decode_image
from sg3.data.image_files import open_images, refuse_other_formats
from sg3.data.transforms import Convert, Crop, ImagePlan
from sg3.errors import DataError, StorageError
from sg3.named_paths import nothing_at
from sg3.plain_files import refuse_special
from sg3.tools.files import Pixels

CONVERT: dict[int, Convert] = {1: "gray", 2: "la", 3: "rgb", 4: "rgba"}


@dataclass(frozen=True)
class Target:
    """An image to be read. `name` is unique among those opened together, without suffix if it is so anyway; `where`
    is for messages; `read()` gives the encoded image and may raise DataError and StorageError."""

    name: str
    where: str
    read: Callable[[], bytes]

    def pixels(self, size: int | Size, channels: int, visible: Size | None = None) -> Pixels:
        """uint8 [H, W, C], squares of a side or of a height and width: the largest centred window of that
        shape, scaled by Lanczos. Alpha is laid on white if C is 1 or 3; if it is 2 or 4, images without are opaque.
        `visible`: a window of this shape between black bars, as `sg3 dataset --transform=center-crop-wide` makes.

        Raises DataError if it is not an image.
        """
        height, width = (size, size) if isinstance(size, int) else size
        crop: Crop = "center-crop"
        if visible is not None and visible[0] < height == width == visible[1]:
            crop, height = "center-crop-wide", visible[0]
        plan = ImagePlan(crop=crop, resolution=(width, height), convert=CONVERT.get(channels, "rgb"))
        pixels = np.asarray(plan.apply(decode_image(self.read(), self.where)))
        return pixels if pixels.ndim == 3 else pixels[:, :, np.newaxis]


def open_targets(path: Path) -> list[Target]:
    """An image file, or the images of a folder or zip. Raises MissingInputError, DataError, StorageError."""
    if not path.exists():
        raise nothing_at(path, name="--target")
    refuse_special(path, f"--target={path}")
    if not is_collection(path):
        return [Target(path.stem, str(path), partial(_read, path))]
    files = open_images(path)
    refuse_other_formats(files)
    names = files.names
    stems = [Path(name).with_suffix("").as_posix() for name in names]
    return [
        Target(
            stem if stems.count(stem) == 1 else name, files.where(name), partial(files.read, name, limits.IMAGE_BYTES)
        )
        for name, stem in zip(names, stems, strict=True)
    ]


def is_collection(path: Path) -> bool:
    """Whether a path is opened as a folder or zip of images."""
    return path.is_dir() or path.suffix.lower() == ".zip"


def _read(path: Path) -> bytes:
    try:
        if path.stat().st_size > limits.IMAGE_BYTES:
            raise DataError(f"{path}: too large for an image; replace it")
        return path.read_bytes()
    except OSError as error:
        raise StorageError(f"{path}: {error.strerror or error}") from error
