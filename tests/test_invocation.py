"""The words that start this sg3, as messages print them."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from sg3.invocation import COMMAND, sg3_command


@pytest.fixture
def bin_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a space in its name and a script sg3, not on the PATH; nor is any other sg3."""
    folder = tmp_path / "my env" / "bin"
    folder.mkdir(parents=True)
    (folder / "sg3").write_text(f"#!{sys.executable}\n")
    (folder / "sg3").chmod(0o755)
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.delenv(COMMAND, raising=False)
    return folder


def test_a_script_on_the_path_is_its_name(bin_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [str(bin_folder / "sg3"), "train"])
    assert sg3_command() == f"'{bin_folder}/sg3'"
    monkeypatch.setenv("PATH", f"/usr/bin:{bin_folder}")
    assert sg3_command() == "sg3"
    other = bin_folder.parent / "other"
    other.mkdir()
    (other / "sg3").write_text("")
    (other / "sg3").chmod(0o755)
    monkeypatch.setenv("PATH", f"{other}:{bin_folder}")
    assert sg3_command() == f"'{bin_folder}/sg3'", "another sg3 comes first"


def test_a_module_is_started_by_its_python(bin_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/somewhere/sg3/__main__.py", "train"])
    assert sg3_command() == f"{shlex.quote(sys.executable)} -m sg3"
    monkeypatch.setattr(sys, "executable", str(bin_folder / "python"))
    assert sg3_command() == f"'{bin_folder}/python' -m sg3"
    monkeypatch.setenv("PATH", f"{bin_folder}:/usr/bin")
    assert sg3_command() == "sg3", "that of the same environment"


def test_what_the_parent_says_counts(bin_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(COMMAND, "env/bin/sg3")
    assert sg3_command() == "env/bin/sg3"


def test_the_words_start_it(bin_folder: Path) -> None:
    done = subprocess.run(f"{sg3_command()} --version", shell=True, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("sg3 ")
