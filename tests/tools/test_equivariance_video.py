"""Sweeps: what moves by how much, how well the networks follow, what a frame shows."""

from __future__ import annotations

from math import inf, isinf, radians

import numpy as np
import pytest
import torch

import sg3
from sg3.errors import UsageError
from sg3.metrics.equivariance import pseudo_rotate_fractional
from sg3.metrics.equivariance_psnr import check_transform
from sg3.models import stylegan2, stylegan3
from sg3.sampling import seed_latents
from sg3.tools.equivariance import Step, draw_step, sweep, sweep_amounts
from sg3.tools.video import to_frames


def load(golden, name: str):
    G = sg3.load(golden / name).G_ema
    with torch.no_grad():
        return G, G.mapping(seed_latents([3], G.z_dim), None)


def lowest(G, ws, transform: str, amounts: list[float]) -> float:
    return min(step.psnr for step in sweep(G, ws, transform, amounts))


def test_amounts() -> None:
    assert sweep_amounts("x_t", 64, 5) == [-8, -4, 0, 4, 8]
    assert sweep_amounts("y_t", 64, 4, 0.1) == [-6, -2, 2, 6]
    assert sweep_amounts("rotate", 64, 3, rotate_max=90) == [-90, 0, 90]
    assert sweep_amounts("rotate", 64, 1) == [180]
    with pytest.raises(ValueError, match="transform: got 'zoom'"):
        sweep_amounts("zoom", 64, 3)


def test_translation_moves_the_picture_right_and_down(golden) -> None:
    G, ws = load(golden, "sg3t-64.pkl")
    with torch.no_grad():
        still = G.synthesis(ws)
    (right,) = sweep(G, ws, "x_t", [8.0])
    assert (right.generated[..., 8:] - still[..., :-8]).abs().max() < 1e-3
    assert torch.equal(right.reference[..., 8:], still[..., :-8])
    assert not right.reference[..., :8].any()
    assert not right.difference[..., :8].any()
    (down,) = sweep(G, ws, "y_t", [4.0])
    assert torch.equal(down.reference[..., 4:, :], still[..., :-4, :])
    assert (down.generated[..., 4:, :] - still[..., :-4, :]).abs().max() < 1e-3


def test_networks_follow_as_they_should(golden) -> None:
    """Both translate (Alias-Free GAN, Table 1), only configuration R turns; a turn the other way would not pass."""
    T, ws_T = load(golden, "sg3t-64.pkl")
    R, ws_R = load(golden, "sg3r-64.pkl")
    for transform in ("x_t", "y_t"):
        assert lowest(T, ws_T, transform, [-8, 3]) > 80
        assert lowest(R, ws_R, transform, [-8, 3]) > 80
    assert lowest(R, ws_R, "rotate", [-150, 30, 90]) > 75
    assert lowest(T, ws_T, "rotate", [-150, 30, 90]) < 60


def test_psnr_is_that_of_the_shown_difference(golden) -> None:
    G, ws = load(golden, "sg3t-64.pkl")
    (step,) = sweep(G, ws, "rotate", [30.0])
    inside = step.reference != 0
    mean_square = step.difference[inside].double().square().mean().item()
    assert step.psnr == pytest.approx(10 * np.log10(4 / mean_square), abs=1e-3)
    assert 0.3 < inside.float().mean() < 0.8  # where both squares of pixels overlap
    image, seen = pseudo_rotate_fractional(step.generated, radians(30))  # the filter as in the metric EQ-R
    mask = inside.float() * seen
    assert torch.equal(step.difference, (image - step.reference) * mask)
    (none,) = sweep(G, ws, "x_t", [0.0])
    assert isinf(none.psnr)


def test_the_transform_is_reset(golden) -> None:
    G, ws = load(golden, "sg3t-64.pkl")
    G.synthesis.input.transform.fill_(0.5)
    steps = sweep(G, ws, "x_t", [5.0, 6.0])
    next(steps)
    assert not torch.equal(G.synthesis.input.transform, torch.eye(3))
    steps.close()
    assert torch.equal(G.synthesis.input.transform, torch.eye(3))


@pytest.mark.parametrize(("resolution", "scale"), [(64, 2), (50, 3), (128, 1), (200, 1)])
def test_layout_of_a_frame(resolution: int, scale: int) -> None:
    images = [torch.rand(1, 3, resolution, resolution) * 2 - 1 for _ in range(2)]
    step = Step(-8.0, images[0], images[1], images[0] / 100, 61.234)
    frame = draw_step(step, "x_t", gain=10)
    side = scale * resolution
    assert frame.shape == (32 + side, 3 * side, 3)
    for i, panel in enumerate([*images, images[0] / 10]):
        shown = frame[32::scale, i * side : (i + 1) * side : scale]
        assert np.abs(shown.astype(int) - to_frames(panel)[0]).max() <= 1
    assert frame[:32, : 3 * side].max() > 200  # there is text

    other = draw_step(Step(-8.0, images[0], images[1], images[0] / 100, inf), "x_t", gain=10)
    assert not np.array_equal(frame[:32], other[:32])
    assert np.array_equal(frame[32:], other[32:])


def test_stylegan2_has_no_input_transform() -> None:
    G = stylegan2.Generator(8, 0, 8, 16, 3, channel_base=64, channel_max=4)
    with pytest.raises(UsageError, match="--network: only StyleGAN3 networks can be moved, this one has no input"):
        next(sweep(G, torch.zeros(1, 6, 8), "x_t", [1.0]))
    check_transform(stylegan3.Generator(8, 0, 8, 16, 3, channel_base=64, channel_max=4, num_layers=3), ["eqr50k"])
