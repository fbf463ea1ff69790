"""Tests that install sg3.compat leave no trace of it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import sg3.compat
from tests.conftest import ROOT

LAYOUT = Path(__file__).parent / "official_layout"
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(autouse=True)
def _uninstalled() -> Iterator[None]:
    """Before and after each test nothing is installed, and no module is there that only sg3.compat could bring."""
    yield
    sg3.compat.uninstall()
    left = [name for name in sys.modules if name.split(".")[0] in ("torch_utils", "dnnlib", "legacy")]
    for name in left:
        del sys.modules[name]
    assert not left, f"left in sys.modules: {left}"


@pytest.fixture
def run() -> Run:
    """`python -m sg3.compat *args`, from the project's folder unless told otherwise."""

    def start(*args: object, python: tuple[str, ...] = ("-m", "sg3.compat"), timeout: int = 300,
              **environment: str) -> subprocess.CompletedProcess[str]:  # fmt: skip
        return subprocess.run(
            [sys.executable, *python, *map(str, args)], capture_output=True, text=True, cwd=ROOT, timeout=timeout,
            env={**os.environ, "OMP_NUM_THREADS": "1", **environment}, check=False,
        )  # fmt: skip

    return start
