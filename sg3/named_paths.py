"""Paths that a user names, checked before work begins: one word on each that can be nothing of the kind wanted.

`Path("")` is the current folder and `Path("hf://me/cats")` a file that is not there, so texts are looked at before
they become paths. Whether something is there at all is left to those who can say what was meant instead.
"""

from __future__ import annotations

import os
import re
from enum import Enum
from pathlib import Path

from sg3.errors import DataError, MissingInputError, Sg3Error, StorageError, UsageError
from sg3.plain_files import is_special
from sg3.terminal import printable

# Two letters at least: c:/photos is a folder of Windows. One slash will do: a Path has lost the other.
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+:/")


class Kind(Enum):
    """What may be at a path."""

    FILE = "a file"
    FOLDER = "a folder"
    EITHER = "a file or folder"


def is_address(text: str | os.PathLike[str]) -> bool:
    """Whether it is one of the network (hf://, https://, file://) and no name of what is here."""
    return _ADDRESS.match(os.fspath(text)) is not None and not os.path.exists(text)


def nothing_at(text: str | os.PathLike[str], kind: Kind = Kind.EITHER, name: str = "") -> Sg3Error:
    """The error about an input that is not there: an address is told apart."""
    if is_address(text):
        return _is_address(text, kind, name)
    return MissingInputError(f"{_at(text, name)}: there is no such {kind.value.partition(' ')[2]}")


def local(text: str | os.PathLike[str], kind: Kind, name: str = "") -> Path:
    """The path, whatever is there. Raises UsageError for an empty name and an address."""
    if not os.fspath(text):
        raise UsageError(f"{_at(text, name)}: names nothing; expected {kind.value}")
    if is_address(text):
        raise _is_address(text, kind, name)
    return Path(text)


def to_read(text: str | os.PathLike[str], kind: Kind, name: str = "") -> Path:
    """The path of an input; `name` is the option's or argument's, for messages.

    Raises UsageError (an empty name, an address), DataError (something of another kind is there, a pipe or device),
    StorageError (it may not be read).
    """
    path = local(text, kind, name)
    try:
        if not path.exists():
            return path
        _check_kind(path, kind, name, DataError)
        readable = _allows(path, os.R_OK | (os.X_OK if path.is_dir() else 0))
    except OSError as error:  # a folder above may not be looked into, or the name is too long
        raise StorageError(f"{_at(text, name)}: cannot be read: {error.strerror or error}") from error
    if not readable:
        raise StorageError(f"{_at(text, name)}: cannot be read: Permission denied")
    return path


def to_write(text: str | os.PathLike[str], kind: Kind, name: str = "") -> Path:
    """The path of an output, as `to_read`; what is there already may be replaced.

    Raises UsageError (an empty name, an address; something of another kind is there, a pipe or device), StorageError
    (what lies above is no folder, or one that may not be written to).
    """
    path = local(text, kind, name)
    try:
        if path.exists():
            _check_kind(path, kind, name, UsageError)
        folder = path if path.is_dir() else path.absolute().parent
        while not folder.exists() and folder != folder.parent:
            folder = folder.parent
        if not folder.is_dir():
            raise StorageError(f"{_at(text, name)}: nothing was written: {folder} is no folder")
        writable = _allows(folder, os.W_OK | os.X_OK)
    except OSError as error:
        raise StorageError(f"{_at(text, name)}: cannot be written: {error.strerror or error}") from error
    if not writable:
        reason = "Read-only file system" if _is_read_only(folder) else "Permission denied"
        raise StorageError(f"{_at(text, name)}: cannot be written: {folder}: {reason}")
    return path


def _allows(path: Path, mode: int) -> bool:
    return os.access(path, mode, effective_ids=os.access in os.supports_effective_ids)


def _is_read_only(folder: Path) -> bool:
    """Whether nobody may write there, which no permission changes: `os.access` says no more than no."""
    return hasattr(os, "statvfs") and bool(os.statvfs(folder).f_flag & os.ST_RDONLY)


def _is_address(text: str | os.PathLike[str], kind: Kind, name: str) -> UsageError:
    whole = re.sub(r":/(?!/)", "://", os.fspath(text), count=1)
    return UsageError(f"{_at(whole, name)}: is an address; expected {kind.value} on this machine")


def _check_kind(path: Path, kind: Kind, name: str, error: type[Sg3Error]) -> None:
    found = "a device or a pipe" if is_special(path) else "a folder" if path.is_dir() else "a file"
    if found not in (kind.value, *((Kind.FILE.value, Kind.FOLDER.value) if kind is Kind.EITHER else ())):
        raise error(f"{_at(path, name)}: is {found}; expected {kind.value}")


def _at(text: str | os.PathLike[str], name: str) -> str:
    shown = printable(os.fspath(text), limit=1000)  # all of what the user has typed
    return f"{name}={shown}" if name else shown or "''"
