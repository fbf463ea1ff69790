"""What the picture tools write and read: folders, PNGs that carry their settings, sheets of pictures, arrays."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from math import ceil
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, PngImagePlugin

from sg3 import limits
from sg3.atomic import write_atomic
from sg3.canvas import Size, middle
from sg3.errors import DataError, MissingInputError, Sg3Error, StorageError, UsageError
from sg3.plain_files import refuse_special
from sg3.terminal import clean, printable
from sg3.transparency import RULE, has_alpha, opaque

CAPTION = 14  # pixels above a picture
READABLE = 96  # pixels that a caption takes
MOST_OF_A_SHEET = 2**27  # pixels; about what viewers and Pillow open without protest
Pixels = NDArray[np.uint8]  # [H, W, C], C = 1 or 3, or with straight alpha 2 or 4


def make_folder(folder: Path) -> None:
    """Make the folder and its parents, unless it is there. Raises StorageError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"{folder}: this folder cannot be made: {error.strerror}") from error


def without_bars(pixels: Pixels, visible: Size | None) -> Pixels:
    """The middle, of height and width `visible`, of [H, W, C]; all of it for None or if it is no larger."""
    if visible is None:
        return pixels
    rows, columns = middle((pixels.shape[0], pixels.shape[1]), visible)
    return pixels[rows, columns]


def save_png(path: Path, pixels: Pixels, settings: Mapping[str, object]) -> None:
    """Write pixels [H, W, C] as a PNG whose text field `sg3` holds the settings as JSON, and for those with alpha how
    it was made. Raises StorageError."""
    if has_alpha(pixels.shape[2]):
        settings = {**settings, "alpha": RULE}
    write_png(path, pixels, json.dumps(settings))


def write_png(path: Path, pixels: Pixels, comment: str) -> None:
    """Write pixels [H, W, C] as a PNG with a text field `sg3`, unless the comment is empty. Raises StorageError."""
    info = PngImagePlugin.PngInfo()
    if comment:
        info.add_text("sg3", comment)
    picture = Image.fromarray(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels)
    write_atomic(path, lambda file: picture.save(file, format="PNG", pnginfo=info))


def save_arrays(path: Path, arrays: Mapping[str, NDArray[np.generic]]) -> None:
    """Write named arrays as an .npz file. Raises StorageError."""
    # By keyword, as numpy wants it: a name may be anything but `file`.
    write_atomic(path, lambda file: np.savez(file, **dict(arrays)))  # type: ignore[arg-type]


def load_arrays(path: Path) -> dict[str, NDArray[np.generic]]:
    """The named arrays of an .npz file. Raises MissingInputError, StorageError, and DataError if it is damaged, holds
    anything but numbers and text, or more than limits.ARRAYS bytes."""
    with _failures(path, "no .npz file of plain arrays"):
        with limits.open_zip(path, limits.ARRAY_ENTRIES, str(path)) as archive:
            _check_bytes(sum(entry.file_size for entry in archive.infolist()), path)
            for entry in archive.infolist():
                with archive.open(entry) as member:
                    _check_header(member, f"{path}: {printable(entry.filename.removesuffix('.npy'))}")
        with np.load(path, allow_pickle=False) as file:
            return {name: np.asarray(file[name]) for name in file.files}


def load_array(path: Path) -> NDArray[np.generic]:
    """The array of an .npy file. Raises as `load_arrays` does."""
    with _failures(path, "no .npy file of plain numbers"):
        _check_bytes(path.stat().st_size, path)
        with path.open("rb") as file:
            _check_header(file, str(path))
        array: NDArray[np.generic] = np.load(path, mmap_mode="r", allow_pickle=False)  # no more than there is
        return np.array(array)


def _check_header(file: IO[bytes], where: str) -> None:
    """Raise DataError for an .npy file of Python objects, ValueError for none at all."""
    version = np.lib.format.read_magic(file)
    header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    _, _, dtype = header(file)
    if dtype.hasobject:
        raise DataError(f"{where}: holds pickled Python objects, which reading would execute; if you trust it, save "
                        "the array in it: numpy.save(NEW, numpy.load(OLD, allow_pickle=True).item()[NAME])")


def _check_bytes(count: int, path: Path) -> None:
    if count > limits.ARRAYS:
        raise DataError(f"{path}: holds more than {limits.ARRAYS >> 20} MiB of arrays; not loaded")


@contextmanager
def _failures(path: Path, kind: str) -> Iterator[None]:
    refuse_special(path)
    try:
        yield
    except FileNotFoundError:
        raise MissingInputError(f"{path}: there is no such file") from None
    except OSError as error:
        raise StorageError(f"{path}: cannot be read: {error.strerror or error}") from error
    except Sg3Error:
        raise
    except Exception:  # numpy, which parses headers as Python, raises nearly every type
        # What numpy says is not for the reader: among others, it recommends to execute the file.
        raise DataError(f"{path}: is damaged or {kind}") from None


def sheet(
    rows: Sequence[Sequence[Pixels | None]],
    captions: Sequence[Sequence[str]] | None = None,
    scale: int | None = None,
) -> Pixels:
    """Put pictures of one size side by side, row by row; None leaves its place black. Those with alpha lie over a
    checkerboard.

    `captions`, one for each place, are written above the pictures. Each is enlarged by the whole factor `scale`, by
    default 1, or with captions the smallest that makes it READABLE pixels wide and as wide as any of them. Raises
    UsageError for a sheet that would be enlarged to more than MOST_OF_A_SHEET pixels.
    """
    shape = next(picture.shape for row in rows for picture in row if picture is not None)
    if scale is None:
        scale = 1 if captions is None else ceil(max(READABLE, *map(_width, chain(*captions))) / shape[1])
    height = shape[0] * scale + (CAPTION if captions is not None else 0)
    width = max(len(row) for row in rows) * shape[1] * scale
    if scale > 1 and len(rows) * height * width > MOST_OF_A_SHEET:
        raise UsageError(f"--scale={scale}: the sheet would have more than {MOST_OF_A_SHEET >> 20} Mi pixels")
    black = np.zeros_like(opaque(np.zeros(shape, dtype=np.uint8).repeat(scale, axis=0).repeat(scale, axis=1)))
    lines = []
    for number, row in enumerate(rows):
        pictures = [
            black if picture is None else opaque(picture.repeat(scale, axis=0).repeat(scale, axis=1)) for picture in row
        ]
        if captions is not None:
            heads = [_caption(text, pictures[0].shape) for text in captions[number]]
            pictures = [np.concatenate(pair, axis=0) for pair in zip(heads, pictures, strict=True)]
        lines.append(np.concatenate(pictures, axis=1))
    return np.concatenate(lines, axis=0)


def seed_caption(seed: int, class_idx: int | None) -> str:
    """What a picture of a seed is of; the class is None for networks without classes."""
    return with_class(f"seed {seed}", class_idx)


def with_class(text: str, class_idx: int | None) -> str:
    """What a picture is of, and its class, if it has one."""
    return text if class_idx is None else f"{text}, class {class_idx}"


def _width(text: str) -> int:
    """Pixels that a caption takes, with the two before it."""
    return ceil(2 + ImageDraw.Draw(Image.new("L", (1, 1))).textlength(clean(text)))


def _caption(text: str, shape: tuple[int, ...]) -> Pixels:
    """White text on black, as wide as a picture [H, W, 1 or 3] and with its channels."""
    strip = Image.new("L", (shape[1], CAPTION))
    ImageDraw.Draw(strip).text((2, 1), clean(text), fill=255)
    return np.asarray(strip)[:, :, None].repeat(shape[2], axis=2)
