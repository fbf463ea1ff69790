"""`distutils.version`: version numbers that compare part by part."""

from __future__ import annotations

import re
from functools import total_ordering


@total_ordering
class LooseVersion:
    """Digits and words, compared in order: numbers as numbers, words as text, words below numbers."""

    def __init__(self, vstring: str = "") -> None:
        self.vstring = str(vstring)
        self.version: list[int | str] = [
            int(part) if part.isdigit() else part for part in re.findall(r"\d+|[a-z]+", self.vstring.lower())
        ]

    def _key(self) -> list[tuple[bool, int, str]]:
        return [(True, part, "") if isinstance(part, int) else (False, 0, part) for part in self.version]

    def __eq__(self, other: object) -> bool:
        return self._key() == _version(other)._key()

    def __lt__(self, other: LooseVersion | str) -> bool:
        return self._key() < _version(other)._key()

    def __hash__(self) -> int:
        return hash(tuple(self.version))

    def __str__(self) -> str:
        return self.vstring

    def __repr__(self) -> str:
        return f"LooseVersion({self.vstring!r})"


StrictVersion = LooseVersion


def _version(other: object) -> LooseVersion:
    return other if isinstance(other, LooseVersion) else LooseVersion(str(other))
