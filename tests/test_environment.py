"""sg3's own environment variables: a misspelt one is named, a value that means nothing is refused."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sg3 import environment
from sg3.errors import UsageError

ROOT = Path(__file__).parent.parent


def test_misspelt_names() -> None:
    lines = environment.check({"SG3_THREAD": "all", "SG3_CHACHE": "/x", "SG3_IMPL": "ref", "XSG3_CACHE": ""})
    assert lines == ["SG3_CHACHE: sg3 has no such variable; did you mean SG3_CACHE?",
                     "SG3_THREAD: sg3 has no such variable; did you mean SG3_THREADS?"]


def test_values() -> None:
    assert environment.check({"SG3_THREADS": "all", "SG3_FLOAT32": "ieee", "SG3_CACHE": "anywhere"}) == []
    assert environment.check({"SG3_THREADS": ""}) == []
    with pytest.raises(UsageError, match="SG3_THREADS=2: expected all; the option --threads sets their number"):
        environment.check({"SG3_THREADS": "2"})
    with pytest.raises(UsageError, match="SG3_FLOAT32=tf32: expected ieee"):
        environment.check({"SG3_FLOAT32": "tf32"})


def names(*folders: str) -> set[str]:
    files = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    return {name for file in files for name in re.findall(r"(?<!_)SG3_[A-Z0-9_]+", file.read_text())}


def test_all_that_is_read_is_listed() -> None:
    assert names("sg3") == set(environment.OURS)


def test_variables_of_tests_and_benchmarks_are_not_taken_for_ours() -> None:
    others = names("bench", "tests/helpers") | {"SG3_GOLDEN", "SG3_REQUIRE_GOLDEN", "SG3_DEMO_RUN", "SG3_SOAK_MINUTES"}
    assert environment.check(dict.fromkeys(others - set(environment.OURS), "1")) == []


def test_the_command_line_says_it(run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SG3_DETECTOR", "/x")
    result = run("list")
    assert result.code == 0
    assert "warning: SG3_DETECTOR: sg3 has no such variable; did you mean SG3_DETECTORS?" in result.err
    monkeypatch.setenv("SG3_THREADS", "four")
    result = run("list")
    assert (result.code, "SG3_THREADS=four" in result.error_line()) == (2, True)
