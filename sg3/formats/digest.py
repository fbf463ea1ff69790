"""What a file's content is, in one number."""

from __future__ import annotations

import hashlib
from pathlib import Path

from sg3.errors import StorageError


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, as hex digits. Raises StorageError if it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise StorageError(f"{path}: cannot be read: {error.strerror or error}") from error
