"""Durations in words."""

from __future__ import annotations


def format_time(seconds: float) -> str:
    """'12s', '1m 05s', '1h 02m 03s' or '1d 02h 03m'; '?' for what is not a number of seconds."""
    return _format(seconds, longest=3)


def format_time_brief(seconds: float) -> str:
    """The two largest units: '12s', '1m 05s', '1h 02m' or '1d 02h'; '?' for what is not a number of seconds."""
    return _format(seconds, longest=2)


def _format(seconds: float, longest: int) -> str:
    if not abs(seconds) < float("inf"):  # true for NaN as well
        return "?"
    s = round(seconds)
    parts = [(s // 86400, "d"), (s // 3600 % 24, "h"), (s // 60 % 60, "m"), (s % 60, "s")]
    first = next((i for i, (count, _) in enumerate(parts) if count), 3)
    words = [f"{count:02d}{unit}" for count, unit in parts[first : first + longest]]
    return " ".join(words).removeprefix("0")
