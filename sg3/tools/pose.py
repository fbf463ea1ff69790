"""Where StyleGAN3 draws its picture: angle and shift as three numbers to optimise, and a search for where to start."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from math import radians

import torch

SEARCH_ANGLES = (0.0, -15.0, 15.0, -30.0, 30.0)  # degrees
SEARCH_SHIFTS = (0.0, -0.15, 0.15)  # fractions of the image


def transform_matrix(pose: torch.Tensor, units: tuple[float, float] = (1.0, 1.0)) -> torch.Tensor:
    """pose [3] (angle in radians, shift x, y in fractions of the image) -> [3, 3] for `synthesis.input.transform`.

    The inverse of rotating the picture, then shifting it: the matrix that `sg3.sampling.set_transform` sets, but
    differentiable. `units` are width and height of the image as in `sg3.canvas.units_of`.
    """
    angle, x, y = pose.unbind()
    x, y = x * units[0], y * units[1]
    c, s = angle.cos(), angle.sin()
    zero, one = torch.zeros_like(c), torch.ones_like(c)
    rows = [c, -s, s * y - c * x, s, c, -s * x - c * y, zero, zero, one]
    return torch.stack(rows).reshape(3, 3)


def pose_grid() -> list[torch.Tensor]:
    """A coarse grid of poses [3], the first of them no movement."""
    numbers = product(SEARCH_ANGLES, SEARCH_SHIFTS, SEARCH_SHIFTS)
    return [torch.tensor([radians(angle), x, y]) for angle, x, y in numbers]


def starting_poses(distances: Sequence[float], count: int) -> list[torch.Tensor]:
    """No movement, and the `count` of the other poses of the grid with the smallest distance.

    A gradient finds the way only over less than the size of what is to be matched, so projection starts from
    several of these. Angles up to some 40 degrees and shifts up to 0.2 are within reach.
    """
    still, *others = pose_grid()
    ranked = sorted(zip(distances, others, strict=True), key=lambda pair: pair[0])
    return [still, *(pose for _, pose in ranked[:count])]
