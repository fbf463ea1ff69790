"""`sg3 dataset`: what it prints, and its exit codes."""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.helpers import lives
from tests.helpers.image_files import encoded, files_below, pixels, write_folder, write_zip

from .conftest import Outcome

Run = Callable[..., Outcome]
FILES = {f"{i}.png": encoded(pixels(i)) for i in range(4)}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "in", FILES)


def test_command(sg3: Run, source: Path, dest: Path) -> None:
    outcome = sg3(f"--source={source}", f"--dest={dest}", "--resolution=8x8")
    assert outcome.err == "note: images of 8 x 8 are for --cfg=r3gan; the other systems take larger ones\n"
    assert outcome[:2] == (0, f"{dest}: 4 images, 8x8, 3 channels, no labels\n")
    outcome = sg3("--source", str(source), "--dest", str(dest), "--resolution=16", "--force=1", "--json")
    assert outcome.code == 0
    assert json.loads(outcome.out) == {
        "path": str(dest), "num_images": 4, "resolution": 16, "channels": 3, "label_dim": 0, "skipped": [],
        "notes": ["4 images are smaller than the resolution and were enlarged"]}
    assert outcome.err == "note: 4 images are smaller than the resolution and were enlarged\n"


@pytest.mark.parametrize(("arguments", "code", "message"), [
    (["--source={in}"], 2, "Missing option '--dest'"),
    (["--source={in}", "--dest={out}", "--resolution=axb"], 2, "'axb' is not a size"),
    (["--source={in}", "--dest={out}", "--resolution=12"], 2,
     "powers of two from 8 to 8192, e.g. --resolution=8x8"),
    (["--source={in}", "--dest={out}", "--resolution=4"], 2, "e.g. --resolution=8x8"),
    (["--source={in}", "--dest={out}", "--resolution=63"], 2, "e.g. --resolution=64x64\n"),
    (["--source={in}", "--dest={out}", "--resolution=65536"], 2, "e.g. --resolution=8192x8192"),
    (["--source=openmoji", "--dest={out}", "--resolution=2048"], 2, "openmoji: is drawn up to 1024 x 1024"),
    (["--source={in}", "--dest={in}"], 2, "not empty"),
    (["--source={in}/none", "--dest={out}"], 66, "no such file or folder"),
    (["--source={in}", "--dest={in}/0.png/x.zip"], 74, "nothing was written"),
    (["--source={in}", "--dest={out}", "--labels=json"], 65, "no labels stored"),
])
def test_command_refuses(
    sg3: Run, tmp_path: Path, source: Path, arguments: list[str], code: int, message: str
) -> None:
    places = {"in": str(source), "out": str(tmp_path / "out.zip")}
    before = files_below(tmp_path)
    outcome = sg3(*(argument.format(**places) for argument in arguments))
    assert (outcome.code, outcome.out) == (code, "")
    assert outcome.err.startswith("error: ")
    assert message in outcome.err
    assert outcome.err.count("\n") == 1
    assert files_below(tmp_path) == before


def test_command_lists_offenders(sg3: Run, tmp_path: Path, dest: Path) -> None:
    files = {f"{i:02d}.png": encoded(pixels(0)[:4]) for i in range(15)} | FILES
    source = write_folder(tmp_path / "in", files)
    outcome = sg3(f"--source={source}", f"--dest={dest}")
    lines = outcome.err.splitlines()
    assert outcome.code == 65
    assert lines[0] == f"unusable: {source}/00.png: 8x4, not square; StyleGAN2 and 3 want sides of at least 16 pixels"
    assert lines[10] == "unusable: 5 more"
    assert lines[11].startswith("error: in: 15 of 19 images cannot be used")
    outcome = sg3(f"--source={source}", f"--dest={dest}", "--on-error=skip")
    assert outcome.code == 0
    assert "4 images, 15 left out" in outcome.out
    assert outcome.err.splitlines()[-2] == "left out: 5 more"


def test_command_on_hostile_files(sg3: Run, tmp_path: Path, dest: Path) -> None:
    huge = bytearray(FILES["0.png"])
    huge[16:24] = struct.pack(">II", 30_000, 30_000)
    bomb = write_zip(tmp_path / "in.zip", {"a.png": FILES["0.png"] + bytes(20 << 20)}, compression=8)
    outside = write_zip(tmp_path / "outside.zip", {"../a.png": FILES["0.png"]})
    cut = tmp_path / "cut.zip"
    cut.write_bytes(bomb.read_bytes()[:1000])
    for source in (bomb, outside, cut, write_folder(tmp_path / "huge", {"a.png": bytes(huge)})):
        outcome = sg3(f"--source={source}", f"--dest={dest}")
        assert outcome.code == 65, outcome
        assert not dest.exists()


def test_preparing_does_not_load_torch() -> None:
    check = "import sys, sg3.cli.dataset, sg3.data.prepare; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0


def hanging_while_it_writes(marker: Path) -> None:
    import sg3.data.prepare

    plain = sg3.data.prepare.image_name

    def image_name(index: int) -> str:
        if index == 2:
            marker.touch()
            time.sleep(60)
        return plain(index)

    sg3.data.prepare.image_name = image_name


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_ended_while_it_writes(source: Path, tmp_path: Path, number: signal.Signals) -> None:
    """By a job scheduler, a closed terminal or a person: all clean up, and it is no error."""
    words = ["dataset", f"--source={source}", f"--dest={tmp_path / 'new' / 'out.zip'}"]
    process = lives.begin(lives.command, words, tmp_path, hanging_while_it_writes, tmp_path / "marker")
    lives.wait_for((tmp_path / "marker").exists, process)
    assert list((tmp_path / "new").iterdir())
    assert process.pid is not None
    os.kill(process.pid, number)
    process.join(10)
    process.kill()
    assert process.exitcode == 130
    assert not (tmp_path / "new").exists()
    assert (tmp_path / "err.txt").read_text().strip() == "interrupted"
