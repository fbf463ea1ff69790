"""Differentiable augmentation against the numbers of Projected GAN's code, and the draws by themselves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from sg3.models import diffaug
from sg3.models.diffaug import DiffAugDraws, diff_augment
from sg3.randomness import host_rng
from tests.helpers.golden_gan import GoldenGan, diffaug_draws, makers

OPS = ("brightness", "saturation", "contrast", "translation", "cutout")


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", [*OPS, "all"])
def test_golden(golden: Path, name: str, dtype: torch.dtype) -> None:
    gan = GoldenGan(golden, "pg_disc")
    case = gan.case(f"aug_{name}")
    draws = diffaug_draws(case["draws"])
    make = makers(gan.recipe, dtype)
    x = make["image"]("x", case["tensors"]["grad_x"]["shape"], case["seed"]).requires_grad_()
    single = {
        "brightness": lambda: diffaug.brighten(x, draws.brightness),
        "saturation": lambda: diffaug.saturate(x, draws.saturation),
        "contrast": lambda: diffaug.change_contrast(x, draws.contrast),
        "translation": lambda: diffaug.translate(x, draws.shift),
        "cutout": lambda: diffaug.cut_out(x, draws.cutout),
        "all": lambda: diff_augment(x, draws),
    }
    y = single[name]()
    y.backward(make["normal"]("dy", y.shape, case["seed"]))
    gan.check(case, "y", y)
    gan.check(case, "grad_x", x.grad)


def test_draws_belong_to_samples() -> None:
    """However samples are batched."""
    def rngs(first: int, count: int) -> list[np.random.Generator]:
        return [host_rng(0, "aug", first + k) for k in range(count)]

    whole = DiffAugDraws.random(rngs(0, 5), 32, 48)
    part = DiffAugDraws.random(rngs(3, 2), 32, 48)
    for name in ("brightness", "saturation", "contrast", "shift", "cutout"):
        assert torch.equal(getattr(whole, name)[3:], getattr(part, name)), name


@pytest.mark.parametrize(("height", "width"), [(32, 25), (24, 64)])
def test_ranges(height: int, width: int) -> None:
    """All of the range, its ends included, is drawn, and nothing beyond."""
    draws = DiffAugDraws.random([host_rng(1, "aug", k) for k in range(3000)], height, width)
    for axis, size in enumerate((height, width)):
        reach, side = int(size * 0.125 + 0.5), int(size * 0.2 + 0.5)
        assert draws.shift[:, axis].unique().tolist() == list(range(-reach, reach + 1))
        assert draws.cutout[:, axis].unique().tolist() == list(range(size + 1 - side % 2))
    assert draws.brightness.min() >= 0
    assert draws.brightness.max() < 1
    correlation = torch.corrcoef(torch.stack([draws.brightness, draws.saturation, draws.contrast]))
    assert (correlation - torch.eye(3)).abs().max() < 0.1


def test_cutout_at_a_corner() -> None:
    x = diffaug.cut_out(torch.ones(2, 1, 10, 10), torch.tensor([[0, 0], [10, 5]]))  # a square of 2 x 2 pixels
    assert x[0, 0].nonzero().tolist() == [[i, j] for i in range(10) for j in range(10) if (i, j) != (0, 0)]
    assert (x[1, 0] == 0).nonzero().tolist() == [[9, 4], [9, 5]]


def test_an_empty_batch() -> None:
    draws = DiffAugDraws.random([], 8, 8)
    assert diff_augment(torch.zeros(0, 3, 8, 8), draws).shape == (0, 3, 8, 8)


def test_second_order() -> None:
    draws = DiffAugDraws.random([host_rng(0, "aug", k) for k in range(2)], 8, 8)
    x = torch.randn(2, 1, 8, 8, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda x: diff_augment(x, draws).pow(3), x)
