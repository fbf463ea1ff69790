"""The host's share of a call, timed in a process of its own."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_a_checkout_beside_itself() -> None:
    command = [sys.executable, "-m", "bench.host", "--rounds=3", f"--against={ROOT}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    ratios = [float(found) for found in re.findall(r"ratio (\d\.\d+)", done.stdout)]
    assert len(ratios) == 4
    assert all(0.5 < ratio < 2 for ratio in ratios)
