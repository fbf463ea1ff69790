"""Lines of metric-NAME.jsonl that cannot be compared are told apart wherever a curve is made of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sg3.api.runs import Run
from sg3.metrics.plot import _bands, _curves, plot
from sg3.metrics.results import MEANING, meaning, unlike
from sg3.viewer.runs import _result

SHA = "0123456789abcdef" * 4


def line(kimg: int, value: float, **recipe: object) -> dict:
    return {"results": {"fid1k_full": value}, "metric": "fid1k_full", "recipe": recipe,
            "snapshot_pkl": f"network-snapshot-{kimg:06d}.pkl",
            "intervals": {"fid1k_full": {"low": value - 1, "high": value + 1}}}  # fmt: skip


def write(folder: Path, *lines: dict) -> Path:
    (folder / "metric-fid1k_full.jsonl").write_text("".join(json.dumps(each) + "\n" for each in lines))
    return folder


@pytest.mark.parametrize("name", MEANING)
def test_each_part_of_the_meaning_counts(name: str) -> None:
    values = {"dataset": ({"sha256": SHA}, {"sha256": SHA[::-1]}), "mirrored": (True, False)}.get(name, ("a", "b"))
    one, other = (meaning(line(0, 1.0, **{name: value})) for value in values)
    assert unlike(one, one) == ""
    assert unlike(one, other) == f"{MEANING[name]} {'01234567' if name == 'dataset' else values[0]}"
    assert unlike(meaning(line(0, 1.0)), other) == ("bars measured" if name == "bars" else "")  # older lines say less
    assert unlike(meaning({"results": {}}), other) == ""  # the original's say nothing


def test_what_may_differ() -> None:
    """Another machine, batch, seed, version, or place of the same images."""
    one = line(0, 1.0, seed=0, device="cpu", batch=4, versions={"sg3": "1"}, dataset={"sha256": SHA, "name": "a"})
    other = line(1, 1.0, seed=1, device="gpu", batch=8, versions={"sg3": "2"}, dataset={"sha256": SHA, "name": "b"})
    assert unlike(meaning(one), meaning(other)) == ""


def test_curves_with_and_without_bars(tmp_path: Path) -> None:
    cut = {"bars": "cut off, 256x144 left"}
    folder = write(tmp_path, line(0, 50.0), line(1, 20.0), line(1, 40.0, **cut), line(2, 30.0, **cut))
    assert _curves(folder, "fid1k_full") == {
        "fid1k_full (bars measured)": {0: 50.0, 1: 20.0},
        "fid1k_full (bars cut off, 256x144 left)": {1: 40.0, 2: 30.0},
    }
    assert _bands(folder, "fid1k_full")["fid1k_full (bars measured)"] == {0: (49.0, 51.0), 1: (19.0, 21.0)}
    assert plot(folder, tmp_path / "a.png") == 1
    known = Run(folder).metrics()["fid1k_full"]
    assert (known["kimg"].tolist(), known["fid1k_full"].tolist()) == ([1.0, 2.0], [40.0, 30.0])
    shown = _result(line(2, 30.0, **cut))
    assert shown == (2, ({"fid1k_full": 30.0}, {"bars": "cut off, 256x144 left"}))


def test_one_curve_of_what_is_alike(tmp_path: Path) -> None:
    folder = write(tmp_path, line(0, 50.0, seed=0), line(1, 20.0, seed=1))
    assert _curves(folder, "fid1k_full") == {"fid1k_full": {0: 50.0, 1: 20.0}}
    assert Run(folder).metrics()["fid1k_full"]["fid1k_full"].tolist() == [50.0, 20.0]
    assert Run(write(tmp_path)).metrics() == {"fid1k_full": {}}
