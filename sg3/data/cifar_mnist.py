"""Two classic data sets in their original files: CIFAR-10's archive, MNIST's (and Fashion-MNIST's) IDX."""

from __future__ import annotations

import gzip
import io
import pickle
import struct
import tarfile
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sg3.errors import DataError, MissingInputError

MAX_MEMBER_BYTES = 64 << 20  # a CIFAR-10 batch has 31 MB
MAX_IDX_BYTES = 1 << 30      # the MNIST training set has 47 MB

_CIFAR_BATCHES = [f"cifar-10-batches-py/data_batch_{number}" for number in range(1, 6)]
_CIFAR_META = "cifar-10-batches-py/batches.meta"


class LabelledImages(NamedTuple):
    """images: uint8 [N, H, W, C] or [N, H, W]; labels: N class indices; classes: their names, if known."""

    images: NDArray[np.uint8]
    labels: list[int]
    classes: list[str] | None


def read_cifar10(path: Path) -> LabelledImages:
    """The 50,000 training images, [N, 32, 32, 3], from cifar-10-python.tar.gz. Raises DataError."""
    batches: dict[str, Any] = {}
    try:
        with tarfile.open(path, "r:gz") as archive:
            for member in archive:  # read in place, never extracted
                if member.size > MAX_MEMBER_BYTES:
                    raise DataError(f"{path}: {member.name} has {member.size} bytes, too many for CIFAR-10; "
                                    "download it again")
                file = archive.extractfile(member) if member.isfile() else None
                if file is not None and member.name in (*_CIFAR_BATCHES, _CIFAR_META):
                    batches[member.name] = _unpickle(file.read(), f"{path}: {member.name}")
    except (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError, ValueError) as error:
        raise DataError(f"{path}: not a whole .tar.gz ({error}); download it again") from error
    parts = [_cifar_batch(batches.get(name), f"{path}: {name}") for name in _CIFAR_BATCHES]
    classes = _text_list(_items(batches.get(_CIFAR_META)).get("label_names"))
    return LabelledImages(
        images=np.concatenate([images for images, _ in parts]),
        labels=[label for _, labels in parts for label in labels],
        classes=classes,
    )


def _cifar_batch(batch: Any, where: str) -> tuple[NDArray[np.uint8], list[int]]:
    items = _items(batch)
    pixels = _pixels(items.get("data"))
    labels: Any = items.get("labels")
    if pixels is None or pixels.ndim != 2 or pixels.shape[1] != 3 * 32 * 32:
        raise DataError(f"{where}: missing, or not 32x32 RGB images; download the archive again")
    known = isinstance(labels, list) and all(isinstance(label, int) and 0 <= label < 10 for label in labels)
    if not known or len(labels) != len(pixels):
        raise DataError(f"{where}: not one label of 0..9 for each image; download the archive again")
    return pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), labels


class _Recorded:
    """Stands for everything the pickle names. Calling or filling it notes the values and does nothing."""

    def __init__(self, *args: Any) -> None:
        self.args = args
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _InertUnpickler(pickle._Unpickler):
    """Builds plain values and `_Recorded`; nothing a pickle names is ever imported or called.

    The Python implementation, because its memo is a dict: a huge slot number costs nothing.
    """

    _names = frozenset({
        ("numpy", "ndarray"), ("numpy", "dtype"), ("_codecs", "encode"),
        ("numpy.core.multiarray", "_reconstruct"), ("numpy._core.multiarray", "_reconstruct"),
    })

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self._names:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which image arrays do not need")
        return _Recorded


def _unpickle(data: bytes, where: str) -> Any:
    try:
        return _InertUnpickler(io.BytesIO(data), encoding="bytes").load()
    except Exception as error:  # the pickle machine raises nearly every type on broken input
        raise DataError(f"{where}: refused, nothing in it was run ({error}); "
                        "download the archive again") from error


def _items(batch: Any) -> dict[str, Any]:
    """A dict with text keys; Python 2 wrote them as bytes."""
    if not isinstance(batch, dict):
        return {}
    return {key.decode("latin1") if isinstance(key, bytes) else key: value for key, value in batch.items()}


def _pixels(array: Any) -> NDArray[np.uint8] | None:
    """The uint8 array that a recorded numpy.ndarray describes; None if it does not describe one."""
    if not isinstance(array, _Recorded) or not isinstance(array.state, tuple) or len(array.state) != 5:
        return None
    _, shape, dtype, fortran_order, raw = array.state
    if isinstance(raw, _Recorded) and raw.args and isinstance(raw.args[0], str):
        raw = raw.args[0].encode("latin1", errors="replace")  # protocol 2 writes bytes as encode(text, "latin1")
    is_uint8 = isinstance(dtype, _Recorded) and dtype.args[:1] in (("u1",), (b"u1",))
    if not is_uint8 or not isinstance(raw, bytes) or not isinstance(shape, tuple):
        return None
    try:
        return np.frombuffer(raw, dtype=np.uint8).reshape(shape, order="F" if fortran_order else "C")
    except (ValueError, TypeError, OverflowError):
        return None


def _text_list(values: Any) -> list[str] | None:
    if not isinstance(values, list) or not all(isinstance(value, str | bytes) for value in values):
        return None
    return [value.decode("latin1") if isinstance(value, bytes) else value for value in values]


def read_idx(path: Path, with_labels: bool = True) -> LabelledImages:
    """Images [N, H, W] of an `...-images-idx3-ubyte[.gz]`, labels of the `...-labels-idx1-ubyte` beside it.

    28x28 images are padded with zeros to 32x32. Without `with_labels`, labels is empty. Raises DataError,
    MissingInputError (no labels file).
    """
    images = _read_idx_array(path, dimensions=3)
    if images.shape[1:] == (28, 28):
        images = np.pad(images, ((0, 0), (2, 2), (2, 2)))
    if not with_labels:
        return LabelledImages(images, [], None)
    labels_path = path.with_name(path.name.replace("images-idx3", "labels-idx1"))
    if not labels_path.is_file():
        raise MissingInputError(f"{labels_path}: no such file; put it beside the images, "
                                "or use --labels=none")
    labels = _read_idx_array(labels_path, dimensions=1)
    if len(labels) != len(images):
        raise DataError(f"{labels_path}: {len(labels)} labels for {len(images)} images; download both again")
    return LabelledImages(images, [int(label) for label in labels], None)


def _read_idx_array(path: Path, dimensions: int) -> NDArray[np.uint8]:
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            magic, *shape = struct.unpack(f">I{dimensions}I", file.read(4 + 4 * dimensions))
            count = int(np.prod([int(size) for size in shape], dtype=object))
            if magic != 0x800 + dimensions or not 0 < count <= MAX_IDX_BYTES:
                raise DataError(f"{path}: not an IDX file of bytes in {dimensions} dimensions; "
                                "download it again")
            data = file.read(count)
    except (gzip.BadGzipFile, zlib.error, EOFError, struct.error) as error:
        raise DataError(f"{path}: not a whole IDX file ({error}); download it again") from error
    if len(data) != count:
        raise DataError(f"{path}: cut short, {len(data)} of {count} bytes; download it again")
    return np.frombuffer(data, dtype=np.uint8).reshape(shape)
