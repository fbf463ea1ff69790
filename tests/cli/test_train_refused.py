"""`sg3 train` with data and options that are wrong: each is named, in one line, with the right exit code."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from PIL import Image

from tests.helpers.runs import TINY_ARGS


def broken_png(folder: Path) -> None:
    for i in range(4):
        Image.new("RGB", (16, 16), (i, 0, 0)).save(folder / f"{i}.png")
    data = (folder / "2.png").read_bytes()
    (folder / "2.png").write_bytes(data[: len(data) // 2])


def sized(folder: Path, *sizes: tuple[int, int]) -> None:
    for i, size in enumerate(sizes):
        Image.new("RGB", size).save(folder / f"{i}.png")


WRONG_DATA = {
    "empty": (lambda d: None, 65, "no images"),
    "not square": (lambda d: sized(d, (16, 12)), 65, "0.png"),
    "odd size": (lambda d: sized(d, (18, 18)), 65, "expected a power of two"),
    "mixed sizes": (lambda d: sized(d, (16, 16), (16, 16), (32, 32), (16, 16)), 65, "2.png"),
    "broken": (broken_png, 65, "2.png"),
}


@pytest.mark.parametrize("case", WRONG_DATA)
def test_wrong_data_is_named(run, tmp_path: Path, case: str) -> None:
    make, code, words = WRONG_DATA[case]
    data = tmp_path / "images"
    data.mkdir()
    make(data)
    result = run("train", f"--outdir={tmp_path / 'runs'}", f"--data={data}", *TINY_ARGS)
    assert result.code == code, result.err
    assert words in result.error_line()
    assert not list(tmp_path.glob("runs/*"))


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (["--data=nowhere.zip"], 66, "nowhere.zip"),
        ([], 2, "--data: needed"),
        (["--preset=demmo"], 2, "--preset=demmo: unknown, did you mean demo?"),
        (["--data=DISCS", "--batch=6", "--batch-gpu=4"], 2, "--batch=6: must be a multiple"),
        (["--data=DISCS", "--batch=0"], 2, "--batch"),
        (["--data=DISCS", "--cfg=stylegan4"], 2, "stylegan4"),
        (["--data=DISCS", "--gamma=lots"], 2, "lots"),
        (["--data=DISCS", "--p=0.5"], 2, "--p: belongs to --aug=fixed, not to --aug=ada"),
        (["--data=DISCS", "--metrics=fid"], 2, "metric 'fid': unknown; choose from fid50k_full"),
        (["--data=DISCS", "--metrics=eqr1k", "--cfg=stylegan2"], 2, "--metrics=eqr1k: measures how images follow"),
        (["--data=DISCS", "--config=none.toml"], 66, "--config=none.toml: there is no such file"),
        (["--data=DISCS", "--gpus=3"], 2, "--batch=32: must be a multiple of --gpus=3"),
        (["--data=DISCS", "--cond=1"], 2, "has no labels"),
        (["--data=DISCS", "--grid=3"], 2, "expected columns x rows, like 8x4"),
        (["--data=DISCS", "--device=tpu"], 2, "--device=tpu: expected auto, cpu, cuda or cuda:N"),
        (["--data=DISCS", "--resume=nothing.pkl"], 66, "nothing.pkl"),
        (["--data=openmoji:a:b:c"], 2, "--data=openmoji:a:b:c"),
        (["--data=openmoji:a:alpha:b"], 2, "openmoji:faces:64 or openmoji:faces:alpha:64"),
        (["--continue=nowhere"], 66, "--continue=nowhere: there is no such folder"),
        (["--continue=latest"], 66, "holds no run"),
    ],
)
def test_wrong_options_are_named(discs: Path, run, tmp_path: Path, args: list[str], code: int, words: str) -> None:
    args = [arg.replace("DISCS", str(discs)) for arg in args]
    tiny = [] if any("--continue" in arg for arg in args) else TINY_ARGS[1:]
    result = run("train", f"--outdir={tmp_path}", *tiny, *args)
    assert result.code == code, result.err
    assert words in result.error_line()
    assert list(tmp_path.iterdir()) == [], "no folder for a run that cannot begin"


def test_outdir_is_needed(discs: Path, run) -> None:
    assert "--outdir: needed" in run("train", f"--data={discs}").error_line()


def test_no_permission_to_write(discs: Path, run, tmp_path: Path) -> None:
    """Root may write anywhere, so the obstacle here is a file where a folder should be, and a read-only file system."""
    (tmp_path / "file").write_text("")
    result = run("train", f"--outdir={tmp_path / 'file' / 'runs'}", f"--data={discs}", *TINY_ARGS)
    assert result.code == 74
    assert f"nothing was written: {tmp_path / 'file'} is no folder" in result.error_line()
    if os.access("/proc", os.F_OK):
        result = run("train", "--outdir=/proc/sg3", f"--data={discs}", *TINY_ARGS)
        assert result.code == 74
        assert "/proc/sg3" in result.error_line()


def test_nan_ends_a_run_with_one_line(discs: Path, run, tmp_path: Path) -> None:
    result = run("train", f"--outdir={tmp_path}", f"--data={discs}", "--kimg=1", "--glr=1e30", *TINY_ARGS)
    assert result.code == 70
    assert "in a row without a finite gradient" in result.error_line()
    (run_dir,) = tmp_path.iterdir()
    (report,) = run_dir.glob("failure-*.json")
    assert report.name in result.error_line()
    assert "steps up to 200 images left out, the gradient was not finite" in result.err
    broken = json.loads(report.read_text())
    assert broken["nimg"] == 200
    assert max(entry.get("not_finite") or 0 for entry in broken[broken["phase"][0]].values()) > 0
    assert json.loads((run_dir / "exit.json").read_text())["exit_code"] == 70


def test_unreadable_images_are_passed_over_on_request(run, tmp_path: Path) -> None:
    data = tmp_path / "images"
    data.mkdir()
    broken_png(data)
    args = [f"--outdir={tmp_path / 'runs'}", f"--data={data}", "--kimg=1", "--on-error=skip", *TINY_ARGS]
    result = run("train", *args, "--batch=100", "--mbstd-group=1", "--profile=2")
    assert result.code == 0, result.err
    warnings = [line for line in result.err.splitlines() if line.startswith("warning: ")]
    assert len(warnings) == 1, "each image once"
    assert "2.png" in warnings[0]
    assert warnings[0].endswith("another image takes its place (--on-error=skip)")
    (run_dir,) = (tmp_path / "runs").iterdir()
    events = json.loads((run_dir / "trace.json").read_text())["traceEvents"]
    assert any("optimizer" in str(event.get("name", "")).lower() for event in events)
