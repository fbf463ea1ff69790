"""CIFAR-10 and CIFAR-100 in their original files, cifar-10-python.tar.gz and cifar-100-python.tar.gz: tar archives of
pickles, none of which is ever run.

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
from sg3.data.folder_or_zip import plain_name
from sg3.errors import DataError
from sg3.limits import Inflated
from sg3.pickle_scan import BoundedReader, scan
from sg3.pickle_size import check_unfolded
from sg3.terminal import printable


class _Cifar(NamedTuple):
    """One of the two: its batches of training images, and what they call their labels and the names of the classes."""

    batches: list[str]
    labels: str
    classes: int
    meta: str
    names: str


_CIFARS = {  # by the folder that the archive's files are in
    "cifar-10-batches-py": _Cifar(
        [f"data_batch_{i}" for i in range(1, 6)], "labels", 10, "batches.meta", "label_names"
    ),
    "cifar-100-python": _Cifar(["train"], "fine_labels", 100, "meta", "fine_label_names"),
}
_BLOCK = 512  # bytes of a header; contents are padded to a multiple


class LabelledImages(NamedTuple):
    """images: uint8 [N, H, W, C]; labels: N class indices; classes: their names, if known."""

    images: NDArray[np.uint8]
    labels: list[int]
    classes: list[str] | None


def read_cifar(path: Path) -> LabelledImages:
    """The 50,000 training images, [N, 32, 32, 3], with the fine labels of CIFAR-100. Raises DataError."""
    contents: dict[str, Any] = {}
    folder = ""
    try:
        with path.open("rb") as file:
            for name, data in _members(Inflated(file, limits.CIFAR), path):
                contents[name] = _unpickle(data, f"{path}: {name}")
                folder = name.partition("/")[0]
    except ValueError as error:
        raise DataError(f"{path}: not a whole .tar.gz ({error}); download it again") from error
    if not folder:
        raise DataError(f"{path}: no batch of images in it; download it again")
    kind = _CIFARS[folder]
    parts = [_batch(contents.get(f"{folder}/{name}"), kind, f"{path}: {folder}/{name}") for name in kind.batches]
    return LabelledImages(
        images=parts[0][0] if len(parts) == 1 else np.concatenate([images for images, _ in parts]),
        labels=[label for _, labels in parts for label in labels],
        classes=_text_list(_items(contents.get(f"{folder}/{kind.meta}")).get(kind.names)),
    )


def _members(archive: Inflated, path: Path) -> Iterator[tuple[str, bytes]]:
    """Names and contents of the plain files that are wanted. Raises ValueError if the archive is not whole, DataError
    if it holds anything else: other archives may be large, and are not what they seem to be."""
    for _ in range(limits.TAR_MEMBERS):
        header = archive.read(_BLOCK)
        if header == bytes(_BLOCK):  # the end
            return
        if len(header) < _BLOCK:
            raise ValueError("it ends too early")
        size = _octal(header[124:136])
        name = plain_name(header[:100].rstrip(b"\0").decode("latin1"))
        is_file, is_folder = header[156:157] in (b"0", b"\0"), header[156:157] == b"5"
        folder, _, base = name.partition("/")
        kind = _CIFARS.get(folder)
        if kind is None and name and (is_file or is_folder) and not name.startswith("."):
            raise DataError(f"{path}: neither CIFAR-10 nor CIFAR-100 but an archive of {printable(name)} and more; "
                            "unpack it and name the folder")
        padded = -(-size // _BLOCK) * _BLOCK
        if not is_file or kind is None or base not in (*kind.batches, kind.meta):
            archive.skip(padded)
            continue
        if size > limits.CIFAR_BATCH // len(kind.batches):
            raise ValueError(f"{name} has {size} bytes, too many")
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


def _batch(batch: Any, kind: _Cifar, where: str) -> tuple[NDArray[np.uint8], list[int]]:
    items = _items(batch)
    pixels = _pixels(items.get("data"))
    labels: Any = items.get(kind.labels)
    if pixels is None or pixels.ndim != 2 or pixels.shape[1] != 3 * 32 * 32:
        raise DataError(f"{where}: missing, or not 32x32 RGB images; download the archive again")
    known = isinstance(labels, list) and all(isinstance(label, int) and 0 <= label < kind.classes for label in labels)
    if not known or len(labels) != len(pixels):
        raise DataError(f"{where}: not one label of 0..{kind.classes - 1} for each image; download the archive again")
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
