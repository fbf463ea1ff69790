"""float32 on tensor cores for half precision, as exact as its sums are: numbers in two parts, and powers of two.

A float32 number is, to 2^-22 of itself, the sum of two float16 numbers, what is nearest and what that leaves; of the
four products of two such sums the one of what was left is not needed. float16 has few exponents, though: below 2^-14
it loses bits, at 2^16 it ends. So every plane is multiplied by a power of two that brings its largest pixel close to
the top, as far as the taps' sums leave room, and the taps by powers of two that bring the largest close to 1.
What is small beside its plane's largest pixel is then off by 2^-24 of that, or, in rounding W and N, by a little
more, which is what a float32 sum that includes the large one loses, too.

Where a clamp makes samples much smaller than the pixels they come from, they are multiplied once more (`lift`), or
they would end below float16's smallest number.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

TOP = 15  # float16 numbers are less than 2^16; one power of two is left for what rounds up


@dataclass(frozen=True)
class Powers:
    """Exponents of two: what the largest pixel and the largest sample may become; those that the taps of the up
    filter and of both filters were multiplied by."""

    pixels: int
    samples: int
    up: int
    both: int


def scaled_taps(
    ux: np.ndarray, uy: np.ndarray, dx: np.ndarray, dy: np.ndarray, up: int, slope: float
) -> tuple[list[np.ndarray], Powers]:
    """Taps [terms, n], the largest of each filter in [1, 2), and what room they leave."""
    taps, exponents = [], []
    for t in (ux, uy, dx, dy):
        most = np.abs(t).max()
        exponents.append(-math.floor(math.log2(most)) if 0 < most < math.inf else 0)
        taps.append(t * 2.0 ** exponents[-1])

    def sums(t: np.ndarray, phases: int) -> np.ndarray:  # [terms]: the largest of the phases' sums of magnitudes
        return np.max([np.abs(t[:, phase::phases]).sum(axis=1) for phase in range(phases)], axis=0)

    x, y = sums(taps[0], up), sums(taps[1], up)
    wide, samples, narrow = x.max(), (x * y).sum() * max(slope, 1), sums(taps[3], 1).max()
    most = max(wide, samples, samples * narrow, 1)
    powers = (math.ceil(math.log2(n)) if n < math.inf else 0 for n in (most, max(narrow, 1)))
    pixels, after = (TOP - n for n in powers)
    return taps, Powers(pixels, after, sum(exponents[:2]), sum(exponents))


def in_parts(matrices: np.ndarray) -> torch.Tensor:
    """[...] -> float16 [2, ...]: the nearest, and what is left."""
    exact = torch.from_numpy(matrices)
    high = exact.half()
    return torch.stack([high, (exact - high.double()).half()])
