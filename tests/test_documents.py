"""What the documents name is there: files, modules, pages of the site, options of commands."""

from __future__ import annotations

import importlib
import re
from itertools import pairwise
from pathlib import Path

import click
import pytest

from sg3.cli import COMMANDS
from tests.conftest import ROOT

DOCUMENTS = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]
FILES = [path.relative_to(ROOT).as_posix() for top in ("sg3", "tests", "bench", "docs", "constraints")
         for path in ROOT.glob(f"{top}/**/*") if path.is_file()]  # fmt: skip
# A line of a code block that begins with a command of one word, after what activates its environment.
COMMAND_LINE = re.compile(r"^(?:.*[ /])?sg3 ([a-z-]+)((?: .*)?)$", flags=re.MULTILINE)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_files_that_a_document_names_exist(document: Path) -> None:
    text = document.read_text()
    links = [name for name in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in name]
    assert [name for name in links if not (document.parent / name).exists()] == []
    modules = re.findall(r"`((?:[a-z_0-9]+/)*[a-z_0-9]+\.py)`", text)  # in full or from any folder on
    unknown = [name for name in modules if not any(f"/{file}".endswith(f"/{name}") for file in FILES)]
    assert unknown == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_options_in_a_document_exist(document: Path) -> None:
    """In the lines of code blocks that call sg3; nor does a command get a word that it has no use for."""
    wrong = []
    for block in re.findall(r"^ *```\w*\n(.*?)^ *```", document.read_text(), flags=re.MULTILINE | re.DOTALL):
        for name, rest in COMMAND_LINE.findall(block):
            if name not in COMMANDS:
                continue
            command = importlib.import_module(COMMANDS[name][0]).command
            known = {"--help", "--debug"}
            for one in command.commands.values() if isinstance(command, click.Group) else [command]:
                known |= {option for parameter in one.params for option in (*parameter.opts, *parameter.secondary_opts)}
            rest = re.split(r" [#|>]|&&", rest)[0]
            wrong += [f"sg3 {name} {option}" for option in re.findall(r" (--[a-z][a-z0-9_-]*)", rest)
                      if option not in known]  # fmt: skip
            if not isinstance(command, click.Group) and not any(isinstance(p, click.Argument) for p in command.params):
                wrong += [f"sg3 {name} {word}" for before, word in pairwise(["", *rest.split()])
                          if word != "..." and "-" not in (word[0], before[:1])]  # fmt: skip
    assert wrong == []


def test_the_site_has_every_page() -> None:
    pages = set(re.findall(r"^([a-z0-9-]+)$", (ROOT / "docs" / "index.md").read_text(), flags=re.MULTILINE))
    found = [*ROOT.glob("docs/*.md"), *ROOT.glob("docs/*.ipynb")]
    assert pages == {path.stem for path in found} - {"index"}


def test_the_first_page_leads_to_every_page_for_users() -> None:
    """Those of how something works inside are reached from them."""
    text = (ROOT / "README.md").read_text()
    inside = {"index", "filtered-lrelu-kernel", "memory-formats", "static-model", "busy-machines"}
    missing = [path.name for path in ROOT.glob("docs/*.md") if path.stem not in inside and path.name not in text]
    assert missing == []
