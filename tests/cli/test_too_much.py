"""Options that ask for more than a machine has: one line before anything is started, however long the number is."""

from __future__ import annotations

from pathlib import Path

import pytest

import sg3
from tests.helpers import tiny_networks
from tests.helpers.runs import TINY_ARGS

LONG = "9" * 5000  # digits, of which Python converts 4300
GENERATE = ["generate", "--network=NET", "--outdir=OUT"]
VIDEO = ["video", "--network=NET", "--output=OUT/a.mp4", "--seeds=0,1"]
TRAIN = ["train", "--data=DATA", "--outdir=OUT"]
METRICS = ["metrics", "--network=NET"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([*GENERATE, f"--seeds={LONG}"], "is out of range, numbers go from 0 to 4294967295"),
        ([*GENERATE, f"--seeds=0-{LONG}"], "is out of range, numbers go from 0 to 4294967295"),
        ([*GENERATE, "--seeds=0", f"--grid={LONG}x1"], "is not columns x rows"),
        ([*GENERATE, "--seeds=0", f"--class={LONG}"], "is not a valid integer"),
        ([*VIDEO, f"--bitrate={LONG}"], "is not a bit rate"),
        ([*VIDEO, f"--fps={LONG}"], "--fps"),
        ([*VIDEO, "--grid=999999x999999"], "at most 10000 tiles"),
        (["style-mix", "--network=NET", "--rows=0", "--cols=1", f"--styles={LONG}", "--outdir=OUT"], "is no layer"),
        (["directions", "--network=NET", f"--layers=0-{LONG}", "--outdir=OUT"], "is no layer"),
        (["dataset", "--source=DATA", "--dest=OUT.zip", f"--resolution={LONG}"], "is not a size"),
        (["dataset", "--source=DATA", "--dest=OUT.zip", "--resolution=99999x99999"], "powers of two from 8 to 8192"),
        ([*TRAIN, "--grid=999999999x999999999"], "expected at most 10000 images"),
        ([*TRAIN, f"--grid={LONG}x1"], "expected columns x rows"),
        ([*TRAIN, f"--kimg={LONG}"], "expected a whole number"),
        ([*TRAIN, "--batch=1000000000000"], "expected 1 to 100000"),
        ([*TRAIN, "--workers=100000"], "expected 0 to 256"),
        ([*TRAIN, "--threads=100000"], "expected 1 to 512"),
        ([*TRAIN, "--gpus=100000", "--batch=100000"], "CPUs for"),
        ([*TRAIN, "--cfg=r3gan", "--blocks=100000"], "expected 1 to 64"),
        ([*TRAIN, "--cfg=fastgan", "--ndf=1000000000"], "expected 1 to 16384"),
        ([*TRAIN, "--cfg=fastgan", "--blur-sigma=1e300"], "expected 0 to 100"),
        ([*TRAIN, f"--metrics=fid{LONG}k_full"], "unknown; choose from"),
        ([*TRAIN, "--metrics=eqt999999999k_int"], "takes at most 10000000 generated images"),
        ([*METRICS, "--metrics=pr50k999999999"], "needs at least 1 neighbour, and takes 1000"),
        ([*METRICS, "--metrics=eqt16_int", "--gpus=100000", "--device=cpu"], "CPUs for"),
        ([*METRICS, "--metrics=eqt16_int", "--workers=100000"], "--workers"),
        (["train", "--data=openmoji:65536", "--outdir=OUT"], "powers of two from 8 to 8192"),
    ],
    ids=lambda value: " ".join(value)[:70] if isinstance(value, list) else "",
)
def test_too_much(words: list[str], message: str, discs: Path, run, tmp_path: Path) -> None:
    network = tmp_path / "net.pkl"
    sg3.save(sg3.Snapshot(G_ema=tiny_networks.generator3()), network)
    for name, place in {"NET": network, "OUT": tmp_path / "out", "DATA": discs}.items():
        words = [word.replace(name, str(place)) for word in words]
    result = run(*(words if words[0] != "train" else [words[0], *TINY_ARGS[1:], *words[1:]]))
    assert result.code == 2, result.err
    assert message in result.error_line()
    assert len(result.error_line()) < 12_000
    assert not list((tmp_path / "out").glob("*-*"))
