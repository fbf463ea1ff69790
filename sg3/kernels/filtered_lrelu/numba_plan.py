"""Which samples meet which taps in Numba's walk over an image: places and weights, worked out once for a call.

Rows are filtered as `impl_numba.py` lays them out, [phase, position, lane].
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

GROUP = 6  # taps in one step, as `impl_numba._weigh` has written out; StyleGAN3's filters have 6 per phase, or 12


class Columns(NamedTuple):
    """How rows are filtered along x, in the first of the tiles side by side; the others' are the same, moved."""

    up_at: np.ndarray      # [period, k] what the samples of a phase are made of, in positions of a row of x
    up_taps: np.ndarray    # [terms, period, k] and with which taps
    down_at: np.ndarray    # [out_phases, k] likewise, in positions of a row of the middle
    down_taps: np.ndarray  # [terms, k]
    first_pixel: int       # of x, at position 0
    first_middle: int      # position 0 of a row of the middle is this one of the whole image
    x_positions: int
    middle_positions: int
    y_positions: int


class Rows(NamedTuple):
    """How the image is filtered along y: row j of the middle from row ceil((j - padding) / up) of x on."""

    up_taps: np.ndarray    # [terms, (j - padding) % up, k]
    up_count: int          # of which so many are not just there to fill a GROUP
    up_padding: int
    down_taps: np.ndarray  # [terms, k]
    down_count: int
    down_padding: int
    middle: int            # rows of the middle that exist; beyond, the second filter reads 0


def plan_columns(
    up_taps: np.ndarray, down_taps: np.ndarray, up_padding: int, down_padding: int, factors: tuple[int, int, int],
    width: int,
) -> Columns:  # fmt: skip
    """For tiles of `width` outputs and filters of [terms, taps]."""
    up, down, period = factors
    x_phases, y_phases = period // up, period // down
    first_middle, lead = divmod(-down_padding, period)  # the first output begins `lead` samples after position 0
    samples = first_middle * period + np.arange(period)
    pixel, up_weights = upsampling(up_taps, up_padding, up, samples)
    first_pixel = int(pixel.min())
    k, down_weights = downsampling(down_taps)
    sample = lead + np.arange(y_phases)[:, None] * down + k  # [y_phases, k]
    y_positions = -(-width // y_phases)
    middle_positions = int(sample.max()) // period + y_positions
    x_positions = int(pixel.max() - first_pixel) // x_phases + middle_positions
    return Columns(
        _places(pixel - first_pixel, x_phases, x_positions), up_weights, _places(sample, period, middle_positions),
        down_weights, first_pixel, first_middle, x_positions, middle_positions, y_positions,
    )  # fmt: skip


def plan_rows(
    up_taps: np.ndarray, down_taps: np.ndarray, up_padding: int, down_padding: int, up: int, middle: int
) -> Rows:
    _, up_weights = upsampling(up_taps, 0, up, np.arange(up))  # padding only moves them
    _, down_weights = downsampling(down_taps)
    up_count, down_count = -(-up_taps.shape[1] // up), down_taps.shape[1]
    return Rows(up_weights, up_count, up_padding, down_weights, down_count, down_padding, middle)


def upsampling(taps: np.ndarray, padding: int, up: int, samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which pixels [samples, k] make these samples, and with which taps [terms, samples, k].

    s[j] = sum_i taps[j - padding + n - 1 - i * up] x[i]. Spare places, to fill a GROUP, repeat a pixel with a tap of 0.
    """
    n = taps.shape[1]
    count = -(-n // up)
    k = np.minimum(np.arange(-(-count // GROUP) * GROUP), count - 1)
    pixel = -((padding - samples[:, None]) // up) + k
    index = samples[:, None] - padding + n - 1 - pixel * up
    weights = np.where(index >= 0, taps[:, np.maximum(index, 0)], 0.0)
    weights[:, :, count:] = 0
    return pixel, np.ascontiguousarray(weights, np.float32)


def downsampling(taps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """y[o] = sum_k taps[n - 1 - k] s[o * down - padding + k]: k and the taps [terms, k], filled likewise."""
    n = taps.shape[1]
    k = np.minimum(np.arange(-(-n // GROUP) * GROUP), n - 1)
    weights = taps[:, n - 1 - k]
    weights[:, n:] = 0
    return k, np.ascontiguousarray(weights, np.float32)


def _places(index: np.ndarray, phases: int, positions: int) -> np.ndarray:
    """Where in a row of [phase, position] an index along x lies."""
    return index % phases * positions + index // phases
