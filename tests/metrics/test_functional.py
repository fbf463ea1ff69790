"""The formulas of the metrics against golden numbers, closed forms and brute force."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.linalg
import torch

from sg3.metrics import functional
from sg3.metrics.functional import (
    density_coverage,
    distances_to_nearest,
    frechet_distance,
    frechet_from_moments,
    inception_score,
    kernel_distance,
    perceptual_path_length,
    precision_recall,
)
from sg3.metrics.moments import Moments
from tests.helpers.arrays import Arrays


@pytest.fixture(scope="module")
def gold(golden: Path) -> tuple[dict[str, Any], Arrays]:
    return json.loads((golden / "metrics.json").read_text()), Arrays(golden / "metrics.npz")


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class TestGolden:
    def test_frechet_distance(self, gold) -> None:
        numbers, arrays = gold
        assert frechet_distance(arrays["real"], arrays["gen"]) == pytest.approx(numbers["fid"], rel=1e-6)

    def test_kernel_distance(self, gold) -> None:
        """One subset of all rows: the draw only changes their order."""
        numbers, arrays = gold
        n = numbers["kid_n"]
        mean, std = kernel_distance(arrays["real"][:n], arrays["gen"][:n], num_subsets=1, max_subset_size=n)
        assert mean == pytest.approx(numbers["kid"], rel=1e-5)
        assert std == 0

    def test_precision_recall(self, gold) -> None:
        numbers, arrays = gold
        precision, recall = precision_recall(arrays["real"], arrays["gen"], k=3)
        assert np.float32(precision) == np.float32(numbers["precision"])
        assert np.float32(recall) == np.float32(numbers["recall"])

    def test_inception_score(self, gold) -> None:
        numbers, arrays = gold
        mean, std = inception_score(arrays["probs"])
        assert mean == pytest.approx(numbers["is_mean"], rel=1e-5)
        assert std == pytest.approx(numbers["is_std"], rel=1e-5)


class TestFrechet:
    def test_diagonal_gaussians(self) -> None:
        """Commuting covariances: |mu1 - mu2|^2 + sum (s1 - s2)^2 over the standard deviations."""
        mu1, mu2, s1, s2 = normal(4, 20, seed=1).abs()
        expected = float(((mu1 - mu2) ** 2).sum() + ((s1 - s2) ** 2).sum())
        got = frechet_from_moments(mu1, torch.diag(s1**2), mu2, torch.diag(s2**2))
        assert got == pytest.approx(expected, abs=1e-9)

    def test_scaled_rotated_gaussian(self) -> None:
        """cov2 = a^2 cov1, whatever its axes: (1 - a)^2 tr cov1."""
        root = normal(16, 16)
        cov = root @ root.t()
        mu = normal(16, seed=2)
        got = frechet_from_moments(mu, cov, mu, 1.44 * cov)
        assert got == pytest.approx(0.04 * float(cov.trace()), abs=1e-9)

    def test_two_dimensions(self) -> None:
        """tr (cov1 cov2)^(1/2) of 2 x 2 matrices is sqrt(tr(cov1 cov2) + 2 sqrt(det(cov1 cov2)))."""
        a, b = normal(2, 2, 2, seed=3)
        cov1, cov2 = a @ a.t(), b @ b.t()
        product = cov1 @ cov2
        root = (product.trace() + 2 * torch.linalg.det(product).clamp(min=0).sqrt()).sqrt()
        zero = torch.zeros(2, dtype=torch.float64)
        expected = float(cov1.trace() + cov2.trace() - 2 * root)
        assert frechet_from_moments(zero, cov1, zero, cov2) == pytest.approx(expected, abs=1e-9)

    @pytest.mark.parametrize(("n1", "n2"), [(200, 150), (12, 150), (12, 9), (1, 5)])
    def test_agrees_with_the_matrix_square_root(self, n1: int, n2: int) -> None:
        """Also with fewer samples than dimensions, where scipy's root is good to about 1e-6."""
        x, y = normal(n1, 24, seed=4), 0.5 * normal(n2, 24, seed=5) + 0.1
        (mu1, cov1), (mu2, cov2) = (Moments.of(t).mean_and_covariance() for t in (x, y))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", scipy.linalg.LinAlgWarning)  # it knows that the matrix is singular
            root = np.real(scipy.linalg.sqrtm((cov1 @ cov2).numpy()))
        expected = float((mu1 - mu2).square().sum() + cov1.trace() + cov2.trace()) - 2 * np.trace(root)
        full_rank = min(n1, n2) > 24
        assert frechet_distance(x, y) == pytest.approx(expected, rel=1e-9 if full_rank else 1e-5)

    @pytest.mark.parametrize("n", [8, 200])
    def test_zero_between_a_set_and_itself_reordered(self, n: int) -> None:
        x = normal(n, 24)
        assert frechet_distance(x, x.flip(0)) == pytest.approx(0, abs=1e-9 * 24)

    def test_invariant_under_rotation_symmetric_and_quadratic(self) -> None:
        x, y = normal(100, 12), normal(80, 12, seed=1) * 2 + 1
        q = torch.linalg.qr(normal(12, 12, seed=2)).Q
        d = frechet_distance(x, y)
        assert frechet_distance(x @ q, y @ q) == pytest.approx(d, rel=1e-10)
        assert frechet_distance(y, x) == pytest.approx(d, rel=1e-10)
        assert frechet_distance(3 * x + 1, 3 * y + 1) == pytest.approx(9 * d, rel=1e-10)

    def test_both_ways_to_the_trace_agree(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The quick one is for full rank; without it, the other one has to give the same."""
        x, y = normal(200, 24), 0.5 * normal(150, 24, seed=1) + 0.1
        quick = frechet_distance(x, y)
        monkeypatch.setattr(torch.linalg, "cholesky_ex", lambda cov: (cov, torch.tensor(1)))
        assert frechet_distance(x, y) == pytest.approx(quick, rel=1e-11)

    @pytest.mark.parametrize("decades", [4, 8, 12, 15])
    def test_ill_conditioned(self, decades: int) -> None:
        """Diagonal variances over many decades: whichever way is taken, the sum of roots is known."""
        v1, v2 = torch.logspace(0, -decades, 50, dtype=torch.float64), torch.logspace(0.3, -decades, 50).double()
        q = torch.linalg.qr(normal(50, 50)).Q
        zero = torch.zeros(50, dtype=torch.float64)
        expected = float((v1.sqrt() - v2.sqrt()).square().sum())
        got = frechet_from_moments(zero, q @ torch.diag(v1) @ q.t(), zero, q @ torch.diag(v2) @ q.t())
        assert got == pytest.approx(expected, abs=2e-7 if decades > 12 else 1e-9)

    @pytest.mark.parametrize("first", [True, False])
    def test_missing_dimensions_count_nothing(self, first: bool) -> None:
        """One covariance has 5 of 200 dimensions: roots of 195 rounding errors would add up to about 1e-6."""
        v1, v2 = torch.linspace(1, 2, 200, dtype=torch.float64), torch.zeros(200, dtype=torch.float64)
        v2[:5] = 0.5
        q = torch.linalg.qr(normal(200, 200)).Q
        zero = torch.zeros(200, dtype=torch.float64)
        expected = float((v1.sqrt() - v2.sqrt()).square().sum())
        covs = [q @ torch.diag(v) @ q.t() for v in ((v2, v1) if first else (v1, v2))]
        assert frechet_from_moments(zero, covs[0], zero, covs[1]) == pytest.approx(expected, abs=1e-10)

    def test_covariance_is_divided_by_n(self) -> None:
        x = normal(10, 3)
        _, cov = Moments.of(x).mean_and_covariance()
        torch.testing.assert_close(cov, torch.from_numpy(np.cov(x.numpy().T, ddof=0)))


class TestMoments:
    def test_parts_add_up(self) -> None:
        x = normal(50, 6).float()
        parts = Moments(6)
        parts.add(x[:17])
        rest = Moments(6)
        rest.add(x[17:])
        parts.merge(rest)
        whole = Moments.of(x)
        assert parts.count == whole.count == 50
        torch.testing.assert_close(parts.outer, whole.outer, rtol=1e-13, atol=1e-13)
        torch.testing.assert_close(parts.total, whole.total, rtol=1e-13, atol=1e-13)

    def test_float32_features_far_from_zero_keep_their_covariance(self) -> None:
        """Sums in float32 would lose it: 1e6 squared against a variance of 1."""
        x = (normal(1000, 2) + 1000).float()
        _, cov = Moments.of(x).mean_and_covariance()
        torch.testing.assert_close(cov, torch.cov(x.double().t(), correction=0), rtol=1e-7, atol=1e-8)

    def test_refuses(self) -> None:
        with pytest.raises(ValueError, match="expected \\[N, 3\\]"):
            Moments(3).add(torch.zeros(2, 4))
        with pytest.raises(ValueError, match="at least one"):
            Moments(3).mean_and_covariance()


class TestKernelDistance:
    def test_double_sum(self) -> None:
        """One subset of everything: the definition, term by term."""
        x, y = normal(7, 5), normal(9, 5, seed=1)[:7] + 0.3

        def k(a: torch.Tensor, b: torch.Tensor) -> float:
            return float((a @ b / 5 + 1) ** 3)

        m = 7
        within = sum(k(s[i], s[j]) for s in (x, y) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
        across = sum(k(a, b) for a in x for b in y) / m**2
        mean, _ = kernel_distance(x, y, num_subsets=1)
        assert mean == pytest.approx(within - 2 * across, rel=1e-12)

    def test_a_function_of_the_seed(self) -> None:
        x, y = normal(60, 8), normal(50, 8, seed=1)
        first = kernel_distance(x, y, num_subsets=5, max_subset_size=20)
        torch.manual_seed(5)
        assert kernel_distance(x, y, num_subsets=5, max_subset_size=20) == first
        assert kernel_distance(x, y, num_subsets=5, max_subset_size=20, seed=1) != first

    def test_near_zero_for_one_distribution(self) -> None:
        mean, std = kernel_distance(normal(2000, 8), normal(2000, 8, seed=1), num_subsets=20, max_subset_size=500)
        assert abs(mean) < 3 * std / 20**0.5 + 1e-3
        far, _ = kernel_distance(normal(2000, 8), normal(2000, 8, seed=1) + 1, num_subsets=20, max_subset_size=500)
        assert far > 10 * std

    def test_float32_is_enough(self) -> None:
        x, y = normal(300, 64), normal(300, 64, seed=1) + 0.05
        exact, _ = kernel_distance(x, y, num_subsets=2, max_subset_size=200)
        assert kernel_distance(x.float(), y.float(), num_subsets=2, max_subset_size=200)[0] == pytest.approx(
            exact, rel=1e-4
        )


def brute_force_balls(manifold: torch.Tensor, probes: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """[probes, manifold] distances and [manifold] radii, by differences, in float64."""
    own = (manifold[:, None] - manifold[None]).norm(dim=2)
    return (probes[:, None] - manifold[None]).norm(dim=2), own.sort(dim=1).values[:, k]


class TestManifolds:
    @pytest.mark.parametrize("k", [1, 3])
    @pytest.mark.parametrize("tile", [10_000, 13])
    def test_precision_recall_by_brute_force(self, k: int, tile: int, monkeypatch: pytest.MonkeyPatch) -> None:
        """Points with whole coordinates of a few units: their squared distances are exact in float16, ties included."""
        monkeypatch.setattr(functional, "TILE", tile)
        real, gen = (normal(70, 6) * 3).round(), (normal(50, 6, seed=1) * 3).round()
        expected = []
        for manifold, probes in ((real, gen), (gen, real)):
            distances, radii = brute_force_balls(manifold, probes, k)
            expected.append(float((distances <= radii + 1e-9).any(dim=1).double().mean()))
        assert precision_recall(real, gen, k=k) == tuple(expected)
        assert all(0 < share < 1 for share in expected)

    def test_rounds_like_cdist_in_float16(self) -> None:
        """The original's distances, at which a handful in 1e5 are off by a unit in the last place."""
        real, gen = normal(200, 1024).relu().half(), normal(150, 1024, seed=1).relu().half()
        ours = functional._float16_distances(real.float(), gen.float())
        theirs = torch.cdist(real, gen).float()
        assert float((ours != theirs).double().mean()) < 1e-3
        exact = (real.double()[:, None] - gen.double()[None]).norm(dim=2)
        assert float((theirs - exact).abs().max()) > 1e-3  # otherwise this test would test nothing

    @pytest.mark.parametrize("scale", [2.0**-14, 2.0**-5, 2.0**7, 2.0**20])
    def test_scale_does_not_matter(self, scale: float) -> None:
        """Where float16 would overflow (squared distances above 65504) or vanish."""
        real, gen = normal(70, 6).float(), (normal(50, 6, seed=1) * 0.7 + 0.2).float()
        assert precision_recall(real * scale, gen * scale) == precision_recall(real, gen)

    @pytest.mark.parametrize("tile", [10_000, 13])
    def test_density_coverage_by_brute_force(self, tile: int, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(functional, "TILE", tile)
        real, gen = normal(70, 6), normal(50, 6, seed=1) * 0.7 + 0.2
        distances, radii = brute_force_balls(real, gen, 5)
        inside = distances <= radii
        assert not bool(torch.isclose(distances, radii[None]).any())  # no ties: those are rounding's to decide
        expected = float(inside.double().sum(dim=1).mean() / 5), float(inside.any(dim=0).double().mean())
        assert density_coverage(real, gen, k=5) == pytest.approx(expected, abs=1e-12)

    def test_density_and_coverage_of_equal_laws(self) -> None:
        """For any continuous law: E[density] = 1, E[coverage] = 1 - prod_{i <= k} (N - i) / (M + N - i)."""
        n, m, k, trials = 80, 80, 5, 300
        found = [density_coverage(normal(n, 3, seed=2 * t), normal(m, 3, seed=2 * t + 1), k=k) for t in range(trials)]
        density, coverage = np.array(found).T
        expected = 1 - np.prod([(n - i) / (m + n - i) for i in range(1, k + 1)])
        assert expected == pytest.approx(0.9716, abs=1e-4)
        assert abs(coverage.mean() - expected) < 4 * coverage.std() / trials**0.5
        assert abs(density.mean() - 1) < 4 * density.std() / trials**0.5
        assert density.std() / trials**0.5 < 0.01

    def test_what_lies_on_the_surface(self) -> None:
        """Belongs to the ball for precision and recall, but not for density and coverage."""
        real = torch.tensor([[0.0, 0.0], [2.0, 0.0], [50.0, 0.0], [52.0, 0.0]])  # radii of 2
        gen = torch.tensor([[0.0, 2.0], [50.0, 2.0]])
        assert density_coverage(real, gen, k=1) == (0, 0)
        assert precision_recall(real, gen, k=1)[0] == 1
        assert density_coverage(real, gen - torch.tensor([0, 0.02]), k=1) == (1, 0.5)

    @pytest.mark.parametrize("tile", [7, 10_000])
    def test_nearest_ones(self, tile: int, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(functional, "TILE", tile)
        rows, others = normal(20, 4), normal(33, 4, seed=1)
        distances, places = distances_to_nearest(rows, others, 3)
        expected = torch.cdist(rows, others, compute_mode="donot_use_mm_for_euclid_dist").sort(dim=1)
        torch.testing.assert_close(distances, expected.values[:, :3])
        assert torch.equal(places, expected.indices[:, :3])

    def test_same_set_is_all_inside(self) -> None:
        x = normal(40, 5).float()
        assert precision_recall(x, x) == (1.0, 1.0)
        assert density_coverage(x, x)[1] == 1.0

    def test_far_apart_is_all_outside(self) -> None:
        x = normal(40, 5).float()
        assert precision_recall(x, x + 100) == (0.0, 0.0)
        assert density_coverage(x, x + 100) == (0.0, 0.0)

    def test_swapping_the_sets_swaps_precision_and_recall(self) -> None:
        x, y = normal(40, 5), normal(60, 5, seed=1) * 0.5
        assert precision_recall(x, y) == precision_recall(y, x)[::-1]

    def test_distances_survive_a_large_common_offset(self) -> None:
        """As one matrix product they would cancel to nothing at 1e4, if nothing was subtracted first."""
        real, gen = normal(70, 6).float(), (normal(50, 6, seed=1) * 0.7 + 0.2).float()
        near, far = density_coverage(real, gen), density_coverage(real + 1e4, gen + 1e4)
        assert far == pytest.approx(near, abs=0.03)


class TestInceptionScore:
    def test_certain_and_diverse_gives_the_number_of_classes(self) -> None:
        assert inception_score(torch.eye(4).repeat(5, 1), splits=5) == pytest.approx((4.0, 0.0))

    def test_indifferent_gives_one(self) -> None:
        assert inception_score(torch.full((30, 7), 1 / 7), splits=3) == pytest.approx((1.0, 0.0))

    def test_splits_are_consecutive(self) -> None:
        """The first split holds one class, the second two."""
        probs = torch.eye(2)[[0, 0, 0, 0, 0, 1, 0, 1]]
        assert inception_score(probs, splits=2) == pytest.approx((1.5, 0.5))


class TestPathLength:
    def test_numpy_percentiles(self) -> None:
        values = normal(997).abs()
        low = np.percentile(values, 1, method="lower")
        high = np.percentile(values, 99, method="higher")
        expected = values[(values >= low) & (values <= high)].mean()
        assert perceptual_path_length(values) == pytest.approx(float(expected), rel=1e-12)

    @pytest.mark.parametrize("n", [1, 2, 100, 101, 200])
    def test_few_and_round_numbers(self, n: int) -> None:
        values = torch.arange(n, dtype=torch.float64).flip(0)
        low, high = np.percentile(values, 1, method="lower"), np.percentile(values, 99, method="higher")
        expected = values[(values >= low) & (values <= high)].mean()
        assert perceptual_path_length(values) == pytest.approx(float(expected), rel=1e-12)

    def test_outliers_do_not_count(self) -> None:
        values = torch.ones(1000)
        values[:5] = 1e9
        assert perceptual_path_length(values) == 1


NAN = torch.tensor([[0.0, float("nan")]] * 10)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: frechet_distance(torch.zeros(3, 4), torch.zeros(3, 5)), "expected \\[N, D\\] and \\[M, D\\]"),
        (lambda: frechet_distance(torch.zeros(3), torch.zeros(3)), "expected \\[N, D\\]"),
        (lambda: frechet_distance(torch.zeros(0, 2), torch.zeros(3, 2)), "0 and 3 samples, expected at least 1"),
        (lambda: frechet_distance(NAN, torch.zeros(3, 2)), "real: holds NaN"),
        (lambda: frechet_from_moments(*[torch.zeros(2)] * 4), "moments: got shapes"),
        (lambda: kernel_distance(torch.zeros(1, 2), torch.zeros(3, 2)), "at least 2"),
        (lambda: kernel_distance(torch.zeros(5, 2), NAN), "gen: holds NaN"),
        (lambda: kernel_distance(torch.zeros(5, 2), torch.zeros(5, 2), num_subsets=0), "num_subsets"),
        (lambda: precision_recall(torch.zeros(3, 2), torch.zeros(9, 2)), "3 and 9 samples, expected at least 4"),
        (lambda: precision_recall(torch.zeros(9, 2), torch.zeros(9, 2), k=0), "k: got 0"),
        (lambda: precision_recall(torch.full((9, 2), 1e6) * 1e35, torch.zeros(9, 2)), "real: holds NaN or infinity"),
        (lambda: density_coverage(torch.zeros(9, 2), NAN), "gen: holds NaN"),
        (lambda: inception_score(torch.zeros(9, 2)), "N >= splits = 10"),
        (lambda: inception_score(NAN), "probs: holds NaN"),
        (lambda: inception_score(-torch.ones(10, 2)), "negative"),
        (lambda: perceptual_path_length(torch.zeros(0)), "N >= 1"),
        (lambda: perceptual_path_length(torch.zeros(5), 60, 40), "lower, upper"),
    ],
)
def test_wrong_inputs_are_named(call, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        call()
