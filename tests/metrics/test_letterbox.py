"""Metrics of images between black bars: of what lies between, of real and of generated ones alike."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import sg3
from sg3.errors import UsageError
from sg3.formats import Snapshot
from sg3.metrics import RealImages, compute
from sg3.metrics.functional import frechet_distance
from sg3.metrics.names import parse
from sg3.metrics.samples import Samples, random_labels
from tests.helpers.for_tools import saved, tiny2, tiny3
from tests.helpers.image_files import encoded, write_transparent, write_zip
from tests.helpers.pixel_detectors import pixel_detectors

BETWEEN = (12, 16)  # height and width
EVERYTHING = ["fid12_full", "pr12_3_full", "is12", "ppl4_wend", "fwd12_full", "auth12"]


def images(bars: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (20, 16, 16, 3)).astype(np.uint8)
    pixels[:, :2] = pixels[:, -2:] = bars
    return list(pixels)


def real(tmp_path: Path, bars: int = 0) -> RealImages:
    return RealImages(write_transparent(tmp_path / f"{bars}.zip", images(bars)))


def measured(G: torch.nn.Module, data: RealImages, names: list[str], **options: Any) -> list[Any]:
    settings = {"device": "cpu", "batch": 8, "detectors": pixel_detectors(), "visible": BETWEEN, **options}
    return compute([parse(name) for name in names], G, data, **settings)


def values(results: list[Any]) -> dict[str, float]:
    return {name: value for result in results for name, value in result.results.items()}


def test_bars_count_for_nothing(tmp_path: Path) -> None:
    """Whatever is in them, of real images; of generated ones, they are as the network left them. And the statistics of
    real images that are kept are told apart."""
    G = tiny2()
    black, white = (values(measured(G, real(tmp_path, bars), EVERYTHING)) for bars in (0, 255))
    assert black == white
    whole = [values(measured(G, real(tmp_path, bars), EVERYTHING, bars=True)) for bars in (0, 255)]
    assert whole == [values(measured(G, real(tmp_path, bars), EVERYTHING, visible=None)) for bars in (0, 255)]
    compared = ("fid12_full", "fwd12_full")
    assert all(len({black[name], *(found[name] for found in whole)}) == 3 for name in compared)
    assert black["ppl4_wend"] != whole[0]["ppl4_wend"] == whole[1]["ppl4_wend"]


def test_both_sets_are_cut_alike(tmp_path: Path) -> None:
    G, detector = tiny3(), pixel_detectors()["inception"]
    data = real(tmp_path)
    samples = Samples(G, random_labels(G, None, 0), 0, batch=8)
    made = torch.cat([samples.images(part) for part in samples.chunks(12)])[:12]
    reals = torch.stack([torch.from_numpy(image) for image, _ in data.open()])
    expected = frechet_distance(*(detector.features(x[:, :, 2:14]) for x in (reals, made)))
    results = measured(G, data, ["fid12_full", "eqt4_int"])
    assert results[0].results["fid12_full"] == pytest.approx(expected, rel=1e-9)
    assert [result.recipe.get("bars") for result in results] == ["cut off, 16 x 12 left", None]
    assert results[0].recipe["resize"].endswith("stretched from 16 x 12")
    whole = measured(G, data, ["fid12_full", "eqt4_int"], bars=True)
    assert [result.recipe.get("bars") for result in whole] == ["measured", None]
    assert "stretched" not in whole[0].recipe["resize"]
    assert values(whole)["eqt4_int"] == values(results)["eqt4_int"]
    none = measured(G, data, ["fid12_full"], visible=(16, 16))[0]
    assert (none.results, "bars" in none.recipe) == (whole[0].results, False)


def test_sheet(tmp_path: Path) -> None:
    sheet = tmp_path / "sheet.png"
    measured(tiny2(), real(tmp_path, 255), ["auth12"], sheet=sheet)
    cut = sheet.read_bytes()
    measured(tiny2(), real(tmp_path, 0), ["auth12"], sheet=sheet)
    assert sheet.read_bytes() == cut


def letterboxed(folder: Path, visible: tuple[int, int] = BETWEEN) -> Path:
    entries = {f"00000/img{i:08d}.png": encoded(image) for i, image in enumerate(images(0))}
    record = {"transform": "center-crop-wide", "scaled_to": list(visible[::-1])}
    return write_zip(folder / f"cars{visible[0]}.zip", entries | {"dataset.json": json.dumps({"sg3": record}).encode()})


def test_command(run: Any, tmp_path: Path) -> None:
    """The network's file or the data set says what lies between; a run's results are known for that only."""
    run_dir = tmp_path / "00000-run"
    run_dir.mkdir()
    (run_dir / "training_options.json").write_text("{}")
    data = letterboxed(tmp_path)
    path = run_dir / "network-snapshot-000000.pkl"
    saved(tiny2(), path)  # it says nothing
    asked = ["metrics", f"--network={path}", f"--data={data}", "--metrics=fwd12_full", "--json"]
    first, again, whole = (run(*asked, *more) for more in ((), (), ("--bars",)))
    assert first.code == 0, first.err
    assert "note: network-snapshot-000000.pkl: black bars are cut off, 16 x 12 are measured (--bars: all)" in first.err
    assert json.loads(first.out)["recipe"]["bars"] == "cut off, 16 x 12 left"
    assert json.loads(again.out) == json.loads(first.out)
    assert json.loads(whole.out)["recipe"]["bars"] == "measured"
    assert json.loads(whole.out)["results"] != json.loads(first.out)["results"]
    assert len((run_dir / "metric-fwd12_full.jsonl").read_text().splitlines()) == 2

    sg3.save(Snapshot(G_ema=tiny2(), training_set_kwargs={"visible": list(BETWEEN)}), path)
    other = real(tmp_path)  # nothing is said of its bars
    assert sg3.evaluate(path, "fwd12_full", data=other.path, device="cpu") == json.loads(first.out)["results"]
    assert sg3.evaluate(path, "fwd12_full", data=other.path, bars=True, device="cpu") == \
        json.loads(whole.out)["results"]
    with pytest.raises(UsageError, match="images of 16 x 8 between black bars, the network makes 16 x 12"):
        sg3.evaluate(path, "fwd12_full", data=letterboxed(tmp_path, (8, 16)), device="cpu")
