"""Counting modes: the arithmetic, the data, and, in minutes, that training finds many."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from bench import modes


def test_counts_and_divergence() -> None:
    assert modes.count_modes(torch.arange(100).repeat(3)) == (100, pytest.approx(0, abs=1e-9))
    assert modes.count_modes(torch.full([50], 7)) == (1, pytest.approx(math.log(100)))
    assert modes.count_modes(torch.tensor([0, 99])) == (2, pytest.approx(math.log(50)))


def test_images_show_their_modes() -> None:
    pictures = np.arange(10, dtype=np.uint8)[:, None, None].repeat(4, 1).repeat(4, 2)
    images, found = modes.stack(pictures, np.arange(10), 200, seed=1)
    assert images.shape == (200, 4, 4, 3)
    assert (images[:, 0, 0, 0] * 10 + images[:, 0, 0, 1] == found).all()
    assert not images[..., 2].any()
    assert len(set(found.tolist())) > 60


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_r3gan_finds_more_modes_than_stylegan2() -> None:
    """Two minutes of the CPU for each; the real images show what the classifier is worth."""
    if not modes.FASHION.is_file():
        pytest.skip(f"{modes.FASHION} is not there (Debian's package dataset-fashion-mnist)")
    real, r3gan, stylegan2 = modes.compare(2, [0], 2500, ["r3gan", "stylegan2"])
    print(real, r3gan, stylegan2)
    assert real["modes"] == 100
    assert real["KL"] < 0.1
    assert r3gan["modes"] > 75
    assert r3gan["modes"] > stylegan2["modes"]
    assert r3gan["KL"] < stylegan2["KL"]
