"""Tools, metrics and the viewer with networks for images that are not square."""

from __future__ import annotations

from math import degrees, pi
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import sg3
from sg3.metrics import compute, parse
from sg3.models import stylegan2, stylegan3
from sg3.sampling import transformed
from sg3.tools import drag, project, spectra, spectra_plots
from sg3.tools.equivariance import sweep, sweep_amounts
from sg3.tools.perceptual import shrink
from sg3.tools.targets import open_targets
from sg3.viewer.preview import Preview
from sg3.viewer.stepwise import Noise, Stepwise

SIZE = 48, 64


@pytest.fixture(scope="module")
def sg2() -> stylegan2.Generator:
    torch.manual_seed(0)
    G = stylegan2.Generator(8, 0, 8, 64, 3, channel_base=256, channel_max=8, img_size=SIZE)
    return G.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def sg3t() -> stylegan3.Generator:
    torch.manual_seed(0)
    G = stylegan3.Generator(8, 0, 8, 64, 3, channel_base=512, channel_max=16, num_layers=8, img_size=SIZE)
    G = G.eval().requires_grad_(False)
    for _ in range(10):
        G(torch.randn(4, 8), update_emas=True)
    G.synthesis.output_scale /= 4 * float(G(torch.randn(4, 8)).std())
    return G


def test_translation_is_a_part_of_each_side(sg3t) -> None:
    z = torch.randn(1, 8)
    still = sg3t(z)
    with transformed(sg3t, translate=(8 / 64, -6 / 48)):
        moved = sg3t(z)
    inner = still[:, :, 14:40, 8:48], moved[:, :, 8:34, 16:56]
    assert float((inner[0] - inner[1]).abs().max() / still.std()) < 0.01


def test_a_sweep_moves_whole_pixels(sg3t) -> None:
    ws = sg3t.mapping(torch.randn(1, 8), None)
    for transform, most in (("x_t", 8), ("y_t", 6)):
        amounts = sweep_amounts(transform, SIZE, 3)
        assert amounts == [-most, 0, most]
        assert all(step.psnr > 45 for step in sweep(sg3t, ws, transform, amounts))


def cosine_distance(images: torch.Tensor) -> torch.Tensor:
    return shrink(images).flatten(1) / 255


@torch.no_grad()
def test_a_pose_is_what_translate_takes(sg3t) -> None:
    ws = sg3t.mapping(torch.randn(1, 8), None)
    posed = project.synthesize(sg3t, ws, {}, torch.tensor([0.3, 0.1, -0.1]))
    with transformed(sg3t, translate=(0.1, -0.1), rotate=degrees(0.3)):
        torch.testing.assert_close(posed, sg3t.synthesis(ws), atol=1e-4, rtol=0)


def test_targets_are_cropped_to_the_shape(tmp_path: Path, sg2) -> None:
    Image.fromarray(np.tile(np.arange(200, dtype=np.uint8)[None, :, None], (60, 1, 3))).save(tmp_path / "a.png")
    (target,) = open_targets(tmp_path / "a.png")
    pixels = target.pixels(sg2.img_size, 3)
    assert pixels.shape == (48, 64, 3)
    assert abs(int(pixels[0, 0, 0]) - 60) <= 1  # 80 of 200 columns
    found = project.project(sg2, pixels, cosine_distance, project.Settings(steps=2, w_samples=50))
    assert {tuple(noise.shape) for noise in found.noise.values()} == {(3, 4), (6, 8), (12, 16), (24, 32), (48, 64)}
    with pytest.raises(sg3.errors.DataError, match=r"expected \(48, 64, 3\)"):
        project.project(sg2, np.zeros((64, 64, 3), np.uint8), cosine_distance)


def test_perceptual_input_is_stretched() -> None:
    assert shrink(torch.zeros(1, 3, 384, 512)).shape[2:] == (256, 256)
    assert shrink(torch.zeros(1, 3, 144, 320)).shape[2:] == (144, 256)
    small = torch.zeros(1, 3, 48, 64)
    assert shrink(small) is small


def test_spectra_per_axis(tmp_path: Path) -> None:
    y, x = np.mgrid[:48, :64]
    wave = np.stack([np.rint(128 + 100 * np.cos(2 * pi * (x / 8 + y / 6)))] * 3, axis=2).astype(np.uint8)
    found = spectra.power_spectrum([wave], 128, 1, interp=2)
    assert (found.power.shape, found.image_size, found.is_square) == ((96, 128), (48, 64), False)
    row, column = np.unravel_index(found.power.argmax(), found.power.shape)
    assert {(row, column), ((96 - row) % 96, (128 - column) % 128)} == {(16, 16), (80, 112)}
    spectra.save_spectrum(found, tmp_path / "a.npz")
    again = spectra.load_spectrum(tmp_path / "a.npz")
    assert again.image_size == (48, 64)
    noise = [np.random.default_rng(i).integers(0, 256, (48, 64, 3)).astype(np.uint8) for i in range(200)]
    flat = spectra.power_spectrum(noise, 127.5, (65535 / 12) ** 0.5, interp=2)
    for along in ("x", "y", "radius"):
        frequency, level = flat.per_pixel(along)
        assert (frequency[0], frequency[-1]) == (0, 0.5)
        assert abs(level[1:].mean()) < (0.1 if along == "radius" else 0.5)
    pytest.importorskip("matplotlib")
    assert len(spectra_plots.slices({"a": again, "b": flat}).axes) == 3
    heat = spectra_plots.heatmap(again, "a wave", smooth=1)
    assert "cycles per pixel" in heat.axes[0].get_xlabel()
    left, right, bottom, top = heat.axes[0].images[0].get_extent()
    assert max(abs(left + 0.5), abs(bottom + 0.5)) < 0.02
    assert max(right, top) <= 0.51


def test_the_metric_moves_each_side_by_an_eighth(sg3t) -> None:
    (result,) = compute([parse("eqt4_int")], sg3t, device="cpu")
    assert result.results["eqt4_int"] > 45


def test_the_record_says_that_images_were_stretched(tmp_path: Path, sg2) -> None:
    from sg3.metrics.real_images import RealImages
    from tests.helpers.pixel_detectors import pixel_detectors

    for i in range(4):
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (48, 64, 3)).astype(np.uint8)).save(
            tmp_path / f"{i}.png"
        )
    metric = parse("fid4_full")
    (result,) = compute([metric], sg2, RealImages(tmp_path), device="cpu", detectors=pixel_detectors())
    assert result.recipe["resize"] == "4x4 average, stretched from 64 x 48"
    assert result.recipe["dataset"]["resolution"] == [48, 64]
    square = stylegan2.Generator(8, 0, 8, 64, 3, channel_base=256, channel_max=8).eval()
    with pytest.raises(sg3.errors.UsageError, match="images of 64 x 48 px with 3 channels, the network makes 64 px"):
        compute([metric], square, RealImages(tmp_path), device="cpu", detectors=pixel_detectors())


def test_dragging_measures_in_pixels(sg2, sg3t) -> None:
    """Features at a place of the picture, whichever canvas: a picture's own place is found again."""
    for G in (sg2, sg3t):
        ws = G.mapping(torch.randn(1, 8), None)
        mask = np.zeros((48, 64), bool)
        mask[:, 20:] = True
        edit = drag.start(G, ws, [(60.0, 40.0)], [(50.0, 40.0)], mask)
        assert edit.step()
        assert edit.handles.shape == (1, 2)
        with pytest.raises(sg3.errors.UsageError, match="0 to 63, 47"):
            drag.start(G, ws, [(60.0, 50.0)], [(50.0, 40.0)])
        with pytest.raises(sg3.errors.UsageError, match=r"expected \(48, 64\)"):
            drag.start(G, ws, [(60.0, 40.0)], [(50.0, 40.0)], np.ones((64, 64), bool))


def test_the_viewers_small_pictures(sg2, sg3t) -> None:
    for G in (sg2, sg3t):
        preview, stepwise = Preview(G.synthesis), Stepwise(G.synthesis)
        assert preview.step is not None
        for _ in range(3):
            ws = G.mapping(torch.randn(1, 8), None)
            carry = stepwise.run_to(preview.step, ws, Noise("const"), True, lambda: None)
            preview.learn(G.synthesis(ws, noise_mode="const"), carry)
        height, width, _ = preview.picture(carry).shape
        assert height * 64 == width * 48


