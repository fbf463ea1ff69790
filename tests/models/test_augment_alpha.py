"""Augmentation of premultiplied images: what would happen to the straight colours happens, and nothing else shows."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sg3.models.augment import SPECS, AugmentPipe
from sg3.models.augment_color import add_noise, filter_bands, filter_bank, recolor
from sg3.models.diffaug import DiffAugDraws, diff_augment
from sg3.transparency import network_values
from tests.helpers.image_files import soft_discs


def rngs(count: int) -> list[np.random.Generator]:
    return [np.random.default_rng([0, index]) for index in range(count)]


def premultiplied(x: torch.Tensor, a: torch.Tensor) -> torch.Tensor:
    """Straight colours x in -1..1 and alpha 0..1 -> what networks see."""
    return torch.cat([a * (x + 1) - 1, 2 * a - 1], dim=1)


def discs(channels: int = 4, size: int = 32) -> torch.Tensor:
    return network_values(torch.from_numpy(np.stack(soft_discs(6, size, channels))).permute(0, 3, 1, 2))


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("channels", [1, 3])
def test_colour_map_against_straight_colours(alpha: float, channels: int) -> None:
    """In float64, to 1e-12."""
    rng = torch.Generator().manual_seed(0)
    x = torch.rand(5, channels, 4, 6, generator=rng, dtype=torch.float64) * 2 - 1
    a = torch.full((5, 1, 4, 6), alpha, dtype=torch.float64)
    matrices = torch.randn(5, channels, channels + 1, generator=rng, dtype=torch.float64)
    expected = premultiplied(recolor(x, matrices), a)
    got = recolor(premultiplied(x, a), matrices)
    assert (got - expected).abs().max() < 1e-12
    assert torch.equal(got[:, -1], 2 * a[:, 0] - 1)
    if alpha == 0:
        assert (got == -1).all()


@pytest.mark.parametrize("channels", [2, 4])
@pytest.mark.parametrize("spec", SPECS)
def test_opaque_images_become_what_they_would_without_alpha(spec: str, channels: int) -> None:
    """Within each image; what is cut out or beyond one reflection is transparent, and grey otherwise."""
    pipe = AugmentPipe(**{**SPECS[spec], "noise": 0})
    color = torch.rand(8, channels - 1, 32, 32) * 2 - 1
    images = torch.cat([color, torch.ones(8, 1, 32, 32)], dim=1)
    expected = pipe(color, pipe.draw(rngs(8), 32, 32, channels - 1, p=1))
    got = pipe(images, pipe.draw(rngs(8), 32, 32, channels, p=1))
    shows = (got[:, -1:] - 1).abs() < 1e-4
    assert shows.float().mean() > 0.5
    torch.testing.assert_close(
        torch.where(shows, got[:, :-1], 0.0), torch.where(shows, expected, 0.0), atol=1e-3, rtol=1e-3
    )


@pytest.mark.parametrize("channels", [2, 4])
@pytest.mark.parametrize("spec", SPECS)
def test_nothing_stays_nothing(spec: str, channels: int) -> None:
    images = torch.full((6, channels, 32, 32), -1.0)
    got = AugmentPipe(**SPECS[spec])(images, AugmentPipe(**SPECS[spec]).draw(rngs(6), 32, 32, channels, p=1))
    torch.testing.assert_close(got, images, atol=1e-6, rtol=0)


@pytest.mark.parametrize("spec", ["geom", "filter", "cutout"])
def test_alpha_goes_with_the_colours(spec: str) -> None:
    """White on nothing: colour and alpha are one plane, and stay one where the operation moves things."""
    images = discs()
    images = images[:, 3:].repeat(1, 4, 1, 1)
    pipe = AugmentPipe(**SPECS[spec])
    got = pipe(images, pipe.draw(rngs(6), 32, 32, 4, p=1))
    torch.testing.assert_close(got[:, 0], got[:, 1])
    if spec != "filter":  # which makes white lighter or darker
        torch.testing.assert_close(got[:, 0], got[:, 3])


def test_filter_keeps_flat_alpha_and_colours_by_what_shows() -> None:
    gains = torch.tensor([[0.5, 2.0, 1.0, 0.25], [1.5, 0.2, 3.0, 1.0]], dtype=torch.float64)
    x = torch.tensor([0.8, -0.2, 0.4], dtype=torch.float64)[None, :, None, None].expand(2, 3, 24, 24)
    for alpha in (0.0, 0.3, 1.0):
        a = torch.full((2, 1, 24, 24), alpha, dtype=torch.float64)
        expected = premultiplied(filter_bands(x, gains, filter_bank()), a)
        torch.testing.assert_close(filter_bands(premultiplied(x, a), gains, filter_bank()), expected, atol=1e-6, rtol=0)


def test_noise_is_on_what_shows() -> None:
    images, strength = discs(), torch.full([6], 0.1)
    noisy = add_noise(images, strength)
    assert torch.equal(noisy[:, 3], images[:, 3])
    change = (noisy - images)[:, :3]
    hidden, visible = ((images[:, 3:] == end).expand_as(change) for end in (-1, 1))
    assert (change[hidden] == 0).all()
    assert change[visible].std() == pytest.approx(0.1, rel=0.05)


def test_cutout_is_transparent() -> None:
    pipe = AugmentPipe(cutout=1)
    images = torch.ones(20, 4, 10, 20)
    chosen = pipe.draw(rngs(20), 10, 20, 4, p=1)
    assert chosen.cutout is not None
    for sample, (left, top, right, bottom) in zip(pipe(images, chosen), chosen.cutout.tolist(), strict=True):
        assert (sample == -1).sum() == 4 * (right - left) * (bottom - top)
        assert (sample[:, top:bottom, left:right] == -1).all()


@pytest.mark.parametrize("channels", [2, 4])
def test_diffaug_opaque_and_nothing(channels: int) -> None:
    draws = DiffAugDraws.random(rngs(6), 32, 32)
    color = torch.rand(6, channels - 1, 32, 32, dtype=torch.float64) * 2 - 1
    opaque = torch.cat([color, torch.ones(6, 1, 32, 32, dtype=torch.float64)], dim=1)
    got, expected = diff_augment(opaque, draws), diff_augment(color, draws)
    shows = (got[:, -1:] == 1).expand_as(color)
    torch.testing.assert_close(got[:, :-1][shows], expected[shows])
    assert shows.double().mean() > 0.5
    assert ((got == -1) | (got[:, -1:] == 1)).all()  # what came in and what was cut out is transparent
    nothing = torch.full((6, channels, 32, 32), -1.0)
    assert torch.equal(diff_augment(nothing, draws), nothing)


def test_diffaug_colours_are_those_of_what_shows() -> None:
    """A picture of one colour, with alpha: brightness and saturation act on the colour, contrast finds nothing."""
    draws = DiffAugDraws.random(rngs(6), 32, 32)
    x = torch.tensor([0.8, -0.2, 0.4], dtype=torch.float64)[None, :, None, None].expand(6, 3, 32, 32)
    a = (discs()[:, 3:].double() + 1) / 2
    got = diff_augment(premultiplied(x, a), draws)
    alpha = (got[:, 3:] + 1) / 2
    bright = x + (draws.brightness.double() - 0.5)[:, None, None, None]
    grey = bright.mean(dim=1, keepdim=True)
    coloured = (bright - grey) * (2 * draws.saturation.double())[:, None, None, None] + grey
    level = coloured.mean(dim=1, keepdim=True)  # contrast moves channels away from their common mean
    expected = (coloured - level) * (draws.contrast.double() + 0.5)[:, None, None, None] + level
    torch.testing.assert_close(got[:, :3], alpha * (expected + 1) - 1)
