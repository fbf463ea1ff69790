"""Kinds of values that a setting may have: each reads JSON and text alike, and describes itself for OpenAPI."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite
from typing import Any, Protocol

RANGES = 64  # of layers in one list


class Kind(Protocol):
    """A kind of value."""

    def read(self, value: object) -> Any:
        """The value, of JSON or as text. Raises ValueError, which says what is expected."""

    def schema(self) -> dict[str, Any]:
        """JSON schema."""


@dataclass(frozen=True)
class Setting:
    """What stands beside a field of a record: its kind, what it is for, and its name outside of Python."""

    kind: Kind
    about: str
    name: str | None = None


@dataclass(frozen=True)
class Whole:
    """A whole number."""

    low: int
    high: int

    def read(self, value: object) -> int:
        expected = f"expected a whole number, {self.low} to {self.high}"
        number = _number(value, int, expected)
        if not isinstance(number, int) or not self.low <= number <= self.high:
            raise ValueError(expected)
        return number

    def schema(self) -> dict[str, Any]:
        return {"type": "integer", "minimum": self.low, "maximum": self.high}


@dataclass(frozen=True)
class Real:
    """A finite number."""

    low: float
    high: float

    def read(self, value: object) -> float:
        expected = f"expected a number, {self.low:g} to {self.high:g}"
        try:
            number = float(_number(value, float, expected))
        except OverflowError:  # a whole number of JSON has no largest one
            raise ValueError(expected) from None
        if not isfinite(number) or not self.low <= number <= self.high:
            raise ValueError(expected)
        return number

    def schema(self) -> dict[str, Any]:
        return {"type": "number", "minimum": self.low, "maximum": self.high}


@dataclass(frozen=True)
class Pair:
    """Two finite numbers; as text `0.1,-0.2`."""

    low: float
    high: float

    def read(self, value: object) -> tuple[float, float]:
        parts = value.split(",") if isinstance(value, str) else value
        if not isinstance(parts, list | tuple) or len(parts) != 2:
            raise ValueError(f"expected two numbers, {self.low:g} to {self.high:g}")
        each = Real(self.low, self.high)
        return each.read(parts[0]), each.read(parts[1])

    def schema(self) -> dict[str, Any]:
        return {"type": "array", "items": Real(self.low, self.high).schema(), "minItems": 2, "maxItems": 2}


@dataclass(frozen=True)
class Indices:
    """Different numbers from 0 on, ascending; as text `0-6,8`."""

    high: int

    def read(self, value: object) -> tuple[int, ...]:
        expected = f"expected numbers from 0 to {self.high}, such as 0-6,8"
        each = Whole(0, self.high)
        if isinstance(value, str):
            parts = [part for part in value.split(",") if part.strip()]
            if len(parts) > RANGES:
                raise ValueError(expected)
            found: set[int] = set()
            for part in parts:
                first, _, last = part.partition("-")
                found.update(range(each.read(first), each.read(last or first) + 1))
            return tuple(sorted(found))
        if not isinstance(value, list | tuple) or len(value) > self.high + 1:
            raise ValueError(expected)
        return tuple(sorted({each.read(part) for part in value}))

    def schema(self) -> dict[str, Any]:
        return {"type": "array", "items": Whole(0, self.high).schema(), "uniqueItems": True}


@dataclass(frozen=True)
class Words:
    """Words of a form, in their order; as text with commas between them."""

    pattern: str
    example: str
    most: int

    def read(self, value: object) -> tuple[str, ...]:
        parts = value.split(",") if isinstance(value, str) else value
        if not isinstance(parts, list | tuple) or len(parts) > self.most:
            raise ValueError(f"expected at most {self.most} words such as {self.example}")
        for part in parts:
            if not isinstance(part, str) or len(part) > 100 or not re.fullmatch(self.pattern, part):
                raise ValueError(f"expected words such as {self.example}")
        return tuple(parts)

    def schema(self) -> dict[str, Any]:
        return {"type": "array", "items": {"type": "string", "pattern": f"^{self.pattern}$"}, "maxItems": self.most}


@dataclass(frozen=True)
class Choice:
    """One of a few words."""

    words: tuple[str, ...]

    def read(self, value: object) -> str:
        if value not in self.words:
            raise ValueError(f"expected {', '.join(self.words[:-1])} or {self.words[-1]}")
        return str(value)

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "enum": list(self.words)}


@dataclass(frozen=True)
class Text:
    """Visible characters."""

    length: int

    def read(self, value: object) -> str:
        if not isinstance(value, str) or len(value) > self.length or not value.isprintable():
            raise ValueError(f"expected at most {self.length} visible characters")
        return value

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "maxLength": self.length}


@dataclass(frozen=True)
class Switch:
    """True or false; as text also 1 and 0."""

    def read(self, value: object) -> bool:
        words: dict[object, bool] = {"true": True, "1": True, "false": False, "0": False}
        if isinstance(value, bool):
            return value
        if not isinstance(value, str) or value.lower() not in words:
            raise ValueError("expected true or false")
        return words[value.lower()]

    def schema(self) -> dict[str, Any]:
        return {"type": "boolean"}


def _number(value: object, convert: Callable[[str], int | float], expected: str) -> int | float:
    if isinstance(value, str) and len(value) <= 40:
        try:
            return convert(value)
        except ValueError:
            raise ValueError(expected) from None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(expected)
    return value
