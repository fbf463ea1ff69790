"""Notebooks: run in a kernel of this Python, and rid of what the next reader has no use for.

    python -m tests.helpers.notebooks docs/notebook.ipynb      # runs it and puts its results into the file
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import nbformat
from nbclient import NotebookClient


def run(path: Path, folder: Path, seconds: int = 600) -> nbformat.NotebookNode:
    """The notebook with the results of all of its cells, which work in `folder`. Raises CellExecutionError."""
    notebook = nbformat.read(path, as_version=4)
    where = {"metadata": {"path": str(folder)}}
    client = NotebookClient(notebook, timeout=seconds, kernel_name="python3", resources=where)
    return client.execute(env={**os.environ, "TTY_INTERACTIVE": "0"})


def clean(notebook: nbformat.NotebookNode, folder: Path) -> None:
    """Leave pictures and text: without widgets, warnings of libraries, and the folder's name; lines together."""
    notebook.metadata = {"kernelspec": notebook.metadata.kernelspec, "language_info": {"name": "python"}}
    for cell in notebook.cells:
        cell.metadata = {}
        if cell.cell_type == "code":
            outputs: list[Any] = []
            for output in (kept for one in cell.outputs if (kept := _clean_output(one, folder)) is not None):
                streams = [x.get("name") for x in (output, *outputs[-1:]) if x.output_type == "stream"]
                if len(streams) == 2 and streams[0] == streams[1]:
                    outputs[-1].text += output.text
                else:
                    outputs.append(output)
            cell.outputs = outputs


def _clean_output(output: Any, folder: Path) -> Any:
    if output.output_type == "stream":
        output.text = output.text.replace(f"{folder}/", "")
        is_warning = output.name == "stderr" and re.search(r"\w+Warning: ", output.text)
        return None if is_warning or not output.text.strip() else output
    if output.output_type == "error" or any("widget" in kind for kind in output.data):
        return output if output.output_type == "error" else None
    is_picture = "image/png" in output.data
    shown = {"image/png": output.data["image/png"]} if is_picture else {}
    output.data = {**shown, "text/plain": "a picture" if is_picture else output.data["text/plain"]}
    output.metadata = {}
    return output


def main() -> None:
    path = Path(sys.argv[1])
    with TemporaryDirectory() as folder:
        notebook = run(path, Path(folder), seconds=7200)
        clean(notebook, Path(folder))
    nbformat.write(notebook, path)


if __name__ == "__main__":
    main()
