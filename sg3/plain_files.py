"""Opening files that belong to sg3 alone, at names that anybody may have put something else at.

A lock file is emptied, a partial download overwritten: where its name is a link, that would happen to another file. So
these are never opened through a link, and never if they are anything but plain files without further names.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import IO

from sg3.errors import DataError

_FLAGS = {"r": os.O_RDONLY, "a": os.O_WRONLY | os.O_APPEND | os.O_CREAT, "a+": os.O_RDWR | os.O_APPEND | os.O_CREAT}
_SAFELY = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


def is_special(path: Path) -> bool:
    """Whether something is there that is neither a file nor a folder: opening a pipe waits for somebody who writes,
    reading a device need not end."""
    return path.exists() and not path.is_file() and not path.is_dir()


def refuse_special(path: Path, shown: str = "", advice: str = "") -> None:
    """Raise DataError for such a thing in place of a file, `shown` as the user knows it, with what to do about it."""
    if is_special(path):
        raise DataError(f"{shown or path}: is no file, but a device or a pipe{advice}")


class NotPlainError(OSError):
    """What is there is a link, or no plain file."""


def open_plain(path: Path, mode: str) -> IO[bytes]:
    """The file in binary mode "r", "a" or "a+", the latter two creating it, as `open` has them.

    Raises NotPlainError, which says so and whose `filename` is set, for a link, a folder, a pipe and the like, and for
    a file that has another name besides; OSError as `open` does.
    """
    with suppress(FileNotFoundError):
        _check(path, os.lstat(path))  # O_NOFOLLOW finds links as well, but not every system has it
    handle = os.open(path, _FLAGS[mode] | _SAFELY, 0o666)
    try:
        _check(path, os.fstat(handle))  # again: it may have been replaced
        return os.fdopen(handle, {"r": "rb", "a": "ab", "a+": "a+b"}[mode])
    except BaseException:
        os.close(handle)
        raise


def create_plain(path: Path) -> None:
    """Have an empty file there, whatever was there before. Raises OSError, for a folder too."""
    path.unlink(missing_ok=True)
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))


def plain_size(path: Path) -> int | None:
    """Bytes of the plain file there; None if there is none, or something else."""
    try:
        status = os.lstat(path)
    except OSError:
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) and status.st_nlink == 1 else None


def _check(path: Path, status: os.stat_result) -> None:
    what = None
    if stat.S_ISLNK(status.st_mode):
        what = "a link"
    elif not stat.S_ISREG(status.st_mode):
        what = "no plain file"
    elif status.st_nlink > 1:
        what = "a file that has another name, too"
    if what:
        raise NotPlainError(0, f"is {what}; remove it", str(path))
