"""Shell completion: the script is printed, and the shell's questions get answers."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sg3.cli import COMMANDS

SG3 = [sys.executable, "-m", "sg3"]


def ask(line: str) -> list[str]:
    """What bash is told when TAB is pressed at the end of `line`."""
    words = line.split()
    position = len(words) if line.endswith(" ") else len(words) - 1
    question = {"COMP_WORDS": line, "COMP_CWORD": str(position), "_SG3_COMPLETE": "bash_complete"}
    done = subprocess.run(SG3, capture_output=True, text=True, check=True, env={**os.environ, **question})
    assert done.stderr == ""
    return [answer.removeprefix("plain,") for answer in done.stdout.split()]


@pytest.mark.parametrize(
    ("line", "answers"),
    [
        ("sg3 ", list(COMMANDS)),
        ("sg3 do", ["doctor"]),
        ("sg3 --v", ["--version"]),
        ("sg3 doctor --", ["--outdir", "--json", "--help"]),
        ("sg3 doctor --json --o", ["--outdir"]),
        ("sg3 train --aug ", ["noaug", "ada", "fixed", "schedule"]),
        ("sg3 completion ", ["bash", "zsh", "fish"]),
        ("sg3 completion f", ["fish"]),
    ],
)
def test_answers(line: str, answers: list[str]) -> None:
    assert ask(line) == answers


def test_paths_are_left_to_the_shell() -> None:
    assert ask("sg3 doctor --outdir ") == ["file,"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_says_how_to_install_it(shell: str) -> None:
    done = subprocess.run([*SG3, "completion", shell], capture_output=True, text=True, check=True, timeout=60)
    assert done.stderr == ""
    assert f"_SG3_COMPLETE={shell}_complete" in done.stdout
    assert sum(line.startswith("# To install: ") for line in done.stdout.splitlines()) == 1
    if shell == "zsh":
        assert done.stdout.startswith("#compdef sg3\n")
    if shutil.which(shell):
        subprocess.run([shell, "-n"], input=done.stdout, text=True, check=True)


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
def test_bash_completes_with_it(tmp_path: Path) -> None:
    program = tmp_path / "sg3"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m sg3 "$@"\n')
    program.chmod(0o755)
    session = """
        source <(sg3 completion bash)
        complete -p sg3
        COMP_WORDS=(sg3 doctor --j) COMP_CWORD=2
        _sg3_completion sg3 --j doctor
        echo "${COMPREPLY[@]}"
    """
    environ = {**os.environ, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    words = ["bash", "--norc", "-c", session]
    done = subprocess.run(words, capture_output=True, text=True, check=True, env=environ)
    assert done.stdout.splitlines() == ["complete -o nosort -F _sg3_completion sg3", "--json"]
