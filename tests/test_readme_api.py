"""The Python in README.md, and on the page that it leads to, runs as it stands, where the files exist that it names.

A line `<!-- not run -->` above a block exempts it.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

import sg3
from sg3.formats import Snapshot
from sg3.models import stylegan3
from tests.helpers.image_files import write_dataset

ROOT = Path(__file__).resolve().parent.parent
FENCES = re.compile(r"(<!-- not run -->\s*\n)?^```python\n(.*?)^```", flags=re.MULTILINE | re.DOTALL)
README = [block for exempt, block in FENCES.findall((ROOT / "README.md").read_text()) if not exempt]
BLOCKS = README + [block for exempt, block in FENCES.findall((ROOT / "docs" / "use.md").read_text())
                   if not exempt and block not in README]  # fmt: skip
CHECK = """
if "img" in globals():
    assert img.shape[1:] == (3, 16, 16), img.shape
    assert img.isfinite().all()
"""


def write_inputs(block: str, folder: Path) -> None:
    """A tiny StyleGAN3, dataset or picture under each name of a file, as far as the block does not write it."""
    for name in set(re.findall(r"""["']([^"'\s:]+\.(?:pkl|safetensors|zip|png|jpg))["']""", block)):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix in (".pkl", ".safetensors"):
            G = stylegan3.Generator(8, 0, 8, 16, 3, channel_base=128, channel_max=8, num_layers=4)
            sg3.save(Snapshot(G_ema=G), path)
        elif path.suffix == ".zip":
            write_dataset(path)
        else:
            Image.new("RGB", (16, 16), "red").save(path)


def test_there_is_python_in_the_readme() -> None:
    assert any("sg3.load(" in block for block in README)


@pytest.mark.parametrize("block", BLOCKS, ids=[f"block{i}" for i in range(len(BLOCKS))])
def test_python_of_the_readme(block: str, tmp_path: Path) -> None:
    """In a process of its own, which may change what it imports; an image called `img` is a picture of the network."""
    write_inputs(block, tmp_path)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", block + CHECK], cwd=tmp_path, env=environment, text=True,
                          capture_output=True, timeout=120)  # fmt: skip
    assert done.returncode == 0, done.stderr
