"""Folders that look like those of runs, with networks that were never trained."""

from __future__ import annotations

import json
from pathlib import Path

from PIL import Image


def tick(kimg: float, loss: float) -> str:
    """A line of stats.jsonl."""
    entries = {"Progress/kimg": kimg, "Loss/G/loss": loss, "Timing/x": 1.0}
    return json.dumps({name: {"num": 1, "mean": value, "std": 0.0} for name, value in entries.items()}) + "\n"


def run_folder(folder: Path) -> Path:
    """Options, two ticks and a line cut off, a metric, real images (red) and fakes (blue); no snapshots."""
    folder.mkdir(parents=True)
    (folder / "training_options.json").write_text("{}")
    (folder / "stats.jsonl").write_text(tick(0, 1.5) + tick(4, 1.25) + "cut of")
    line = {"results": {"fid50k": 12.5}, "metric": "fid50k", "snapshot_pkl": "network-snapshot-000004.pkl"}
    (folder / "metric-fid50k.jsonl").write_text(json.dumps(line) + "\nnot json\n")
    Image.new("RGB", (8, 8), "red").save(folder / "reals.png")
    Image.new("RGB", (8, 8), "blue").save(folder / "fakes000004.png")
    return folder
