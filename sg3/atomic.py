"""Files that are either complete or not there."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from sg3.errors import StorageError


def write_atomic(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Let `write` fill a temporary file beside `path`, then put it in place in one step.

    Whatever happens on the way, a file that was at `path` before stays as it was. After the return, the new
    one survives a loss of power. Raises StorageError if the disk is full, read-only and so on.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("xb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        # torch.save puts a RuntimeError of its own over that of a file which cannot be written.
        cause = error.__context__ if isinstance(error, RuntimeError) else error
        if isinstance(cause, OSError):
            raise StorageError(f"{path}: cannot be written: {cause.strerror or cause}") from error
        raise
    sync_folder(path.parent)


def write_json(path: Path, content: Any, indent: int = 2) -> None:
    """Write plain data as a JSON file, as `write_atomic` does."""
    write_atomic(path, lambda file: file.write(json.dumps(content, indent=indent).encode() + b"\n"))


def sync_folder(folder: Path) -> None:
    """Make a rename permanent where the system can. Windows cannot open folders; some file systems refuse."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    with suppress(OSError):
        os.fsync(handle)
    os.close(handle)
