"""The Monge distance against SciPy's assignments and closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.optimize
import torch

from sg3.metrics import monge
from sg3.metrics.monge import monge_distance


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class TestMongeDistance:
    def test_by_the_formula(self) -> None:
        """Along each direction the 1-D distance is that of SciPy's assignment, not of sorted lists."""
        real, gen = normal(30, 6), normal(30, 6, seed=1) * 1.5 + 0.3
        total = 0.0
        for x, y in monge.projections(real, gen, 7, 0):
            assert x.shape == y.shape == (7, 30)
            for a, b in zip(x.numpy(), y.numpy(), strict=True):
                cost = np.square(a[:, None] - b[None])
                total += cost[scipy.optimize.linear_sum_assignment(cost)].sum()
        assert monge_distance(real, gen, directions=7) == pytest.approx(3 * 6 / (30 * 7) * total, rel=1e-12)

    def test_directions_are_uniform_and_go_on(self) -> None:
        """Projections of the unit vectors are the directions; more of them begin with the same ones."""
        unit = torch.eye(5, dtype=torch.float64)
        few, many = (torch.cat([x for x, _ in monge.projections(unit, unit, m, 3)]) for m in (150, 1000))
        assert many.shape == (1000, 5)
        assert torch.equal(few, many[:150])
        differences = many[:, :1] - many[:, 1:]  # u_1 - u_j, whatever was subtracted from all
        assert float(differences.mean(0).abs().max()) < 4 * (2 / 5 / 1000) ** 0.5
        expected = torch.full((4,), 2 / 5, dtype=torch.float64)
        torch.testing.assert_close(differences.square().mean(0), expected, rtol=0.2, atol=0)

    def test_of_a_shift(self) -> None:
        """Y = X + D: 3 |D|^2."""
        x, shift = normal(300, 10), normal(10, seed=1)
        expected = 3 * float(shift.square().sum())
        assert monge_distance(x, x + shift, directions=4000) == pytest.approx(expected, rel=0.1)

    def test_of_a_scale(self) -> None:
        """Y = s X, X ~ N(0, I): 3 d (s - 1)^2."""
        x = normal(2000, 8)
        assert monge_distance(x, 1.5 * x, directions=500) == pytest.approx(3 * 8 * 0.25, rel=0.05)

    def test_is_a_distance(self) -> None:
        x, y = normal(50, 4), normal(50, 4, seed=1) + 1
        assert monge_distance(x, x) == 0
        assert monge_distance(x, x.flip(0)) == pytest.approx(0, abs=1e-25)
        assert monge_distance(x, y) == pytest.approx(monge_distance(y, x), rel=1e-12)
        assert monge_distance(x, y) == monge_distance(x, y)
        assert monge_distance(x, y, seed=1) != monge_distance(x, y)

    def test_bias_falls_like_one_over_n(self) -> None:
        def mean(n: int) -> float:
            pairs = [(normal(n, 4, seed=2 * t), normal(n, 4, seed=2 * t + 1)) for t in range(20)]
            return sum(monge_distance(x, y, directions=100) for x, y in pairs) / 20

        few, many = mean(100), mean(400)
        assert many > 0
        assert 3 < few / many < 5

    def test_of_the_larger_set_a_part_is_taken(self) -> None:
        x, y = normal(70, 4), normal(40, 4, seed=1)
        real, gen = monge.equal_numbers(x, y, 0)
        assert torch.equal(gen, y)
        assert len({tuple(row.tolist()) for row in real} & {tuple(row.tolist()) for row in x}) == len(real) == 40
        assert not torch.equal(real, x[:40])
        assert monge_distance(x, y) == monge_distance(real, y)
        assert not torch.equal(monge.equal_numbers(x, y, 1)[0], real)

    def test_survives_a_large_common_offset(self) -> None:
        x, y = normal(70, 6).float(), normal(70, 6, seed=1).float() * 0.5
        assert monge_distance(x + 1e4, y + 1e4) == pytest.approx(monge_distance(x, y), rel=0.01)

    def test_wrong_inputs(self) -> None:
        with pytest.raises(ValueError, match="directions: got 0"):
            monge_distance(normal(4, 2), normal(4, 2), directions=0)
        with pytest.raises(ValueError, match="got shapes"):
            monge_distance(normal(4, 2), normal(4, 3))
