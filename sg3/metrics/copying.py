"""C_T, a test for copying (Meehan et al., arXiv 2004.05675): are generated images nearer to the training set than
held-out real ones are?

    L(q) = distance of q to its nearest training image
    U = how often L(generated) > L(held out), over all pairs of a cell, ties counting half
    Z = (U - (m n / 2 - 1 / 2)) / sqrt(m n (m + n + 1) / 12)

for m generated and n held-out images of a cell, averaged over the cells by their shares of held-out images. Cells are
those of k-means on training images, as copying can be local; all distances are in the first principal components of the
training images' features. Far below 0 means copying, far above 0 underfitting; by chance, |Z| < 2 in 95 of 100 cases.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from sg3.metrics.functional import distances_to_nearest, wide
from sg3.metrics.moments import Moments
from sg3.metrics.nearest import Training
from sg3.randomness import host_rng

COMPONENTS = 64
CELLS = 3
LEAST = 20  # images of both kinds in a cell that counts
ROUNDS = 100


@dataclass(frozen=True)
class Copying:
    """C_T, NaN where no cell counts; and of each cell that does the numbers of generated and held-out images, and Z."""

    c_t: float
    cells: list[tuple[int, int, float]]


def copying_test(training: Training, held_out: torch.Tensor, gen: torch.Tensor, seed: int = 0) -> Copying:
    """C_T of features [N, D] each. Raises ValueError for wrong inputs."""
    axes = principal_axes(training.features)
    train, test, made = (wide(x) @ axes for x in (training.features, held_out, gen))
    mirrored = None if training.mirrored is None else wide(training.mirrored) @ axes
    projected = Training(train, mirrored)
    centres = k_means(train, CELLS, seed)
    of_test, of_made = (distances_to_nearest(x, centres, 1)[1][:, 0] for x in (test, made))
    far_test, far_made = (projected.nearest(x, 1).distances[:, 0] for x in (test, made))
    cells = []
    for cell in range(len(centres)):
        L_made, L_test = far_made[of_made == cell], far_test[of_test == cell]
        if min(len(L_made), len(L_test)) >= LEAST:
            cells.append((len(L_made), len(L_test), mann_whitney(L_made, L_test)))
    held = sum(n for _, n, _ in cells)
    return Copying(sum(n * z for _, n, z in cells) / held if held else math.nan, cells)


def mann_whitney(first: torch.Tensor, second: torch.Tensor) -> float:
    """Z of how often values [m] exceed values [n]: above 0 if the first are larger, N(0, 1) if they are alike."""
    m, n = len(first), len(second)
    ordered = second.sort().values
    below, up_to = (torch.searchsorted(ordered, first, right=right) for right in (False, True))
    U = float((below + up_to).double().sum()) / 2
    return (U - (m * n / 2 - 0.5)) / math.sqrt(m * n * (m + n + 1) / 12)


def principal_axes(features: torch.Tensor) -> torch.Tensor:
    """The directions along which features [N, D] vary most, [D, 64 or D]."""
    _, covariance = Moments.of(features).mean_and_covariance()
    axes = torch.linalg.eigh(covariance).eigenvectors.flip(1)[:, :COMPONENTS]
    return axes.to(wide(features).dtype)


def k_means(x: torch.Tensor, count: int, seed: int) -> torch.Tensor:
    """Centres [count, D] of x [N, D], or as many as there are rows, begun far from each other (k-means++)."""
    rng = host_rng(seed, "metrics/k-means")
    count = min(count, len(x))
    centres = x[int(rng.integers(len(x)))][None]
    while len(centres) < count:
        squares = distances_to_nearest(x, centres, 1)[0][:, 0].double().square()
        total = float(squares.sum())
        pick = int(torch.searchsorted(squares.cumsum(0), rng.random() * total).clamp(max=len(x) - 1))
        centres = torch.cat([centres, x[pick][None]])
    for _ in range(ROUNDS):
        nearest = distances_to_nearest(x, centres, 1)[1][:, 0]
        means = [x[nearest == cell].mean(dim=0) if bool((nearest == cell).any()) else centres[cell]
                 for cell in range(count)]  # fmt: skip
        moved = torch.stack(means)
        if torch.equal(moved, centres):
            break
        centres = moved
    return centres
