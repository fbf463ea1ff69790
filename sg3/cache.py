"""Where sg3 keeps what can be fetched or computed again."""

from __future__ import annotations

import os
from pathlib import Path

from sg3.errors import StorageError


def cache_folder(kind: str) -> Path:
    """`$SG3_CACHE/KIND`, by default `~/.cache/sg3/KIND`; it need not exist.

    Raises StorageError where neither the variable nor a home folder is there.
    """
    if chosen := os.environ.get("SG3_CACHE"):
        return Path(chosen) / kind
    try:
        return Path.home() / ".cache" / "sg3" / kind
    except RuntimeError as error:
        raise StorageError("there is no home folder to keep downloads and statistics in; set SG3_CACHE to a folder") \
            from error
