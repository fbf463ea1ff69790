"""dataset.json: `{"labels": [[name, 3], ...]}`, `{"labels": [[name, [0.1, 0.9]], ...]}`, `{"labels": null}`.

Names are relative to the folder that dataset.json is in; `\\` and `./` in them are read as everywhere (`plain_name`).
Classes are whole numbers, 1.0 among them. Other keys mean nothing to the original; `sg3 dataset` writes what it did
under "sg3".
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sg3 import limits
from sg3.data.folder_or_zip import plain_name
from sg3.data.image_files import LABELS_FILE, ImageFiles
from sg3.errors import DataError
from sg3.terminal import printable

Label = int | list[float]
RawLabels = NDArray[np.int64] | NDArray[np.float32]


def read_manifest(files: ImageFiles) -> dict[str, Any] | None:
    """The object in dataset.json, None without such a file. Raises DataError if it is not a JSON object."""
    if not files.has_labels:
        return None
    where = files.where(LABELS_FILE)
    try:
        manifest = limits.parse_shallow(files.read(LABELS_FILE, limits.JSON))
    except ValueError as error:
        raise DataError(f"{where}: not valid JSON ({error}); correct or remove it") from error
    if not isinstance(manifest, dict):
        raise DataError(f'{where}: not an object like {{"labels": [[name, 0], ...]}}; correct or remove it')
    return manifest


def labels_by_name(manifest: dict[str, Any], where: str) -> dict[str, Label] | None:
    """The manifest's labels, all ints or all vectors of one length; None for null. Raises DataError."""
    if "labels" not in manifest:
        raise DataError(f'{where}: no "labels" in it; add them (null for none) or remove the file')
    entries = manifest["labels"]
    if entries is None:
        return None
    if not isinstance(entries, list):
        raise DataError(f'{where}: "labels" is neither null nor a list of [name, label]; correct it')
    labels: dict[str, Label] = {}
    width: int | None = None
    for index, entry in enumerate(entries):
        if not (isinstance(entry, list) and len(entry) == 2 and isinstance(entry[0], str)):
            raise DataError(f"{where}: labels[{index}] is not [name, label]; correct it")
        name, label = plain_name(entry[0]), entry[1]
        if isinstance(label, float) and label.is_integer():
            label = int(label)
        if name in labels:
            raise DataError(f"{where}: {name!r} has two labels; remove one")
        size = _checked_width(label, f"{where}: label of {name!r}")
        if width is not None and size != width:
            raise DataError(f"{where}: label of {name!r} is {_kind(size)}, those before are {_kind(width)}; "
                            "make them alike")
        labels[name], width = label, size
    return labels


def _checked_width(label: Any, where: str) -> int:
    """0 for a class index, the length for a vector."""
    if isinstance(label, int) and not isinstance(label, bool):
        if not 0 <= label < limits.CLASSES_OF_IMAGES:
            raise DataError(f"{where} is {printable(label, 40)}, outside 0..{limits.CLASSES_OF_IMAGES - 1}; correct it")
        return 0
    if isinstance(label, list) and label and all(_is_finite_number(value) for value in label):
        return len(label)
    raise DataError(f"{where} is neither a whole number nor a list of numbers; correct it")


def _is_finite_number(value: Any) -> bool:
    # Compared, not converted: JSON allows integers that overflow a float.
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 3e38


def _kind(width: int) -> str:
    return f"a list of {width}" if width else "a whole number"


def label_array(labels: dict[str, Label], names: list[str], where: str) -> RawLabels:
    """Labels in the order of `names`: int64 [N] class indices or float32 [N, L].

    Raises DataError if one has no label.
    """
    missing = [name for name in names if name not in labels]
    if missing:
        other = min(labels.keys() - set(names), default="")
        theirs = f", where labels have names like {other!r}; write them alike" if other else "; add them"
        raise DataError(f"{where}: no label for {len(missing)} of {len(names)} images, first {missing[0]!r}{theirs}")
    return in_array([labels[name] for name in names])


def in_array(labels: list[Label]) -> RawLabels:
    """Labels that are alike, one at least, as int64 [N] class indices or float32 [N, L]."""
    if isinstance(labels[0], int):
        return np.array(labels, dtype=np.int64)
    return np.array(labels, dtype=np.float32)


def notes_on(labels: RawLabels) -> list[str]:
    """What the user may not know of labels in use: numbers without images, and that they tell nothing apart."""
    notes: list[str] = []
    if labels.dtype == np.int64:
        counts = np.bincount(labels)
        empty = np.flatnonzero(counts == 0)
        if len(empty):
            first = ", ".join(map(str, empty[:3])) + (", ..." if len(empty) > 3 else "")
            notes.append(f"{len(empty)} of the {len(counts)} class numbers have no image ({first}); the networks are "
                         "made for all of them")
        if len(counts) - len(empty) == 1:
            notes.append("all images are of one class, so the labels tell nothing apart")
    return notes
