"""Durations in words: the original's two forms."""

from __future__ import annotations

import pytest

from sg3.durations import format_time, format_time_brief


@pytest.mark.parametrize(
    ("seconds", "words", "brief"),
    [
        (0, "0s", "0s"), (9.6, "10s", "10s"), (59.5, "1m 00s", "1m 00s"), (65, "1m 05s", "1m 05s"),
        (725, "12m 05s", "12m 05s"), (3723, "1h 02m 03s", "1h 02m"), (86400 + 2 * 3600 + 180, "1d 02h 03m", "1d 02h"),
        (1e6 * 86400, "1000000d 00h 00m", "1000000d 00h"), (float("inf"), "?", "?"), (float("nan"), "?", "?"),
    ],
)  # fmt: skip
def test_both_forms(seconds: float, words: str, brief: str) -> None:
    assert (format_time(seconds), format_time_brief(seconds)) == (words, brief)
