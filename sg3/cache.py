"""Where sg3 keeps what can be fetched or computed again."""

from __future__ import annotations

import os
from pathlib import Path

from sg3.errors import StorageError


def cache_folder(kind: str) -> Path:
    """`$SG3_CACHE/KIND`, else `sg3/KIND` in the original's `$DNNLIB_CACHE_DIR` or in `~/.cache`; it need not exist.

    Raises StorageError where neither of the variables nor a home folder is there.
    """
    if chosen := os.environ.get("SG3_CACHE"):
        return Path(chosen) / kind
    if originals := os.environ.get("DNNLIB_CACHE_DIR"):
        return Path(originals) / "sg3" / kind
    try:
        return Path.home() / ".cache" / "sg3" / kind
    except RuntimeError as error:
        raise StorageError("there is no home folder to keep downloads and statistics in; set SG3_CACHE to a folder") \
            from error
