"""The formulas of the metrics, on plain tensors of features [N, D]; `real` first, `gen` second.

Everything stays on the device of its input. Wrong inputs (shapes, too few samples, NaN) raise ValueError.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import log2

import numpy as np
import torch

from sg3.metrics.moments import Moments
from sg3.randomness import host_rng

TILE = 10_000  # rows and columns of a block of distances: 400 MB in float32
REAL_FOR_INTERVALS = 20_000


def frechet_distance(real: torch.Tensor, gen: torch.Tensor) -> float:
    """Frechet distance of the normal distributions fitted to two sets of features (Heusel et al. 2017).

    In float64, with covariances divided by N as in the original: other tools' N - 1 makes FID about 1/N larger.
    """
    check_pair(real, gen, at_least=1)
    return frechet_from_moments(*Moments.of(real).mean_and_covariance(), *Moments.of(gen).mean_and_covariance())


def frechet_from_moments(mu1: torch.Tensor, cov1: torch.Tensor, mu2: torch.Tensor, cov2: torch.Tensor) -> float:
    """|mu1 - mu2|^2 + tr(cov1 + cov2 - 2 (cov1 cov2)^(1/2)), for means [D] and covariances [D, D]."""
    d = len(mu1)
    shapes = [list(t.shape) for t in (mu1, cov1, mu2, cov2)]
    if shapes != [[d], [d, d], [d], [d, d]]:
        raise ValueError(f"moments: got shapes {shapes}, expected [D], [D, D], [D], [D, D]")
    mu1, cov1, mu2, cov2 = (t.to(torch.float64) for t in (mu1, cov1, mu2, cov2))
    _check_finite(mu1=mu1, cov1=cov1, mu2=mu2, cov2=cov2)
    trace = cov1.trace() + cov2.trace() - 2 * _trace_of_root(cov1, cov2)
    return float((mu1 - mu2).square().sum() + trace)


def _trace_of_root(cov1: torch.Tensor, cov2: torch.Tensor) -> torch.Tensor:
    """tr (cov1 cov2)^(1/2), the sum of the roots of the product's eigenvalues."""
    factor = _triangular_root(cov1)
    if factor is not None and _triangular_root(cov2) is not None:
        # With cov1 = l l^T these are the eigenvalues of the symmetric l^T cov2 l.
        return torch.linalg.eigvalsh(factor.t() @ cov2 @ factor).clamp(min=0).sqrt().sum()
    # Where dimensions are missing, the root of a rounding error would count for each of them. With cov = r r^T the
    # eigenvalues are squares of the singular values of r1^T r2, which come without the square.
    return torch.linalg.svdvals(_root(cov1).t() @ _root(cov2)).sum()


def _triangular_root(cov: torch.Tensor) -> torch.Tensor | None:
    """l [D, D] with l l^T = cov; None if cov is singular up to rounding."""
    factor, failed = torch.linalg.cholesky_ex(cov)
    pivots = factor.diagonal().square()
    if failed or pivots.min() <= pivots.max() * len(cov) * torch.finfo(cov.dtype).eps:
        return None
    return factor


def _root(cov: torch.Tensor) -> torch.Tensor:
    """r [D, rank] with r r^T = cov [D, D].

    What is zero up to rounding is left out: a square root would make 1e-8 of 1e-16, for every missing dimension.
    """
    values, vectors = torch.linalg.eigh(cov)
    kept = values > values[-1].clamp(min=0) * len(values) * torch.finfo(values.dtype).eps
    root: torch.Tensor = vectors[:, kept] * values[kept].sqrt()
    return root


def kernel_distance(
    real: torch.Tensor, gen: torch.Tensor, num_subsets: int = 100, max_subset_size: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """Kernel distance, KID on Inception features (Binkowski et al. 2018): mean and standard deviation over subsets.

    The squared maximum mean discrepancy under the kernel (x.y / D + 1)^3, unbiased within the sets, averaged over
    random subsets of max_subset_size rows, or as many as the smaller set has. The subsets are a function of `seed`;
    the original draws others every time. The standard deviation says how much one subset's value scatters.
    """
    check_pair(real, gen, at_least=2)
    if num_subsets < 1 or max_subset_size < 2:
        raise ValueError(f"num_subsets, max_subset_size: got {num_subsets}, {max_subset_size}, expected >= 1, >= 2")
    m = min(len(real), len(gen), max_subset_size)
    values = []
    for index in range(num_subsets):
        rows = [host_rng(seed, f"kid/{who}", index).choice(len(x), m, replace=False)
                for who, x in (("real", real), ("gen", gen))]
        x, y = (wide(t[torch.from_numpy(r).to(t.device)]) for t, r in zip((real, gen), rows, strict=True))
        within = sum((k.sum(dtype=torch.float64) - k.diagonal().sum(dtype=torch.float64)) / (m - 1)
                     for k in (_cubic_kernel(x, x), _cubic_kernel(y, y)))
        across = _cubic_kernel(x, y).sum(dtype=torch.float64) / m
        values.append((within - 2 * across) / m)
    all_values = torch.stack(values)
    return float(all_values.mean()), float(all_values.std(correction=0))


def kernel_distances_without(
    real: torch.Tensor, gen: torch.Tensor, groups: Sequence[slice], seed: int = 0
) -> list[float]:
    """The kernel distance from all pairs without each group of `gen`, up to a constant: what `real` gives by itself is
    left out. Of more real samples than 20,000 a random part stands for all."""
    check_pair(real, gen, at_least=2)
    if len(real) > REAL_FOR_INTERVALS:
        rows = host_rng(seed, "kid/interval").choice(len(real), REAL_FOR_INTERVALS, replace=False)
        real = real[torch.from_numpy(np.sort(rows)).to(real.device)]
    real, gen = wide(real), wide(gen)
    size = torch.tensor([len(gen[group]) for group in groups], dtype=torch.float64)
    within, across = torch.zeros(len(groups), len(groups), dtype=torch.float64), torch.zeros_like(size)
    for g, group in enumerate(groups):
        part = gen[group]
        for h, other in enumerate(groups[: g + 1]):
            kernel = _cubic_kernel(part, gen[other])
            same = kernel.diagonal().sum(dtype=torch.float64) if h == g else 0
            within[g, h] = within[h, g] = float(kernel.sum(dtype=torch.float64) - same)
        across[g] = sum(float(_cubic_kernel(part, x).sum(dtype=torch.float64)) for x in real.split(TILE))
    left = len(gen) - size
    pairs = within.sum() - 2 * within.sum(dim=1) + within.diagonal()
    values: list[float] = (pairs / (left * (left - 1)) - 2 * (across.sum() - across) / (left * len(real))).tolist()
    return values if len(groups) > 1 else []


def _cubic_kernel(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return (x @ y.t() / x.shape[1] + 1) ** 3


def precision_recall(real: torch.Tensor, gen: torch.Tensor, k: int = 3) -> tuple[float, float]:
    """Improved precision and recall (Kynkaanniemi et al. 2019).

    Precision is the share of `gen` within the estimated manifold of `real`, recall the other way round. A manifold is
    the union of balls around its samples, each reaching to the k-th nearest other one. Features and distances are
    rounded to float16 and the surface belongs to the ball, as in the original.
    """
    precise, recalled = within_manifolds(real, gen, k)
    return float(precise.double().mean()), float(recalled.double().mean())


def within_manifolds(real: torch.Tensor, gen: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Which of `gen` lie within the manifold of `real`, bool [M], and which of `real` in that of `gen`, bool [N]."""
    check_pair(real, gen, at_least=k + 1, k=k)
    scale = _float16_scale(real, gen)
    real, gen = (_float16(wide(x) * scale) for x in (real, gen))
    flags = []
    for manifold, probes in ((real, gen), (gen, real)):
        radii = _neighbour_distances(manifold, manifold, k + 1, _float16_distances)
        flags.append(_balls_around(manifold, radii, probes, _float16_distances) > 0)
    return flags[0], flags[1]


def density_coverage(real: torch.Tensor, gen: torch.Tensor, k: int = 3) -> tuple[float, float]:
    """Density and coverage (Naeem et al., arXiv 2002.09797), with k = 5 in the paper's experiments.

    Density is the mean number of balls around `real` that a generated sample lies in, over k; coverage the share of
    balls that hold a generated sample. A ball reaches to the k-th nearest other one of `real`, and what lies on its
    surface is outside.
    """
    balls = balls_around_real(real, gen, k)
    return float(balls.hits.double().mean() / k), float(balls.covered.any(dim=1).double().mean())


@dataclass(frozen=True)
class Balls:
    """What density and coverage are the means of."""

    hits: torch.Tensor  # int64 [M]: in how many balls each generated sample lies
    covered: torch.Tensor  # bool [N, groups]: whether each real sample's ball holds a generated one of each group
    radii: torch.Tensor  # [N]


def balls_around_real(
    real: torch.Tensor, gen: torch.Tensor, k: int, groups: Sequence[slice] = (slice(None),)
) -> Balls:
    """Which generated samples [M, D], in groups that together are all, lie in which balls around real ones [N, D]."""
    check_pair(real, gen, at_least=k + 1, k=k)
    real, gen = wide(real), wide(gen)
    middle = real.mean(dim=0)  # distances stay, and lose less to cancellation
    real, gen = real - middle, gen - middle
    radii = _neighbour_distances(real, real, k + 1, _distances)
    hits = torch.zeros(len(gen), dtype=torch.int64, device=gen.device)
    covered = torch.zeros(len(real), len(groups), dtype=torch.bool, device=real.device)
    for g, group in enumerate(groups):
        for hit, part in zip(hits[group].split(TILE), gen[group].split(TILE), strict=True):
            for cover, centre, radius in zip(covered.split(TILE), real.split(TILE), radii.split(TILE), strict=True):
                inside = _distances(part, centre) < radius  # [parts, centres]
                hit += inside.sum(dim=1)
                cover[:, g] |= inside.any(dim=0)
    return Balls(hits, covered, radii)


def distances_to_nearest(rows: torch.Tensor, others: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Distances [N, k] from rows [N, D] to the k nearest of others [M, D], and which those are, int64 [N, k]."""
    check_pair(others, rows, at_least=1, k=k)
    rows, others = wide(rows), wide(others)
    if len(others) < k:
        raise ValueError(f"others: got {len(others)} samples, expected at least {k}")
    middle = others.mean(dim=0)
    rows, others = rows - middle, others - middle
    distances, places = [], []
    for part in rows.split(TILE):
        best = part.new_full((len(part), 0), torch.inf)
        where = torch.zeros(len(part), 0, dtype=torch.int64, device=part.device)
        for number, other in enumerate(others.split(TILE)):
            near = _distances(part, other).topk(min(k, len(other)), dim=1, largest=False)
            best = torch.cat([best, near.values], dim=1)
            where = torch.cat([where, near.indices + number * TILE], dim=1)
            kept = best.topk(min(k, best.shape[1]), dim=1, largest=False)
            best, where = kept.values, where.gather(1, kept.indices)
        distances.append(best)
        places.append(where)
    return torch.cat(distances), torch.cat(places)


Distances = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]  # [M, D], [N, D] -> [M, N]


def _neighbour_distances(rows: torch.Tensor, x: torch.Tensor, k: int, distances: Distances) -> torch.Tensor:
    """Distance [M] from each of the rows [M, D] to the k-th nearest of x [N, D], itself included if it is there."""
    result = []
    for part in rows.split(TILE):
        best = part.new_full((len(part), k), torch.inf)
        for other in x.split(TILE):
            nearest = distances(part, other).topk(min(k, len(other)), dim=1, largest=False).values
            best = torch.cat([best, nearest], dim=1).topk(k, dim=1, largest=False).values
        result.append(best.amax(dim=1))
    return torch.cat(result)


def _balls_around(
    centres: torch.Tensor, radii: torch.Tensor, probes: torch.Tensor, distances: Distances
) -> torch.Tensor:
    """In how many of the balls each of the probes [N, D] lies, int64 [N]."""
    counts = []
    for part in probes.split(TILE):
        count = torch.zeros(len(part), dtype=torch.int64, device=part.device)
        for centre, radius in zip(centres.split(TILE), radii.split(TILE), strict=True):
            count += (distances(part, centre) <= radius).sum(dim=1)
        counts.append(count)
    return torch.cat(counts)


def _distances(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Euclidean distances by one matrix product."""
    squares = a.square().sum(dim=1)[:, None] + b.square().sum(dim=1)[None, :]
    return squares.addmm_(a, b.t(), alpha=-2).clamp_(min=0).sqrt_()


def _float16_distances(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """The same for rows of float16 numbers, rounded where `torch.cdist` in float16 rounds: each square, each norm, each
    squared distance and the root of it. Products are summed in float32 on any device."""
    norms = [_float16(_float16(x.square()).sum(dim=1)) for x in (a, b)]
    squares = norms[0][:, None] + norms[1][None, :]
    return _float16(_float16(squares.addmm_(a, b.t(), alpha=-2)).clamp_(min=0).sqrt_())


def _float16(x: torch.Tensor) -> torch.Tensor:
    """x rounded to float16, as float32."""
    return x.to(torch.float16).to(torch.float32)


def _float16_scale(*sets: torch.Tensor) -> float:
    """A power of two that brings squared distances into float16's range: 1 for features of usual size.

    It changes no result, because rounding commutes with it.
    """
    longest = max(float(wide(x).square().sum(dim=1).max()) for x in sets)
    if longest == 0 or 1 <= longest <= 2**13:
        return 1.0
    return 2.0 ** round((13 - log2(longest)) / 2 - 0.5)


def inception_score(probs: torch.Tensor, splits: int = 10) -> tuple[float, float]:
    """Inception score (Salimans et al. 2016) of class probabilities [N, classes]: mean and deviation over the splits.

    Each split is a run of consecutive rows: shuffle them, or let them be independent samples.
    """
    if probs.ndim != 2 or splits < 1 or len(probs) < splits:
        raise ValueError(f"probs: got shape {list(probs.shape)}, expected [N, classes] with N >= splits = {splits}")
    _check_finite(probs=probs)
    if bool((probs < 0).any()):
        raise ValueError("probs: got a negative number, expected probabilities")
    scores = []
    for i in range(splits):
        part = probs[i * len(probs) // splits : (i + 1) * len(probs) // splits].to(torch.float64)
        overall = part.mean(dim=0)
        divergence = torch.xlogy(part, part) - torch.xlogy(part, overall)  # 0 log 0 = 0
        scores.append(divergence.sum(dim=1).mean().exp())
    result = torch.stack(scores)
    return float(result.mean()), float(result.std(correction=0))


def perceptual_path_length(distances: torch.Tensor, lower: float = 1.0, upper: float = 99.0) -> float:
    """Mean of the distances [N] without those beyond the given percentiles (Karras et al. 2019, Section 4.1).

    `distances` are squared perceptual distances over epsilon squared. The bounds are samples themselves, the lower one
    rounded down and the upper one rounded up, and belong to what is averaged.
    """
    if distances.ndim != 1 or len(distances) == 0:
        raise ValueError(f"distances: got shape {list(distances.shape)}, expected [N] with N >= 1")
    if not 0 <= lower <= upper <= 100:
        raise ValueError(f"lower, upper: got {lower}, {upper}, expected 0 <= lower <= upper <= 100")
    _check_finite(distances=distances)
    ordered = distances.to(torch.float64).sort().values
    last = len(ordered) - 1
    low, high = ordered[int(last * lower / 100)], ordered[-int(-last * upper // 100)]
    return float(ordered[(ordered >= low) & (ordered <= high)].mean())


def wide(x: torch.Tensor) -> torch.Tensor:
    """At least float32."""
    return x if x.dtype in (torch.float32, torch.float64) else x.to(torch.float32)


def check_pair(real: torch.Tensor, gen: torch.Tensor, at_least: int, k: int = 1) -> None:
    if real.ndim != 2 or gen.ndim != 2 or real.shape[1] != gen.shape[1]:
        raise ValueError(
            f"real, gen: got shapes {list(real.shape)} and {list(gen.shape)}, expected [N, D] and [M, D] of one width D"
        )
    if k < 1:
        raise ValueError(f"k: got {k}, expected at least 1")
    if min(len(real), len(gen)) < at_least:
        raise ValueError(f"real, gen: got {len(real)} and {len(gen)} samples, expected at least {at_least} of each")
    _check_finite(real=real, gen=gen)


def _check_finite(**tensors: torch.Tensor) -> None:
    for name, x in tensors.items():
        if not bool(torch.isfinite(x).all()):
            raise ValueError(f"{name}: holds NaN or infinity; the network or its images may be broken")
