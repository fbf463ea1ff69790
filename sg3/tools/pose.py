"""Where StyleGAN3 draws its picture: angle and shift as three numbers to optimise, and a search for where to start."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from math import radians

import torch

SEARCH_ANGLES = (0.0, -15.0, 15.0, -30.0, 30.0)  # degrees
SEARCH_SHIFTS = (0.0, -0.15, 0.15)  # fractions of the image


def transform_matrix(pose: torch.Tensor) -> torch.Tensor:
    """pose [3] (angle in radians, shift x, y in fractions of the image) -> [3, 3] for `synthesis.input.transform`.

    The inverse of rotating the picture, then shifting it: the matrix that `sg3.sampling.set_transform` sets, but
    differentiable.
    """
    angle, x, y = pose.unbind()
    c, s = angle.cos(), angle.sin()
    zero, one = torch.zeros_like(c), torch.ones_like(c)
    rows = [c, -s, s * y - c * x, s, c, -s * x - c * y, zero, zero, one]
    return torch.stack(rows).reshape(3, 3)


def starting_poses(distance: Callable[[torch.Tensor], float], count: int) -> list[torch.Tensor]:
    """No movement, and the `count` of a coarse grid of poses with the smallest distance; each is [3].

    A gradient finds the way only over less than the size of what is to be matched, so projection starts from
    several of these. Angles up to some 40 degrees and shifts up to 0.2 are within reach.
    """
    numbers = product(SEARCH_ANGLES, SEARCH_SHIFTS, SEARCH_SHIFTS)
    grid = [torch.tensor([radians(angle), x, y]) for angle, x, y in numbers]
    ranked = sorted(grid[1:], key=distance)
    return [grid[0], *ranked[:count]]
