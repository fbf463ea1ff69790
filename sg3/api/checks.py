"""Arguments of the API: one of a wrong kind is a UsageError of one line, as at the commands, before work begins."""

from __future__ import annotations

import math
import operator
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from sg3.errors import UsageError
from sg3.named_paths import Kind, local
from sg3.terminal import printable

LARGEST_SEED = 2**32 - 1


def refuse(name: str, value: object, expected: str) -> NoReturn:
    """Raises UsageError."""
    raise UsageError(f"{name}={printable(repr(value), limit=60)}: expected {expected}")


def path_of(
    name: str,
    value: object,
    what: str = "the name of a file or folder",
    check: Callable[[str, Kind, str], Path] = local,
    kind: Kind = Kind.EITHER,
) -> Path:
    """A str or path as a Path, checked by one of `sg3.named_paths`."""
    if isinstance(value, (str, os.PathLike)):
        path = os.fspath(value)
        if isinstance(path, str) and "\0" not in path:
            return check(path, kind, name)
    refuse(name, value, what)


def whole(name: str, value: Any, least: int = 0, most: int | None = None) -> int:
    """An int of Python, NumPy or a tensor of one, from `least` to `most`."""
    bounds = f"a whole number from {least}" + ("" if most is None else f" to {most}")
    try:
        number = operator.index(value)
    except TypeError:
        refuse(name, value, bounds)
    if number < least or (most is not None and number > most):
        refuse(name, value, bounds)
    return number


def number(name: str, value: Any) -> float:
    """A finite number of Python, NumPy or a tensor of one."""
    if isinstance(value, (str, bytes)) or value is None:
        refuse(name, value, "a number")
    try:
        found = float(value)
    except (TypeError, ValueError, OverflowError):
        refuse(name, value, "a number")
    if not math.isfinite(found) or abs(found) > float(np.finfo(np.float32).max):
        refuse(name, value, "a finite number of at most 32 bits")
    return found


def pair(name: str, value: Any) -> tuple[float, float]:
    """Two finite numbers."""
    if not isinstance(value, (tuple, list, np.ndarray)) or len(value) != 2:
        refuse(name, value, "two numbers, (x, y)")
    return number(f"{name}[0]", value[0]), number(f"{name}[1]", value[1])


def switch(name: str, value: object) -> bool:
    """True or False."""
    if not isinstance(value, (bool, np.bool_)):
        refuse(name, value, "True or False")
    return bool(value)


def listener(name: str, value: object) -> None:
    """A function, or None."""
    if value is not None and not callable(value):
        refuse(name, value, "a function, or None")


def text(name: str, value: object, expected: str) -> str:
    """A str."""
    if not isinstance(value, str):
        refuse(name, value, expected)
    return value


def seeds_of(value: Any) -> list[int]:
    """One seed, or several in anything that can be gone through: lists, ranges, arrays, tensors."""
    expected = "a whole number from 0 to 4294967295, or several"
    if isinstance(value, (str, bytes)):
        refuse("seeds", value, f"{expected}, such as range(4)")
    try:
        return [whole("seeds", operator.index(value), most=LARGEST_SEED)]
    except TypeError:
        pass  # not one, so several
    if not isinstance(value, Iterable):
        refuse("seeds", value, expected)
    return [whole("seeds", seed, most=LARGEST_SEED) for seed in value]


def names_of(name: str, value: Any) -> list[str]:
    """Names, or one text of them with commas."""
    parts = value.split(",") if isinstance(value, str) else value
    if isinstance(parts, (bytes, dict)) or not isinstance(parts, Iterable):
        refuse(name, value, "names, such as ['fid50k_full', 'kid50k_full']")
    found = list(parts)
    for part in found:
        if not isinstance(part, str):
            refuse(name, value, "names, such as ['fid50k_full', 'kid50k_full']")
    return [part.strip() for part in found if part.strip()]
