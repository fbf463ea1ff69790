"""The random numbers of the augmentation pipeline: how often, how much, and independent of the batch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from sg3.models.augment import SPECS, AugmentPipe
from sg3.models.augment_draws import Draws


def rngs(count: int, seed: int = 0) -> list[np.random.Generator]:
    return [np.random.default_rng([seed, index]) for index in range(count)]


def test_a_sample_does_not_depend_on_its_batch() -> None:
    """The batch's margins are its largest, which changes only how much unseen border is computed."""
    pipe = AugmentPipe(**{**SPECS["bgcf"], "cutout": 1.0})
    images = torch.randn(6, 3, 20, 28)
    together = pipe(images, pipe.draw(rngs(6), 20, 28, 3, p=0.8))
    margins = set()
    for i in range(6):
        alone = pipe.draw([rngs(6)[i]], 20, 28, 3, p=0.8)
        margins.add(alone.margins)
        torch.testing.assert_close(pipe(images[i : i + 1], alone), together[i : i + 1], atol=1e-4, rtol=0)
    assert len(margins) > 1  # so the batch's differ from most samples'


def test_p_and_other_operations_change_only_whether_something_happens() -> None:
    few, many = AugmentPipe(brightness=1), AugmentPipe(**SPECS["bgcfnc"])
    certain = few.draw(rngs(200), 16, 16, 3, p=1).color
    likely = few.draw(rngs(200), 16, 16, 3, p=0.5).color
    happened = (likely[:, :, 3] != 0).all(dim=1)
    assert 70 <= happened.sum() <= 130
    assert torch.equal(likely[happened], certain[happened])
    rarer = few.draw(rngs(200), 16, 16, 3, p=0.3).color
    assert ((rarer[:, :, 3] != 0).all(dim=1) <= happened).all()  # a larger p adds to what happens

    boxes = AugmentPipe(cutout=1).draw(rngs(50), 16, 16, 3, p=0.5).cutout
    assert torch.equal(many.draw(rngs(50), 16, 16, 3, p=0.5).cutout, boxes)


def test_generators_move_on_alike() -> None:
    positions = set()
    for pipe in (AugmentPipe(), AugmentPipe(**SPECS["bgcfnc"])):
        for p in (0.0, 1.0):
            (rng,) = rngs(1)
            pipe.draw([rng], 16, 16, 3, p)
            positions.add(rng.random())
    assert len(positions) == 1


class Lowest(np.random.Generator):
    """Draws nothing but 0, which `random` may."""

    def random(self, size: int) -> np.ndarray:
        return np.zeros(size)


def test_parameters_are_finite() -> None:
    chosen = AugmentPipe(**SPECS["bgcfnc"]).draw([Lowest(np.random.Philox(0))], 16, 16, 3, p=1)
    for part in (chosen.inverse, chosen.color, chosen.bands, chosen.noise):
        assert part is not None
        assert part.isfinite().all()


COUNT = 4000


def parameters(name: str, p: float, multiplier: float = 1.0, width: int = 100, **ranges: float) -> np.ndarray:
    """The drawn parameter of one operation, [COUNT], or [2 * COUNT] where it has two; 0 is what changes nothing. Images
    are 200 high."""
    pipe = AugmentPipe(**{name: multiplier}, **ranges)
    draws = Draws.random([np.random.default_rng(3)] * COUNT, p)
    forward = np.linalg.inv(pipe.inverse_geometry(draws, 200, width))
    color = pipe.color_matrices(draws, 3)
    boxes = pipe.cutout_boxes(draws, 200, width)
    strength = pipe.draw([np.random.default_rng(3)] * COUNT, 200, width, 3, p).noise
    angle = np.arctan2(forward[:, 1, 0], forward[:, 0, 0])
    shift = np.concatenate([forward[:, 0, 2] / width, forward[:, 1, 2] / 200])
    # Rodrigues' matrix: 3 R00 = 1 + 2 cos, (R10 - R20) sqrt(3) = 2 sin
    hue = np.arctan2((color[:, 1, 0] - color[:, 2, 0]) * 3**0.5, 3 * color[:, 0, 0] - 1)
    result: np.ndarray = {
        "xflip": lambda: forward[:, 0, 0] < 0,
        "rotate90": lambda: np.round(angle / (np.pi / 2)) % 4,
        "xint": lambda: shift,
        "scale": lambda: np.log2(forward[:, 1, 1]),
        "rotate": lambda: angle,
        "aniso": lambda: np.log2(forward[:, 0, 0] / forward[:, 1, 1]) / 2,
        "xfrac": lambda: shift,
        "brightness": lambda: color[:, 0, 3],
        "contrast": lambda: np.log2(color[:, 0, 0]),
        "lumaflip": lambda: np.linalg.det(color) < 0,
        "hue": lambda: hue,
        "saturation": lambda: np.log2(color[:, 0, 0] - color[:, 0, 1]),
        "noise": lambda: strength.numpy(),
        "cutout": lambda: boxes.any(axis=1),
    }[name]()
    return result


@pytest.mark.parametrize("name", [name for name in SPECS["bgcfnc"] if name != "imgfilter"])
def test_how_often_an_operation_happens(name: str) -> None:
    """multiplier * p, half or a quarter of which are flips and turns by nothing; within 4 standard deviations."""
    p, multiplier = 0.5, 0.6
    rate = p * multiplier * {"xflip": 1 / 2, "lumaflip": 1 / 2, "rotate90": 1 / 2}.get(name, 1)
    if name == "rotate90":  # of squares; rectangles turn by 0 or 180 degrees
        turned = np.abs(parameters(name, p, multiplier, width=200)) > 1e-12
        of_squares = p * multiplier * 3 / 4
        assert turned.mean() == pytest.approx(of_squares, abs=4 * (of_squares * (1 - of_squares) / COUNT) ** 0.5)
    if name == "rotate":  # its two rotations together
        angles = parameters(name, p, multiplier)
        assert (angles != 0).mean() == pytest.approx(rate, abs=4 * (rate * (1 - rate) / COUNT) ** 0.5)
        return
    happened = np.abs(parameters(name, p, multiplier)) > 1e-12
    if name == "xint":  # U(-12.5, 12.5) and U(-25, 25) pixels, of which (-0.5, 0.5) is rounded to none
        rate *= 1 - (1 / 25 + 1 / 50) / 2
    assert happened.mean() == pytest.approx(rate, abs=4 * (rate * (1 - rate) / COUNT) ** 0.5)


@pytest.mark.parametrize(
    ("name", "distribution"),
    [
        ("scale", stats.norm(0, 0.3)),
        ("rotate", stats.uniform(-np.pi, 2 * np.pi)),
        ("aniso", stats.norm(0, 0.3)),
        ("xfrac", stats.norm(0, 0.3)),
        ("brightness", stats.norm(0, 0.3)),
        ("contrast", stats.norm(0, 0.3)),
        ("hue", stats.uniform(-0.3 * np.pi, 0.6 * np.pi)),
        ("saturation", stats.norm(0, 0.3)),
        ("noise", stats.halfnorm(0, 0.3)),
    ],
)
def test_distributions(name: str, distribution: stats.rv_continuous) -> None:
    """Kolmogorov and Smirnov's test; with COUNT samples, a deviation that is 15 % off fails."""
    ranges = {"rotate": {}, "hue": {"hue_max": 0.3}}.get(name, {f"{name}_std": 0.3})
    values = parameters(name, 1.0, **ranges)
    assert stats.kstest(values, distribution.cdf).pvalue > 0.01


def test_discrete_distributions() -> None:
    quarters = np.bincount(parameters("rotate90", 1.0, width=200).astype(int), minlength=4)
    assert stats.chisquare(quarters).pvalue > 0.01
    halves = np.bincount(parameters("rotate90", 1.0).astype(int), minlength=4)
    assert halves[1] == halves[3] == 0
    assert stats.chisquare(halves[::2]).pvalue > 0.01
    x, y = np.split(parameters("xint", 1.0), 2)
    for values, size in ((x * 100, 100), (y * 200, 200)):
        np.testing.assert_allclose(values, values.round(), atol=1e-9)
        largest = 0.125 * size
        assert abs(values).max() <= np.round(largest)
        inner = values[abs(values) < np.floor(largest)]  # the outermost have less than a pixel's share
        assert stats.chisquare(np.unique(inner.round(), return_counts=True)[1]).pvalue > 0.01


def test_band_gains_keep_the_expected_power() -> None:
    """One band in turn: the gain of an amplified one is log-normal, and 1 / f images keep their power."""
    draws = Draws.random([np.random.default_rng(3)] * COUNT, 1.0)
    one = AugmentPipe(imgfilter=1, imgfilter_bands=(0, 0, 0, 1)).band_gains(draws)
    power = one**2 @ np.array([10, 1, 1, 1]) / 13
    np.testing.assert_allclose(power, 1, rtol=1e-12)
    assert stats.kstest(np.log2(one[:, 3] / one[:, 0]), stats.norm(0, 1).cdf).pvalue > 0.01
    rare = AugmentPipe(imgfilter=0.5, imgfilter_bands=(0, 0, 0, 0.5)).band_gains(draws)
    assert (rare != 1).any(axis=1).mean() == pytest.approx(0.25, abs=4 * (0.25 * 0.75 / COUNT) ** 0.5)
