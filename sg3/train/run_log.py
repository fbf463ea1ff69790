"""log.txt: what a run said and when, over all of its lives, with the start and the stop of each."""

from __future__ import annotations

import time
from pathlib import Path

from sg3.errors import StorageError


class RunLog:
    """Adds lines to the file, each with the time of day; to none without a path."""

    def __init__(self, path: Path | None) -> None:
        self._path = path

    def write(self, text: str) -> None:
        """Raises StorageError if it cannot be written."""
        if self._path is None:
            return
        try:
            with open(self._path, "a") as file:
                file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")
        except OSError as error:
            raise StorageError(f"{self._path}: cannot be written: {error.strerror}") from error
