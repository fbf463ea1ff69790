"""What the demo's pictures must look like, in figures.

The whole demo takes about ten minutes on two cores: `pytest -m slow tests/train/test_demo.py`. A finished run's folder
in SG3_DEMO_RUN is judged instead of a new one.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench.pictures import Judgement, judge
from sg3.run_folder import metric_path, snapshots

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def demo(tmp_path_factory) -> Path:
    """The folder of a finished demo run."""
    if os.environ.get("SG3_DEMO_RUN"):
        return Path(os.environ["SG3_DEMO_RUN"])
    outdir = tmp_path_factory.mktemp("demo")
    command = [sys.executable, "-m", "sg3", "train", "--preset=demo", f"--outdir={outdir}"]
    began = time.monotonic()
    subprocess.run(command, check=True, timeout=900)
    assert time.monotonic() - began < 12 * 60
    return next(outdir.glob("00000-*"))


@pytest.fixture(scope="module")
def judged(demo: Path) -> list[Judgement]:
    """The last two snapshots."""
    found = list(judge(demo, 2, {}))
    for judgement in found:
        print(judgement)
    return found


def test_the_distance_falls(demo: Path) -> None:
    lines = [json.loads(line) for line in metric_path(demo, "fd_efflite500_full").read_text().splitlines()]
    values = [line["results"]["fd_efflite500_full"] for line in lines]
    print(values)
    assert values[-1] <= 0.5 * values[0]
    assert max(values[-2:]) <= 120


def test_pictures_are_near_all_kinds_of_real_images(judged: list[Judgement]) -> None:
    assert min(min(judgement.coverage, judgement.coverage0) for judgement in judged) >= 0.3


def test_pictures_differ(judged: list[Judgement]) -> None:
    assert min(min(judgement.spread, judgement.pixels) for judgement in judged) >= 0.6


def test_run_folder_is_complete(demo: Path) -> None:
    for pattern in ("network-snapshot-*.pkl", "training-state-*.pt", "fakes0*.png", "stats.jsonl", "reals.png"):
        assert list(demo.glob(pattern)), pattern
    assert len(snapshots(demo)) >= 6
