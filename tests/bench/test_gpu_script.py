"""`python -m bench.gpu`: rehearsed whole, and its promise that a bad step costs its own time only."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from bench import gpu
from bench.machine import ROOT

NEED_A_GPU = {"tune", "waiting"}


def test_the_rehearsal_makes_every_step(tmp_path: Path) -> None:
    """The time is far more than they need, so that a busy machine does not cut one off."""
    done = subprocess.run(
        [sys.executable, "-m", "bench.gpu", "--minutes=8", "--device=cpu", f"--out={tmp_path}"], cwd=ROOT, check=False,
        capture_output=True, text=True,
    )  # fmt: skip
    report = json.loads((tmp_path / "gpu.json").read_text())
    log = (tmp_path / "log.txt").read_text()
    assert done.returncode == 0, log
    assert report["rehearsal"] is True
    steps = report["steps"]
    assert list(steps) == [step.name for step in gpu.STEPS]
    for name, found in steps.items():
        if name in NEED_A_GPU:
            assert found["skipped"], name
        else:
            assert found["ended"] == "exit code 0", log
    assert steps["tests"]["skipped"] > 0, "there is no GPU here"
    for name in ("ops", "networks"):
        found = steps[name]["times_as_fast_as_ref"]
        assert found
        assert all(ratios["ref"] == 1 and ratios["torch"] > 0 for ratios in found.values())
        assert len(json.loads((tmp_path / f"{name}.json").read_text())["cases"]) == steps[name]["cases"] == len(found)
    assert steps["cold_start"]["measured"][0]["first_image_s"] > 0
    assert {entry["option"] for entry in steps["options"]["measured"]} == {"plain", "graphs", "nhwc"}
    assert sorted(steps["training"]["files"]) == ["fakes.png", "reals.png", "stats.jsonl"]
    assert len(list(tmp_path.iterdir())) <= 8


def make(tmp_path: Path, steps: list[gpu.Step], minutes: float) -> dict[str, Any]:
    plan = gpu.Plan("cpu", tmp_path, None, tmp_path / "work")
    return gpu.run(plan, steps, minutes)["steps"]


def test_what_hangs_crashes_or_is_missing_costs_its_own_share(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(gpu, "machine_facts", lambda _: {})

    def hangs(plan: gpu.Plan, seconds: float) -> dict[str, Any]:
        code = "import subprocess, sys; print('began', flush=True); subprocess.run(['sleep', '100.0625'])"
        return gpu.child(plan, ["-c", code], seconds).summary()

    def crashes(plan: gpu.Plan, seconds: float) -> dict[str, Any]:
        return gpu.child(plan, ["-c", "import os; print('{\"a\": 1}', flush=True); os.abort()"], seconds).summary()

    def misses(plan: gpu.Plan, seconds: float) -> dict[str, Any]:
        gpu.require("os", "no_such_package_at_all")
        return {}

    def raises(plan: gpu.Plan, seconds: float) -> dict[str, Any]:
        raise ValueError("what nobody thought of")

    def works(plan: gpu.Plan, seconds: float) -> dict[str, Any]:
        output = gpu.child(plan, ["-c", "print('{\"fine\": true}')"], seconds)
        return {**output.summary(), "measured": output.results()}

    steps = [gpu.Step(hangs, 1), gpu.Step(crashes, 5), gpu.Step(misses, 1), gpu.Step(raises, 1), gpu.Step(works, 5)]
    found = make(tmp_path, steps, 20 / 60)
    assert found["hangs"]["ended"] == "time over"
    assert found["hangs"]["seconds"] < 4
    assert found["crashes"]["ended"] == "exit code -6"
    assert found["crashes"]["last_lines"] == ['{"a": 1}']
    assert found["misses"] == {"skipped": "needs no_such_package_at_all, not installed here"}
    assert found["raises"] == {"failed": "ValueError: what nobody thought of"}
    assert found["works"]["measured"] == [{"fine": True}]
    assert json.loads((tmp_path / "gpu.json").read_text())["steps"] == found
    assert not sleepers(), "the hanging child's own child went with it"


def sleepers() -> list[Path]:
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if entry.read_bytes() == b"sleep\x00100.0625\x00":
                found.append(entry)
    return found
