"""The command line inside the test process, and a place to write to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from sg3.cli import _run


class Outcome(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def sg3(capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Run `sg3 dataset ARGS` -> exit code, stdout, stderr."""
    def run(*args: str) -> Outcome:
        capsys.readouterr()
        code = _run(["dataset", *args], debug=False)
        return Outcome(code, *capsys.readouterr())

    return run


@pytest.fixture
def dest(tmp_path: Path) -> Path:
    return tmp_path / "out.zip"
