"""The slow formulas of the metrics against what other tools use for them; a line for each, on one thread:

    OPENBLAS_NUM_THREADS=1 pytest bench/test_metrics.py -m slow -s

Minutes, most of them scipy's; `pytest bench` leaves them out.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
import torch

from sg3.metrics.functional import frechet_from_moments, precision_recall

pytestmark = pytest.mark.slow
DIM = 2048  # of Inception's features


def seconds(run: Callable[[], object]) -> tuple[float, object]:
    """Processor time and result of one call: on one thread that is its duration, without what others take meanwhile."""
    begun = time.process_time()
    result = run()
    return time.process_time() - begun, result


@pytest.fixture(autouse=True)
def _threads() -> None:
    torch.set_num_threads(1)


def test_frechet_distance_against_sqrtm() -> None:
    """The trace term of two covariances of 10,000 samples. The target is four times the speed of scipy's sqrtm."""
    linalg = pytest.importorskip("scipy.linalg")
    rng = torch.Generator().manual_seed(0)
    spread = torch.logspace(0, -3, DIM, dtype=torch.float64)  # features' variances fall over several decades
    covs = []
    for _ in range(2):
        mix = torch.linalg.qr(torch.randn(DIM, DIM, generator=rng, dtype=torch.float64)).Q
        x = torch.randn(10_000, DIM, generator=rng, dtype=torch.float64) * spread.sqrt() @ mix
        covs.append(torch.cov(x.t(), correction=0))
    zero = torch.zeros(DIM, dtype=torch.float64)
    ours, value = seconds(lambda: frechet_from_moments(zero, covs[0], zero, covs[1]))

    def other() -> float:
        root = linalg.sqrtm((covs[0] @ covs[1]).numpy())
        return float(covs[0].trace() + covs[1].trace()) - 2 * float(root.trace().real)

    theirs, expected = seconds(other)
    print(f"\nfrechet_from_moments {ours:.1f} s, sqrtm {theirs:.1f} s: {theirs / ours:.1f} times as fast, "
          f"{value:.10f} and {expected:.10f}")
    assert value == pytest.approx(expected, rel=1e-6)


def test_precision_recall_against_cdist() -> None:
    """12,000 against 12,000 vectors of 512 numbers, in tiles of 10,000, and with float16 torch.cdist and kthvalue."""
    rng = torch.Generator().manual_seed(0)
    real, gen = (torch.randn(12_000, 512, generator=rng).relu() for _ in range(2))
    ours, value = seconds(lambda: precision_recall(real, gen))

    def share(manifold: torch.Tensor, probes: torch.Tensor) -> float:
        radii = torch.cat([
            torch.cat([torch.cdist(rows, part).float() for part in manifold.split(10_000)], dim=1)
            .kthvalue(4, dim=1).values
            for rows in manifold.split(10_000)
        ])  # fmt: skip
        inside = [
            torch.stack([
                (torch.cdist(rows, part).float() <= radius).any(dim=1)
                for part, radius in zip(manifold.split(10_000), radii.split(10_000), strict=True)
            ]).any(dim=0)
            for rows in probes.split(10_000)
        ]  # fmt: skip
        return float(torch.cat(inside).double().mean())

    real16, gen16 = real.half(), gen.half()
    theirs, expected = seconds(lambda: (share(real16, gen16), share(gen16, real16)))
    print(f"\nprecision_recall {ours:.1f} s, cdist and kthvalue {theirs:.1f} s: {theirs / ours:.1f} times as fast, "
          f"{value} and {expected}")
    assert value == pytest.approx(expected, abs=1e-3)
