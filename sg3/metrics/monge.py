"""The Monge distance of features: MIND on Inception's (arXiv 2605.06797).

    3 d / (n m) sum_{i <= m} sum_{j <= n} (sort(X u_i)_j - sort(Y u_i)_j)^2

along m random directions u, uniform on the unit sphere: 3 d times the mean squared 2-Wasserstein distance of the two
sets' shadows on a line, which sorting solves.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from sg3.metrics.functional import check_pair, wide
from sg3.randomness import host_rng

BLOCK = 100  # directions at a time


def monge_distance(real: torch.Tensor, gen: torch.Tensor, directions: int = 1000, seed: int = 0) -> float:
    """The distance of features [N, D] and [M, D].

    Of the larger set a random part is taken that is as large as the other. That and the directions are functions of
    `seed`. X against itself gives 0; two samples of one law more than 0, like 1 / n. Raises ValueError.
    """
    check_pair(real, gen, at_least=1)
    if directions < 1:
        raise ValueError(f"directions: got {directions}, expected at least 1")
    real, gen = equal_numbers(real, gen, seed)
    total = 0.0
    for x, y in projections(real, gen, directions, seed):
        total += float((x.sort(dim=1).values - y.sort(dim=1).values).square().sum())
    return 3 * real.shape[1] / (len(real) * directions) * total


def monge_distances_without(
    real: torch.Tensor, gen: torch.Tensor, groups: Sequence[slice], directions: int = 1000, seed: int = 0
) -> list[float]:
    """MIND without each group of `gen`, of which there are as many rows as `equal_numbers` leaves."""
    real, gen = equal_numbers(real, gen, seed)
    if len(groups) < 2:
        return []
    group_of = torch.zeros(len(gen), dtype=torch.int64, device=gen.device)
    for g, group in enumerate(groups):
        group_of[group] = g
    stairs = {count: _staircases(len(real), count) for count in {len(gen) - len(gen[group]) for group in groups}}
    totals = [0.0] * len(groups)
    for x, y in projections(real, gen, directions, seed):
        x_sorted, y_order = x.sort(dim=1).values, y.sort(dim=1)
        groups_sorted = group_of[y_order.indices]
        for g in range(len(groups)):
            rest = y_order.values[groups_sorted != g].reshape(len(y), -1)
            of_x, of_y, weights = (t.to(x.device) for t in stairs[rest.shape[1]])
            totals[g] += float(((x_sorted[:, of_x] - rest[:, of_y]).square() @ weights).sum())
    return [3 * real.shape[1] / directions * total for total in totals]


def _staircases(n: int, m: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Where the quantile functions of n and of m sorted numbers are constant: for each piece of 0..1, the index among
    the n, that among the m, and its length."""
    ends = torch.cat([torch.arange(n + 1) * m, torch.arange(m + 1) * n]).unique()  # in units of 1 / (n m)
    starts, lengths = ends[:-1], ends.diff()
    return starts // m, starts // n, lengths.double() / (n * m)


def equal_numbers(real: torch.Tensor, gen: torch.Tensor, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """As many rows of both: a random part of the larger set, in its order."""
    n = min(len(real), len(gen))

    def part(x: torch.Tensor, who: str) -> torch.Tensor:
        if len(x) == n:
            return x
        rows = host_rng(seed, f"mind/{who}").choice(len(x), n, replace=False)
        return x[torch.from_numpy(np.sort(rows)).to(x.device)]

    return part(real, "real"), part(gen, "gen")


def projections(
    real: torch.Tensor, gen: torch.Tensor, directions: int, seed: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Both sets along random directions, some directions at a time: float64 [directions, N] and [directions, M]."""
    real, gen = wide(real), wide(gen)
    middle = real.mean(dim=0)  # differences stay, and lose less to rounding
    real, gen = real - middle, gen - middle
    for start in range(0, directions, BLOCK):
        rng = host_rng(seed, "mind/directions", start)
        drawn = torch.from_numpy(rng.standard_normal((BLOCK, real.shape[1])))[: directions - start]
        u = torch.nn.functional.normalize(drawn, dim=1).to(real.device, real.dtype)
        yield (u @ real.t()).double(), (u @ gen.t()).double()
