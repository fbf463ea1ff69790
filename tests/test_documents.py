"""What the documents name is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.conftest import ROOT

DOCUMENTS = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]
FILES = [path.relative_to(ROOT).as_posix() for top in ("sg3", "tests", "bench", "docs", "constraints")
         for path in ROOT.glob(f"{top}/**/*") if path.is_file()]  # fmt: skip


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_files_that_a_document_names_exist(document: Path) -> None:
    text = document.read_text()
    links = [name for name in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in name]
    assert [name for name in links if not (document.parent / name).exists()] == []
    modules = re.findall(r"`((?:[a-z_0-9]+/)*[a-z_0-9]+\.py)`", text)  # in full or from any folder on
    unknown = [name for name in modules if not any(f"/{file}".endswith(f"/{name}") for file in FILES)]
    assert unknown == []
