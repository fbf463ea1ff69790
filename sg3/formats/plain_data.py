"""Numbers, text and containers of them: what constructor arguments and training settings consist of."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sg3 import limits


def plain(value: Any, left: Iterator[int] | None = None) -> Any:
    """A copy of plain data. Raises TypeError if there is anything else in it, ValueError if there is more than `left`
    has items (shared containers can describe exponentially much), by default limits.SETTINGS, or a text is too long."""
    left = iter(range(limits.SETTINGS)) if left is None else left
    if next(left, None) is None:
        raise ValueError("too many values")
    if isinstance(value, dict):
        return {name: plain(entry, left) for name, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)([plain(entry, left) for entry in value])
    if isinstance(value, str) and len(value) > limits.SETTING_TEXT:
        raise ValueError(f"a text of {len(value)} characters")
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"a {type(value).__name__} among them")


def plain_entries(values: dict[str, Any]) -> dict[str, Any]:
    """The entries that are plain data. The rest is of no use to sg3, and no reason to refuse the networks."""
    kept = {}
    for name, value in values.items():
        try:
            kept[name] = plain(value)
        except (TypeError, ValueError, RecursionError):
            continue
    return kept
