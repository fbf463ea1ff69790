"""95 % confidence intervals of metrics: what other generated images of the same network would have given.

Real images count as given, except where a metric is a share of them. Intervals are about a number at its own number of
images: they do not contain the value that infinitely many would have, where the estimate is biased.

    jackknife   of Frechet, kernel and Monge distances, coverage, path length, equivariance: the value is computed again
                without each of 20 groups of generated images. (The bootstrap's percentiles are wrong there: drawing
                images again doubles the bias, and nominal 95 % contained the answer in half of all cases.)
    share       of precision and recall: a binomial share of the images that are asked, Wilson's interval. The balls
                are held fixed; drawn again they would have doubles, and no radius.
    mean        of density: over generated images
    splits      of the inception score: over its splits
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

GROUPS = 20
Z = 1.959964  # 97.5 % point of the normal distribution
T = (12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281,
     2.2010, 2.1788, 2.1604, 2.1448, 2.1314, 2.1199, 2.1098, 2.1009, 2.0930)  # Student's, 1 to 19 degrees of freedom


@dataclass(frozen=True)
class Interval:
    """From `low` to `high`; `left_out` are the values without each group, for differences of two networks."""

    low: float
    high: float
    method: str
    left_out: tuple[float, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """For a line of metric-NAME.jsonl; what is not finite becomes null."""
        numbers = {"low": self.low, "high": self.high}
        record: dict[str, Any] = {name: x if math.isfinite(x) else None for name, x in numbers.items()}
        record |= {"level": 0.95, "method": self.method}
        if self.left_out:
            record["left_out"] = [x if math.isfinite(x) else None for x in self.left_out]
        return record


def groups(count: int) -> list[slice]:
    """Runs of consecutive images, 20 or as many as there are images. (StyleGAN2's share noise with neighbours.)"""
    number = min(GROUPS, count)
    return [slice(g * count // number, (g + 1) * count // number) for g in range(number)]


def jackknife(value: float, left_out: Sequence[float], variance: float = 0.0) -> Interval:
    """Around `value`, from the values without each group: se^2 = (G - 1) / G sum (v_g - mean)^2, plus the variance of
    what else was drawn. NaN for fewer than two groups."""
    G = len(left_out)
    if G < 2:
        return Interval(math.nan, math.nan, f"jackknife of {G} groups of generated images")
    mean = sum(left_out) / G
    se = math.sqrt((G - 1) / G * sum((v - mean) ** 2 for v in left_out) + variance)
    reach = T[G - 2] * se
    return Interval(value - reach, value + reach, f"jackknife of {G} groups of generated images", tuple(left_out))


def share(flags: torch.Tensor, of: str, fixed: str = "balls", whole: float = 1.0) -> Interval:
    """Of a share, the mean of bool [N], times `whole`: Wilson's."""
    n, p = len(flags), float(flags.double().mean())
    middle = (p + Z**2 / (2 * n)) / (1 + Z**2 / n)
    reach = Z / (1 + Z**2 / n) * math.sqrt(p * (1 - p) / n + Z**2 / (4 * n * n))
    low, high = max(middle - reach, 0.0) * whole, min(middle + reach, 1.0) * whole
    return Interval(low, high, f"binomial over {of}, {fixed} held fixed")


def mean(values: torch.Tensor, of: str) -> Interval:
    """Of the mean of [N]. NaN for one."""
    values = values.double()
    std = float(values.std()) if len(values) > 1 else math.nan
    middle, reach = float(values.mean()), Z * std / len(values) ** 0.5
    return Interval(middle - reach, middle + reach, f"mean over {of}, balls held fixed")


def over_splits(average: float, std: float, splits: int) -> Interval:
    """Of an average of the values of some splits, whose standard deviation (divided by their number) is `std`."""
    if splits < 2:
        return Interval(math.nan, math.nan, f"{splits} splits")
    reach = T[splits - 2] * std / (splits - 1) ** 0.5
    return Interval(average - reach, average + reach, f"{splits} splits of generated images")


def differences(
    line: dict[str, Any], other: dict[str, Any], note: Callable[[str], object]
) -> dict[str, dict[str, float | None]]:
    """By name, how much larger the values of one line of metric-NAME.jsonl are than those of another, with an interval,
    as plain data; `note` is told why there is none."""
    found = {}
    for name in line.get("intervals", {}):
        try:
            value, interval = difference(line, other, name)
        except ValueError as error:
            note(str(error))
        else:
            known = interval.as_dict()
            found[name] = {"value": value, "low": known["low"], "high": known["high"]}
    return found


def difference(first: dict[str, Any], second: dict[str, Any], name: str) -> tuple[float, Interval]:
    """How much larger a value is in the first line of metric-NAME.jsonl than in the second, with an interval that
    knows that both networks saw the same latents: it is narrower than both intervals let expect.

    Raises ValueError unless both lines have jackknifed intervals, of one seed, the same real images, looked at in the
    same way, and as many of both kinds.
    """
    records = [line.get("intervals", {}).get(name, {}).get("left_out") for line in (first, second)]
    recipes = [line["recipe"] for line in (first, second)]
    if not all(records) or None in records[0] + records[1] or len(records[0]) != len(records[1]):
        raise ValueError(f"{name}: both lines need a jackknifed interval (sg3 metrics --intervals)")
    for key in ("seed", "num_gen", "num_real", "detector_sha256", "resize", "mirrored", "background", "bars"):
        if recipes[0].get(key) != recipes[1].get(key):
            raise ValueError(f"{name}: {key} differs, {recipes[0].get(key)} and {recipes[1].get(key)}")
    sets = [(recipe.get("dataset") or {}).get("sha256") for recipe in recipes]
    if sets[0] != sets[1]:
        raise ValueError(f"{name}: the real images differ; name the same ones for both with --data")
    value = first["results"][name] - second["results"][name]
    return value, jackknife(value, [a - b for a, b in zip(*records, strict=True)])
