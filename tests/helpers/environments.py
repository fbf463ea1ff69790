"""Environments of their own for the wheel: its requirements once, and beside them what a test wants."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.helpers.commands import Result

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CONSTRAINTS = ("-c", str(ROOT / "constraints" / "cpu.txt"))
MINUTES = 60


@dataclass(frozen=True)
class Environment:
    """A virtual environment, and a folder to work in that holds no source of sg3."""

    folder: Path

    @property
    def python(self) -> Path:
        return self.folder / "bin" / "python"

    @property
    def work(self) -> Path:
        return self.folder / "work"

    def variables(self, **more: str) -> dict[str, str]:
        """Those of this process, but for what would let its packages and settings through."""
        ours = {name: value for name, value in os.environ.items()
                if not name.startswith(("SG3_", "TRITON_", "PYTHON", "PYTEST_", "VIRTUAL_ENV"))}  # fmt: skip
        # One thread: these networks are too small to gain from more.
        return {**ours, "HOME": str(self.work), "SG3_CACHE": str(self.work / "cache"), "OMP_NUM_THREADS": "1", **more}

    def run(self, *words: object, cwd: Path | None = None, minutes: float = 10, **variables: str) -> Result:
        """`python WORDS`, from the folder to work in."""
        command = [str(self.python), *map(str, words)]
        done = subprocess.run(command, cwd=cwd or self.work, env=self.variables(**variables), capture_output=True,
                              text=True, timeout=minutes * MINUTES, stdin=subprocess.DEVNULL, check=False)  # fmt: skip
        return Result(done.returncode, done.stdout, done.stderr)

    def sg3(self, *words: object, **variables: str) -> Result:
        """`sg3 WORDS`, the command that the wheel has brought."""
        return self.run(self.folder / "bin" / "sg3", *words, **variables)

    def install(self, *words: object) -> None:
        """`pip install WORDS`. Skips the test where nothing answers."""
        command = [sys.executable, "-m", "pip", "--python", str(self.python), "install", "-q", *map(str, words)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30 * MINUTES, check=False)
        if "No matching distribution" in done.stderr or "ConnectionError" in done.stderr:
            pytest.skip(f"pip finds none of these here: {' '.join(map(str, words))}")
        assert done.returncode == 0, done.stderr

    def packages(self) -> Path:
        """Where it keeps them."""
        (folder,) = self.folder.glob("lib/python*/site-packages")
        return folder


def environment(folder: Path, beside: Environment | None = None) -> Environment:
    """A new one. `beside` has packages that it may use as well, such as PyTorch, which is large."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    made = Environment(folder)
    made.work.mkdir()
    if beside is not None:
        (made.packages() / "beside.pth").write_text(f"{beside.packages()}\n")
    return made


def build_wheel(folder: Path) -> Path:
    """The wheel of this checkout. Skips the test where nothing answers."""
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(folder), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=10 * MINUTES, check=False)
    if "No matching distribution" in done.stderr or "ConnectionError" in done.stderr:
        pytest.skip("pip finds no hatchling here")
    assert done.returncode == 0, done.stderr
    (wheel,) = folder.glob("sg3-*.whl")
    return wheel
