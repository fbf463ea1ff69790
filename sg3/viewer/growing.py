"""Files that a run adds lines to: what has come since they were last looked at, and what is kept of all.

A page asks every few seconds, and the statistics of a long run have a hundred thousand lines. So of a file are kept the
place up to which it has been read, and values of lines that are spread evenly: as many as a curve needs, however long
it is.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sg3 import limits
from sg3.plain_files import is_special

KEPT = 1_200  # values of a file; every other one goes when there are more
PIECE = 2**20  # bytes that are read at a time, and that a line may have
AT_ONCE = 2**26  # bytes that one look reads; the next one goes on from there
PROOF = 256  # bytes before the place, by which a file that was cut and has grown again is known

Take = Callable[[dict[str, Any]], Any]


class Growing:
    """One .jsonl file, for any thread. `take` makes of a line's object what is kept of it; None if that is nothing."""

    def __init__(self, path: Path, take: Take) -> None:
        self._path = path
        self._take = take
        self._lock = threading.Lock()
        self._begin()

    def values(self, most: int | None = None) -> list[Any]:
        """Of all lines that there are now, with the last one's; at most so many, spread evenly. None without the
        file."""
        with self._lock:
            try:
                self._look()
            except OSError:
                self._begin()
            found = [*self._kept, *([self._last] if self._last and self._last not in self._kept[-1:] else [])]
        if most is not None and len(found) > most:
            step = -(-len(found) // most)
            found = found[(len(found) - 1) % step :: step]
        return [value for _, value in found]

    def _begin(self) -> None:
        self._place = 0  # up to here it has been read
        self._proof = b""  # what stands before it
        self._is_within = False  # a line that is too long
        self._lines = 0
        self._every = 1  # one of so many lines is kept
        self._kept: list[tuple[int, Any]] = []  # number of a line, its value
        self._last: tuple[int, Any] | None = None

    def _look(self) -> None:
        if is_special(self._path):
            raise OSError
        with self._path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            file.seek(self._place - len(self._proof))
            if size < self._place or file.read(len(self._proof)) != self._proof:  # it was cut, or is another one
                self._begin()
            until = self._place + AT_ONCE
            while self._place < until:
                file.seek(self._place)
                piece = file.read(PIECE)
                whole = piece.rfind(b"\n") + 1
                if not whole and len(piece) < PIECE:
                    return  # the rest has no end yet
                self._read(piece[: whole or None])

    def _read(self, piece: bytes) -> None:
        """Whole lines, or a part of one that is too long."""
        self._place += len(piece)
        self._proof = (self._proof + piece)[-PROOF:]
        lines = piece.split(b"\n")
        lines, rest = lines[:-1], lines[-1]
        if lines and self._is_within:
            lines[0] = b""
        self._is_within = bool(rest)
        for number, line in enumerate(lines, self._lines):
            if number % self._every == 0 or number == self._lines + len(lines) - 1:
                value = self._value(line)
                if value is not None:
                    self._last = number, value
                    if number % self._every == 0:
                        self._keep(self._last)
        self._lines += len(lines)

    def _keep(self, entry: tuple[int, Any]) -> None:
        self._kept.append(entry)
        if len(self._kept) > KEPT:
            self._every *= 2
            self._kept = [(number, value) for number, value in self._kept if number % self._every == 0]

    def _value(self, line: bytes) -> Any:
        try:
            entry = limits.parse_shallow(line)
        except ValueError:
            return None
        return self._take(entry) if isinstance(entry, dict) else None
