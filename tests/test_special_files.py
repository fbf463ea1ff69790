"""Pipes that nobody writes to and devices without an end, wherever a command takes a path: refused, not waited for."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import sg3
from tests.helpers import tiny_networks
from tests.helpers.runs import TINY_ARGS

pytestmark = pytest.mark.skipif(not Path("/dev/zero").exists(), reason="needs devices")
NET = "--network=FOLDER/net.pkl"
COMMANDS = [
    ["info", "PLACE"],
    ["generate", "--network=PLACE", "--seeds=0", "--outdir=FOLDER/out"],
    ["train", "--data=PLACE", "--outdir=FOLDER/out", *TINY_ARGS],
    ["train", "--config=PLACE.toml", "--outdir=FOLDER/out", *TINY_ARGS],
    ["train", "--continue=FOLDER/run"],
    ["dataset", "--source=PLACE", "--dest=FOLDER/made.zip"],
    ["dataset", "--source=PLACE.zip", "--dest=FOLDER/made.zip"],
    ["dataset", "--source=PLACE.tar.gz", "--dest=FOLDER/made.zip"],
    ["dataset", "--source=PLACE-images-idx3-ubyte.gz", "--dest=FOLDER/made.zip"],
    ["video", NET, "--latents=PLACE.npz", "--output=FOLDER/a.mp4"],
    ["video", NET, "--latents=PLACE.npy", "--output=FOLDER/a.mp4"],
    ["video", NET, "--latents=PLACE.pt", "--output=FOLDER/a.mp4"],
    ["project", NET, "--target=PLACE.png", "--outdir=FOLDER/out"],
    ["project", NET, "--target=PLACE.zip", "--outdir=FOLDER/out"],
]


@pytest.mark.timeout(60)
@pytest.mark.parametrize("kind", ["pipe", "device"])
@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: " ".join(words[:3]))
def test_special_files(words: list[str], kind: str, run, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    for name in ("a", "a.toml", "a.zip", "a.tar.gz", "a-images-idx3-ubyte.gz", "a.npz", "a.npy", "a.pt", "a.png",
                 "run/training_options.json"):  # fmt: skip
        if kind == "pipe":
            os.mkfifo(tmp_path / name)
        else:
            (tmp_path / name).symlink_to("/dev/zero")
    sg3.save(sg3.Snapshot(G_ema=tiny_networks.generator3()), tmp_path / "net.pkl")
    result = run(*(word.replace("PLACE", f"{tmp_path}/a").replace("FOLDER", str(tmp_path)) for word in words))
    assert result.code in (65, 66), result.err
    assert str(tmp_path) in result.error_line()
    assert "a bug in sg3" not in result.err
