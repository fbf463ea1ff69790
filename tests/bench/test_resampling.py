"""`python -m bench.resampling calls` on tiny images: every call in the table, in a process like that of a command."""

from __future__ import annotations

import re

import pytest

from bench import resampling


def test_calls_take_turns(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("numba", reason="the extra `cpu` is not installed")
    kept = []
    monkeypatch.setattr(resampling, "keep_freed_memory", lambda: kept.append(True))
    monkeypatch.setattr(resampling, "IMAGES", [(2, 4), (3, 8)])
    monkeypatch.setattr("sys.argv", ["resampling", "calls", "--rounds=2"])
    resampling.main()
    assert kept == [True]
    row = r"^\| \[4, (\d), (\d), \d\] \| (\w+) \| ([^|]+) \| (\d+) \| (\d+) \|"
    rows = re.findall(row, capsys.readouterr().out, re.M)
    layouts = {"2": list(resampling.LAYOUTS), "3": ["NCHW"]}
    assert [row[:4] for row in rows] == [(str(channels), str(size), call, layout)
                                         for channels, size in resampling.IMAGES for call in resampling.CALLS
                                         for layout in layouts[str(channels)]]  # fmt: skip
    assert all(int(numba) > 0 and int(torch) > 0 for *_, numba, torch in rows)
