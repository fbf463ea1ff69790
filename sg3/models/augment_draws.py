"""Random numbers of the augmentation pipeline: named, drawn on the host, independent for every sample.

A sample takes one row of uniform numbers from its generator, always the same ones in the same order, whatever is
enabled and however probable it is. Every parameter is a quantile of its distribution, so a row of equal numbers is the
pipeline with every parameter at that percentile.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

BANDS = 4  # of the image filter

# An operation happens where its gate lies below its probability. Rotations before and after stretching are separate.
GATES = (
    "xflip", "rotate90", "xint", "scale", "rotate_before", "aniso", "rotate_after", "xfrac",
    "brightness", "contrast", "lumaflip", "hue", "saturation",
    *(f"band{i}" for i in range(BANDS)), "noise", "cutout",
)  # fmt: skip
VALUES = (
    "xflip", "rotate90", "xint_x", "xint_y", "scale", "rotate_before", "aniso", "rotate_after", "xfrac_x", "xfrac_y",
    "brightness", "contrast", "lumaflip", "hue", "saturation",
    *(f"band{i}" for i in range(BANDS)), "noise", "cutout_x", "cutout_y",
)  # fmt: skip


@dataclass(frozen=True)
class Draws:
    """Uniform numbers in (0, 1) for N samples, [N] by name: what decides, and how much.

    `p` is the probability that the pipeline's multipliers multiply (ADA's one parameter). `spread` scales what is
    normally distributed.
    """

    count: int
    p: float
    gates: dict[str, np.ndarray]
    values: dict[str, np.ndarray]
    spread: float = 1.0

    @classmethod
    def random(cls, rngs: Sequence[np.random.Generator], p: float) -> Draws:
        """One sample from each generator."""
        columns = len(GATES) + len(VALUES)
        rows = np.stack([rng.random(columns) for rng in rngs]) if rngs else np.empty([0, columns])
        rows = rows.clip(2.0**-54, None)  # random() may be 0, whose normal quantile is infinite
        gates, values = rows[:, : len(GATES)].T, rows[:, len(GATES) :].T
        return cls(len(rngs), p, dict(zip(GATES, gates, strict=True)), dict(zip(VALUES, values, strict=True)))

    @classmethod
    def at_percentile(cls, count: int, percentile: float) -> Draws:
        """Everything enabled happens, with each parameter at this percentile (0..1) of its distribution.

        As in the original, only the first of the two rotations happens here, and normal distributions have 1 / sqrt(2)
        of their deviation: a normal quantile without this factor.
        """
        gates = {name: np.full(count, float(name == "rotate_after")) for name in GATES}
        return cls(count, 1.0, gates, dict.fromkeys(VALUES, np.full(count, percentile)), spread=0.5**0.5)

    def where(self, gate: str, multiplier: float, value: np.ndarray, otherwise: float) -> np.ndarray:
        """`value` [N] in the samples that the operation happens to, with probability multiplier * p."""
        return self.where_probability(gate, multiplier * self.p, value, otherwise)

    def where_probability(self, gate: str, probability: float, value: np.ndarray, otherwise: float) -> np.ndarray:
        """The same with a probability that is no product."""
        return np.where(self.gates[gate] < probability, value, otherwise)

    def choice(self, name: str, count: int) -> np.ndarray:
        """[N], one of 0 .. count - 1, all equally likely."""
        return np.floor(self.values[name] * count).clip(max=count - 1)

    def uniform(self, name: str, limit: float) -> np.ndarray:
        """[N], uniform in -limit .. limit."""
        return (2 * self.values[name] - 1) * limit

    def normal(self, name: str, std: float) -> np.ndarray:
        """[N], normal with mean 0."""
        return _normal_quantile(self.values[name]) * (std * self.spread)

    def half_normal(self, name: str, std: float) -> np.ndarray:
        """[N], the absolute value of such a number."""
        return _normal_quantile((1 + self.values[name]) / 2) * (std * self.spread)

    def log2_normal(self, name: str, std: float) -> np.ndarray:
        """[N], a positive factor whose base-2 logarithm is normal with mean 0."""
        return np.exp2(self.normal(name, std))


def _normal_quantile(probability: np.ndarray) -> np.ndarray:
    quantile: np.ndarray = torch.special.ndtri(torch.from_numpy(np.ascontiguousarray(probability))).numpy()
    return quantile
