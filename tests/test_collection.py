"""Every process collects the same tests: pytest-xdist runs none of them otherwise."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT


def collected(seed: int, *arguments: str) -> list[str]:
    """The names of the tests that a fresh process collects."""
    result = subprocess.run([sys.executable, "-m", "pytest", "--collect-only", "-p", "no:cacheprovider",
                             *arguments], cwd=ROOT, capture_output=True, text=True, check=False,
                            env=os.environ | {"PYTHONHASHSEED": str(seed), "PYTEST_ADDOPTS": ""})
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-2000:]
    return [line for line in result.stdout.splitlines() if "::" in line]


def test_bytes_are_counted() -> None:
    names = [name.split("::")[1] for name in collected(1, "tests/data/test_sources.py")]
    assert {"test_broken_mnist[content0]", "test_broken_mnist[content1]"} < set(names)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_names_do_not_depend_on_the_process() -> None:
    """Neither on the second in which it collects nor on the order of its sets."""
    first, second = (collected(seed, "-m", "slow or not slow") for seed in (1, 2))
    assert len(first) > 4000
    assert first == second
