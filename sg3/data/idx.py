"""IDX, the file format of MNIST and its relatives (Fashion-MNIST, EMNIST): a header and bytes, often gzipped."""

from __future__ import annotations

import struct
from math import prod
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from sg3 import limits
from sg3.errors import DataError, MissingInputError
from sg3.limits import Inflated, Plain


class IdxImages:
    """The images of an `...-images-idx3-ubyte[.gz]`, uint8 [H, W]; 28x28 ones are padded with zeros to 32x32.

    They are read when they are asked for, best in ascending order: a gzipped file has to be decompressed up to them.
    Raises DataError, here and in `read`.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file, self._stream, (self.count, self._height, self._width) = _open(path, dimensions=3)
        self._next = 0
        self._border = 2 if (self._height, self._width) == (28, 28) else 0
        self.height, self.width = self._height + 2 * self._border, self._width + 2 * self._border

    def read(self, index: int) -> NDArray[np.uint8]:
        """One image."""
        size = self._height * self._width
        try:
            if index < self._next:
                self.close()
                self._file, self._stream, _ = _open(self._path, dimensions=3)
                self._next = 0
            self._stream.skip((index - self._next) * size)
            data = self._stream.read(size)
        except ValueError as error:
            raise DataError(f"{self._path}: not a whole IDX file ({error}); download it again") from error
        self._next = index + 1
        if len(data) < size:
            raise DataError(f"{self._path}: cut short at image {index} of {self.count}; download it again")
        return np.pad(np.frombuffer(data, dtype=np.uint8).reshape(self._height, self._width), self._border)

    def close(self) -> None:
        """Close the file; `read` may open it again."""
        self._file.close()


def read_labels(images: Path, count: int) -> list[int]:
    """The labels of so many images, from the `...-labels-idx1-ubyte[.gz]` beside them.

    Raises MissingInputError if there is no such file, DataError.
    """
    path = images.with_name(images.name.replace("images-idx3", "labels-idx1"))
    if not path.is_file():
        raise MissingInputError(f"{path}: no such file; put it beside the images, or use --labels=none")
    file, stream, (found,) = _open(path, dimensions=1)
    with file:
        if found != count:
            raise DataError(f"{path}: {found} labels for {count} images; download both again")
        try:
            labels = stream.read(found)
        except ValueError as error:
            raise DataError(f"{path}: not a whole IDX file ({error}); download it again") from error
    if len(labels) < count:
        raise DataError(f"{path}: cut short, {len(labels)} of {count} bytes; download it again")
    return list(labels)


def _open(path: Path, dimensions: int) -> tuple[BinaryIO, Inflated | Plain, tuple[int, ...]]:
    """The file, what comes after its header, and the sizes that the header has."""
    file = path.open("rb")
    try:
        stream = Inflated(file, limits.IDX) if path.suffix == ".gz" else Plain(file)
        magic, *sizes = struct.unpack(f">I{dimensions}I", stream.read(4 + 4 * dimensions))
        count, *sides = sizes
        fits = 0 < count <= limits.IDX_IMAGES and all(0 < side <= limits.RESOLUTION for side in sides)
        if magic != 0x800 + dimensions or not fits:
            raise DataError(f"{path}: not an IDX file of bytes in {dimensions} dimensions; download it again")
        if path.suffix != ".gz" and (left := path.stat().st_size - file.tell()) < prod(sizes):
            raise DataError(f"{path}: cut short, {left} of {prod(sizes)} bytes; download it again")
        return file, stream, tuple(sizes)
    except (ValueError, struct.error) as error:
        file.close()
        raise DataError(f"{path}: not a whole IDX file ({error}); download it again") from error
    except BaseException:
        file.close()
        raise
