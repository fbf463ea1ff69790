"""Confidence intervals: the formulas, and how often they contain the answer."""

from __future__ import annotations

import json
import math
from collections.abc import Callable

import numpy as np
import pytest
import scipy.stats
import torch

from sg3.metrics import RealImages, compute, intervals, kid, mind, parse
from sg3.metrics.equivariance_psnr import psnr
from sg3.metrics.features import Findings
from sg3.metrics.functional import (
    frechet_distance,
    inception_score,
    kernel_distances_without,
    perceptual_path_length,
    wide,
)
from sg3.metrics.intervals import Interval, difference, groups, jackknife
from sg3.metrics.moments import Moments
from sg3.metrics.monge import monge_distances_without, projections
from sg3.metrics.wavelets import PacketMoments
from tests.helpers.pixel_detectors import PixelDetector, pixel_detectors
from tests.helpers.tiny_networks import generator2, generator3


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def without(x: torch.Tensor, group: slice) -> torch.Tensor:
    return torch.cat([x[: group.start], x[group.stop :]])


class TestFormulas:
    def test_points_of_distributions(self) -> None:
        expected = scipy.stats.t.ppf(0.975, np.arange(1, 20))
        np.testing.assert_allclose(intervals.T, expected, atol=5e-5)
        assert pytest.approx(scipy.stats.norm.ppf(0.975), abs=1e-6) == intervals.Z

    @pytest.mark.parametrize("count", [1, 2, 19, 20, 21, 50, 1003])
    def test_groups_are_runs_of_nearly_one_length(self, count: int) -> None:
        parts = groups(count)
        assert [i for part in parts for i in range(part.start, part.stop)] == list(range(count))
        assert len(parts) == min(count, 20)
        lengths = {part.stop - part.start for part in parts}
        assert max(lengths) - min(lengths) <= 1

    def test_jackknife_of_a_mean_is_the_standard_error(self) -> None:
        x = normal(20)
        found = jackknife(float(x.mean()), [float(without(x, group).mean()) for group in groups(20)])
        expected = scipy.stats.t.interval(0.95, 19, float(x.mean()), scipy.stats.sem(x))
        assert (found.low, found.high) == pytest.approx(expected, rel=1e-4)
        assert found.method == "jackknife of 20 groups of generated images"
        wider = jackknife(0, [0.0] * 20, variance=4.0)
        assert (wider.low, wider.high) == pytest.approx((-2 * 2.093, 2 * 2.093))

    @pytest.mark.parametrize("hits", [0, 1, 30, 50])
    def test_share_is_wilsons(self, hits: int) -> None:
        flags = torch.arange(50) < hits
        expected = scipy.stats.binomtest(hits, 50).proportion_ci(0.95, method="wilson")
        found = intervals.share(flags, "real images")
        assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-6)
        assert found.method == "binomial over real images, balls held fixed"

    def test_mean_and_splits(self) -> None:
        x = normal(400)
        found = intervals.mean(x, "generated images")
        expected = scipy.stats.norm.interval(0.95, float(x.mean()), scipy.stats.sem(x))
        assert (found.low, found.high) == pytest.approx(expected, rel=1e-5)
        splits = intervals.over_splits(float(x[:10].mean()), float(x[:10].std(correction=0)), 10)
        expected = scipy.stats.t.interval(0.95, 9, float(x[:10].mean()), scipy.stats.sem(x[:10]))
        assert (splits.low, splits.high) == pytest.approx(expected, rel=1e-4)

    def test_too_few_to_say(self) -> None:
        for found in (jackknife(1.0, []), intervals.mean(torch.ones(1), "x"), intervals.over_splits(1.0, 0.0, 1)):
            assert math.isnan(found.low)
            assert found.as_dict()["low"] is None
            json.dumps(found.as_dict(), allow_nan=False)

    def test_kernel_distance_without_groups(self) -> None:
        """All pairs, written out; up to what the real ones give by themselves."""
        real, gen = normal(13, 3), normal(43, 3, seed=1) + 0.4

        def unbiased(y: torch.Tensor) -> float:
            kernel = [(a @ b.t() / 3 + 1) ** 3 for a, b in ((y, y), (real, y))]
            n = len(y)
            return float((kernel[0].sum() - kernel[0].diagonal().sum()) / (n * (n - 1)) - 2 * kernel[1].mean())

        found = kernel_distances_without(real, gen, groups(43))
        assert found == pytest.approx([unbiased(without(gen, group)) for group in groups(43)], rel=1e-9)

    @pytest.mark.parametrize("n", [24, 45])
    def test_monge_distance_without_groups(self, n: int) -> None:
        """Unequal numbers: every sample as often as makes both sets as large."""
        real, gen = normal(n, 3), normal(n, 3, seed=1) * 0.5
        found = monge_distances_without(real, gen, groups(n), directions=150)
        assert len(found) == 20
        for g in (0, 7, 19):
            total = 0.0
            rest = without(gen, groups(n)[g])
            for (x, _), (_, y) in zip(projections(real, gen, 150, 0), projections(real, rest, 150, 0), strict=True):
                a, b = x.repeat_interleave(len(rest), 1).sort(1).values, y.repeat_interleave(n, 1).sort(1).values
                total += float((a - b).square().mean(dim=1).sum())
            assert found[g] == pytest.approx(3 * 3 / 150 * total, rel=1e-9)


def line(values: list[float], seed: int = 0, value: float = 1.0, **recipe: object) -> dict:
    interval = Interval(0, 2, "jackknife", tuple(values)).as_dict()
    recipe = {"seed": seed, "num_gen": 9, **recipe}
    return {"results": {"fid9": value}, "recipe": recipe, "intervals": {"fid9": interval}}


class TestDifference:
    def test_knows_what_the_networks_share(self) -> None:
        """Values that move together have a difference that does not move."""
        common = normal(20).tolist()
        first, second = line([1.5 + x for x in common], value=1.5), line([1 + x for x in common])
        value, interval = difference(first, second, "fid9")
        assert value == 0.5
        assert (interval.low, interval.high) == pytest.approx((0.5, 0.5))
        assert difference(second, first, "fid9")[0] == -0.5

    @pytest.mark.parametrize(("second", "words"), [
        (line([1.0] * 20, seed=1), "seed differs, 0 and 1"),
        (line([1.0] * 20, mirrored=True), "mirrored differs, None and True"),
        (line([1.0] * 20, background="#000000"), "background differs, None and #000000"),
        (line([1.0] * 20, bars="cut off, 256x144 left"), "bars differs, None and cut off, 256x144 left"),
        ({**line([1.0] * 20), "recipe": {"seed": 0, "num_gen": 9, "dataset": {"sha256": "b"}}}, "real images differ"),
        (line([1.0] * 5), "both lines need a jackknifed interval"),
        ({"results": {"fid9": 1.0}, "recipe": {}}, "both lines need"),
    ])  # fmt: skip
    def test_refuses_what_cannot_be_compared(self, second: dict, words: str) -> None:
        with pytest.raises(ValueError, match=words):
            difference(line([1.0] * 20), second, "fid9")


NAMES = ("fid22_full", "kid22_full", "mind18_full", "pr22_3_full", "dc22_3_full", "is22", "ppl6_wend", "eqt8_int")


class TestDriver:
    def test_values_stay_and_have_intervals(self, real16: RealImages) -> None:
        G, metrics = generator3(), [parse(name) for name in NAMES]
        settings = {"device": "cpu", "batch": 8, "detectors": pixel_detectors()}
        plain, measured = (compute(metrics, G, real16, intervals=asked, **settings) for asked in (False, True))
        for before, after in zip(plain, measured, strict=True):
            assert before.intervals is None
            assert "intervals" not in before.as_dict()
            assert after.results == pytest.approx(before.results, rel=1e-9)
            named = {name for name in after.results if not name.endswith("_std")}
            assert set(after.intervals) == named
            for name, interval in after.intervals.items():
                assert interval.low <= after.results[name] <= interval.high, name
            json.dumps(after.as_dict(), allow_nan=False)

    def test_frechet_distance_without_each_group(self, real16: RealImages) -> None:
        from sg3.metrics.samples import Samples, random_labels

        G, detector = generator3(), PixelDetector("inception")
        (result,) = compute([parse("fid45_full")], G, real16, device="cpu", intervals=True, batch=8,
                            detectors={"inception": detector})  # fmt: skip
        samples = Samples(G, random_labels(G, None, 0), 0, batch=8)
        gen = torch.cat([detector.features(samples.images(part)) for part in samples.chunks(45)])[:45]
        real = detector.features(torch.stack([torch.from_numpy(image) for image, _ in real16.open()]))
        expected = [frechet_distance(real, without(gen, group)) for group in groups(45)]
        assert result.intervals["fid45_full"].left_out == pytest.approx(expected, rel=1e-6)

    def test_equivariance_and_wavelets_without_each_group(self, real8: RealImages) -> None:
        """Of two batches, the value without the second one is the value of the first; FWD counts in integers."""
        (moved,) = compute([parse("eqt8_frac")], generator3(), device="cpu", intervals=True)
        (first,) = compute([parse("eqt4_frac")], generator3(), device="cpu")
        assert moved.intervals["eqt8_frac"].left_out[1] == pytest.approx(first.results["eqt4_frac"], rel=1e-9)
        assert len(moved.intervals["eqt8_frac"].left_out) == 2

        wavelets = [parse("fwd8_full")]
        plain, measured = (
            compute(wavelets, generator2(), real8, device="cpu", intervals=asked)[0] for asked in (False, True)
        )
        assert measured.results == plain.results
        assert len(measured.intervals["fwd8_full"].left_out) == 8


# ---- how often intervals contain the answer: the mean over all trials, for metrics whose bias is part of their answer

TRIALS = 200
N, D = 300, 8


def contained(trial: Callable[[int], tuple[float, Interval]], answer: float | None = None) -> float:
    """The share of intervals that contain the answer."""
    found = [trial(seed) for seed in range(TRIALS)]
    answer = float(np.mean([value for value, _ in found])) if answer is None else answer
    return float(np.mean([interval.low <= answer <= interval.high for _, interval in found]))


def of(name: str, found: Findings) -> tuple[float, Interval]:
    return found.values[name], found.intervals[name]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fid300_full", "kid300_full", "mind300_full", "precision", "recall", "density",
                                  "coverage", "is", "ppl", "eq", "fwd300_full"])  # fmt: skip
def test_coverage_of_intervals(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between 90 and 99 of 100 contain the answer, for normal features of dimension 8."""
    monkeypatch.setattr(kid, "SUBSET_SIZE", 100)
    monkeypatch.setattr(mind, "DIRECTIONS", 100)
    real = normal(400, D, seed=10**6)

    def gen(seed: int, n: int = N) -> torch.Tensor:
        return normal(n, D, seed=seed) * 0.9 + 0.2

    def trial(seed: int) -> tuple[float, Interval]:
        if name == "fid300_full":
            return of(name, parse(name).evaluate(Moments.of(real), gen(seed), None, seed, True))
        if name in ("kid300_full", "mind300_full"):
            return of(name, parse(name).evaluate(real, gen(seed), None, seed, True))
        if name in ("precision", "density", "coverage"):
            metric = parse("pr300_3_full" if name == "precision" else "dc300_5_full")
            return of(f"{metric.name}_{name}", metric.evaluate(real, gen(seed), None, 0, True))
        if name == "recall":  # a share of real images
            return of("pr300_3_full_recall",
                      parse("pr300_3_full").evaluate(normal(400, D, seed=seed), gen(10**6), None, 0, True))
        if name == "is":
            mean, std = inception_score((gen(seed) * 2).softmax(dim=1))
            return mean, intervals.over_splits(mean, std, 10)
        if name == "ppl":
            distances = gen(seed)[:, 0].exp()
            left_out = [perceptual_path_length(without(distances, group)) for group in groups(N)]
            value = perceptual_path_length(distances)
            return value, jackknife(value, left_out)
        if name == "eq":
            sums = gen(seed)[:, :2].square() + 0.1  # of 300 batches: squared differences, pixels
            parts = torch.stack([sums[group].sum(dim=0) for group in groups(N)])
            value = psnr(*parts.sum(dim=0).tolist())
            return value, jackknife(value, [psnr(*(parts.sum(dim=0) - part).tolist()) for part in parts])
        assert name == "fwd300_full"
        images = [(x.reshape(-1, 1, 2, 4) * 30 + 128).clamp(0, 255).byte() for x in (wide(real), gen(seed))]
        return of(name, parse(name).evaluate(PacketMoments.of(images[0]), images[1], None, 0, True))

    assert 0.90 <= contained(trial) <= 0.99


@pytest.mark.slow
def test_coverage_of_a_difference() -> None:
    """Of the FIDs of two networks that share their latents."""
    real = Moments.of(normal(400, D, seed=10**6))
    metric = parse("fid300_full")

    def trial(seed: int) -> tuple[float, Interval]:
        z = normal(N, D, seed=seed)
        lines = []
        for gen in (z * 0.9 + 0.2, z * 1.1 + 0.1):
            found = metric.evaluate(real, gen, None, 0, True)
            entry = {name: interval.as_dict() for name, interval in found.intervals.items()}
            lines.append({"results": found.values, "recipe": {"seed": 0, "num_gen": N}, "intervals": entry})
        return difference(*lines, metric.name)

    assert 0.90 <= contained(trial) <= 0.99
