"""CIFAR-10 in its original file, cifar-10-python.tar.gz: a tar archive of pickles, none of which is ever run.

The archive is read as it is decompressed, and of its headers only what plain members have: name, size, kind.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sg3 import limits
from sg3.errors import DataError
from sg3.limits import Inflated
from sg3.pickle_scan import BoundedReader, scan
from sg3.pickle_size import check_unfolded

_BATCHES = [f"cifar-10-batches-py/data_batch_{number}" for number in range(1, 6)]
_META = "cifar-10-batches-py/batches.meta"
_BLOCK = 512  # bytes of a header; contents are padded to a multiple


class LabelledImages(NamedTuple):
    """images: uint8 [N, H, W, C]; labels: N class indices; classes: their names, if known."""

    images: NDArray[np.uint8]
    labels: list[int]
    classes: list[str] | None


def read_cifar10(path: Path) -> LabelledImages:
    """The 50,000 training images, [N, 32, 32, 3], from cifar-10-python.tar.gz. Raises DataError."""
    batches: dict[str, Any] = {}
    try:
        with path.open("rb") as file:
            for name, data in _members(Inflated(file, limits.CIFAR), frozenset({*_BATCHES, _META})):
                batches[name] = _unpickle(data, f"{path}: {name}")
    except ValueError as error:
        raise DataError(f"{path}: not a whole .tar.gz ({error}); download it again") from error
    parts = [_batch(batches.get(name), f"{path}: {name}") for name in _BATCHES]
    return LabelledImages(
        images=np.concatenate([images for images, _ in parts]),
        labels=[label for _, labels in parts for label in labels],
        classes=_text_list(_items(batches.get(_META)).get("label_names")),
    )


def _members(archive: Inflated, wanted: frozenset[str]) -> Iterator[tuple[str, bytes]]:
    """Names and contents of the plain files that are wanted. Raises ValueError if the archive is not whole."""
    for _ in range(limits.TAR_MEMBERS):
        header = archive.read(_BLOCK)
        if header == bytes(_BLOCK):  # the end
            return
        if len(header) < _BLOCK:
            raise ValueError("it ends too early")
        size = _octal(header[124:136])
        name = header[:100].rstrip(b"\0").decode("latin1")
        is_file = header[156:157] in (b"0", b"\0")
        padded = -(-size // _BLOCK) * _BLOCK
        if not is_file or name not in wanted:
            archive.skip(padded)
            continue
        if size > limits.CIFAR_BATCH:
            raise ValueError(f"{name} has {size} bytes, too many for CIFAR-10")
        data = archive.read(padded)
        if len(data) < padded:
            raise ValueError("it ends too early")
        yield name, data[:size]
    raise ValueError(f"it has more than {limits.TAR_MEMBERS} members")


def _octal(field: bytes) -> int:
    text = field.strip(b" \0")
    if not all(48 <= digit < 56 for digit in text):
        raise ValueError("a header in it is damaged")
    return int(text or b"0", 8)


def _batch(batch: Any, where: str) -> tuple[NDArray[np.uint8], list[int]]:
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


class _InertUnpickler(pickle.Unpickler):
    """Builds plain values and `_Recorded`; nothing a pickle names is ever imported or called."""

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
        reader = BoundedReader(io.BytesIO(data), len(data))
        scan(reader, python_2=True)
        content = _InertUnpickler(BoundedReader(io.BytesIO(data), len(data)), encoding="bytes").load()
        check_unfolded(content, len(data))
        return content
    except Exception as error:  # the pickle machine raises nearly every type on broken input
        cause = str(error) or type(error).__name__
        raise DataError(f"{where}: refused, nothing in it was run ({cause}); download the archive again") from error


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
