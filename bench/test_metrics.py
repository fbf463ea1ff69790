"""The slow parts of the metrics against how other tools do them; a line for each, on one thread:

    OPENBLAS_NUM_THREADS=1 pytest bench/test_metrics.py -m slow -s

Minutes, most of them scipy's; `pytest bench` leaves them out.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from sg3.metrics import RealImages, compute, parse
from sg3.metrics.detectors import InceptionDetector
from sg3.metrics.functional import frechet_from_moments, precision_recall
from sg3.models import stylegan3
from sg3.models.features.inception import InceptionV3

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


def test_one_pass_against_metric_by_metric(tmp_path: Path) -> None:
    """FID, KID and inception score of 64 images of 64 x 64, Inception with random weights, nothing cached."""
    torch.manual_seed(0)
    for i in range(64):
        Image.fromarray(torch.randint(0, 256, (64, 64, 3), dtype=torch.uint8).numpy()).save(tmp_path / f"{i}.png")
    G = stylegan3.Generator(64, 0, 64, 64, 3, channel_base=1024, channel_max=32).eval()
    names = ["fid64_full", "kid64_full", "is64"]
    detector = InceptionDetector(InceptionV3().eval(), "random", torch.device("cpu"))

    def values(each: list[str]) -> list[dict[str, float]]:
        results = compute(
            [parse(name) for name in each], G, RealImages(tmp_path), device="cpu",
            detectors={"inception": detector}, cache=False, batch=8,
        )  # fmt: skip
        return [result.results for result in results]

    ours, value = seconds(lambda: values(names))
    theirs, expected = seconds(lambda: [result for name in names for result in values([name])])
    print(f"\none pass {ours:.1f} s, metric by metric {theirs:.1f} s: {theirs / ours:.1f} times as fast")
    assert value == expected
