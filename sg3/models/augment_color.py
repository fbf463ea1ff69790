"""Colour and filtering of the augmentation pipeline.

Colour matrices are float64 [N, 4, 4] on the host and act on column vectors (r, g, b, 1) with channels in -1..1; the
operation that happens last is multiplied on the left.

Images with alpha are premultiplied (`sg3.transparency`). What happens to them is what would happen to the straight
colours, and what does not show stays at -1: colour matrices and noise applied to premultiplied values as they are would
light up what is invisible.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from sg3.models.augment_geometry import reflect
from sg3.transparency import has_alpha

SYM2 = (1 - 3**0.5, 3 - 3**0.5, 3 + 3**0.5, 1 + 3**0.5)  # Daubechies' wavelet of 2 vanishing moments, unnormalised

LUMA = np.array([1, 1, 1, 0]) / 3**0.5  # the grey axis
LUMA_PROJECTION = np.outer(LUMA, LUMA)
# LUMA_CROSS @ v = cross product of the grey axis and v
LUMA_CROSS = np.array([[0, -1, 1, 0], [1, 0, -1, 0], [-1, 1, 0, 0], [0, 0, 0, 0]]) / 3**0.5

# What natural images hold in each band, lowest first (Karras et al. 2020, Appendix B, from the 1 / f spectrum).
EXPECTED_POWER = np.array([10, 1, 1, 1]) / 13


def brighten(amount: np.ndarray) -> np.ndarray:
    """Adds [N] to every channel."""
    matrix = np.tile(np.eye(4), [len(amount), 1, 1])
    matrix[:, :3, 3] = amount[:, None]
    return matrix


def contrast(factor: np.ndarray) -> np.ndarray:
    """Multiplies every channel by [N]."""
    return factor[:, None, None] * np.diag([1, 1, 1, 0]) + np.diag([0, 0, 0, 1])


def flip_luma(flipped: np.ndarray) -> np.ndarray:
    """Where `flipped` [N] is 1, reflects at the plane across the grey axis: light becomes dark, hues stay."""
    return np.eye(4) - 2 * flipped[:, None, None] * LUMA_PROJECTION


def turn_hue(angle: np.ndarray) -> np.ndarray:
    """Turns about the grey axis by [N] radians (Rodrigues' formula)."""
    cos, sin = np.cos(angle)[:, None, None], np.sin(angle)[:, None, None]
    axis = LUMA_PROJECTION + np.diag([0, 0, 0, 1])  # what a turn leaves alone
    return axis + cos * (np.eye(4) - axis) + sin * LUMA_CROSS


def saturate(factor: np.ndarray) -> np.ndarray:
    """Scales the distance from the grey axis by [N]."""
    axis = LUMA_PROJECTION + np.diag([0, 0, 0, 1])
    return axis + factor[:, None, None] * (np.eye(4) - axis)


def recolor(x: torch.Tensor, matrices: torch.Tensor) -> torch.Tensor:
    """Apply `matrices` [N, K, K + 1] to the colours of x [N, K or K + 1, H, W]; alpha stays.

    With alpha a, the map A x + t of straight colours is A (p + 1) + a (t + 1 - A 1) - 1 for the premultiplied p.
    """
    k = matrices.shape[1]
    linear, offset = matrices[:, :, :k], matrices[:, :, k:]
    if k == x.shape[1]:
        return (linear @ x.flatten(2) + offset).reshape(x.shape)
    alpha = (x[:, k:].flatten(2) + 1) / 2  # [N, 1, pixels]
    color = linear @ (x[:, :k].flatten(2) + 1) + (offset + 1 - linear.sum(dim=2, keepdim=True)) * alpha - 1
    return torch.cat([color.reshape(x[:, :k].shape), x[:, k:]], dim=1)


def add_noise(x: torch.Tensor, strength: torch.Tensor) -> torch.Tensor:
    """Add white noise of a standard deviation [N] to x [N, C, H, W]; under alpha less, to alpha none."""
    if not has_alpha(x.shape[1]):
        return x + torch.randn_like(x) * strength[:, None, None, None]
    color, alpha = x[:, :-1], x[:, -1:]
    noise = torch.randn_like(color) * strength[:, None, None, None]
    return torch.cat([color + noise * ((alpha + 1) / 2), alpha], dim=1)


def filter_bank() -> torch.Tensor:
    """Four band-pass filters that add up to a unit impulse, float32 [4, 43], lowest band first.

    The bands end at pi/8, pi/4, pi/2 and pi. Each step halves the band of what is there (zeros between the taps, then
    the wavelet's low-pass) and adds the high-pass complement as the next band (Karras et al. 2020, Appendix B).
    """
    wavelet = np.array(SYM2) / np.sum(SYM2)
    low = np.convolve(wavelet, wavelet[::-1])  # a zero-phase half-band filter
    high = low * (-1.0) ** np.arange(len(low))  # its mirror image in frequency, centre positive
    if high[len(high) // 2] < 0:
        high = -high
    bank = np.eye(4, 1)
    for band in range(1, 4):
        spread = np.zeros([4, 2 * bank.shape[1] - 1])
        spread[:, ::2] = bank
        bank = np.stack([np.convolve(row, low) for row in spread])
        middle = (bank.shape[1] - len(high)) // 2
        bank[band, middle : middle + len(high)] += high
    return torch.from_numpy(bank).to(torch.float32)


def normalise_power(gains: np.ndarray) -> np.ndarray:
    """Scale band gains [N, 4] so that an image of EXPECTED_POWER keeps its power."""
    return gains / np.sqrt(gains**2 @ EXPECTED_POWER)[:, None]


def filter_bands(x: torch.Tensor, gains: torch.Tensor, bank: torch.Tensor) -> torch.Tensor:
    """Amplify the frequency bands of x [N, C, H, W] by `gains` [N, 4], along both axes, reflected at the borders.

    With alpha, flat parts must stay what they are: invisible, opaque or in between. So all channels get the filter's
    details, alpha keeps its level, and of the level of colours as much is amplified as shows.
    """
    n, c, h, w = x.shape
    if has_alpha(c):
        x = x + 1  # what is invisible is 0 now
    taps = gains @ bank.to(gains.dtype)  # [N, 43]
    kernels = taps.repeat_interleave(c, dim=0)  # one per plane
    reach = taps.shape[1] // 2
    planes = reflect(reflect(x, 3, reach, reach), 2, reach, reach).reshape(1, n * c, h + 2 * reach, w + 2 * reach)
    planes = F.conv2d(planes, kernels[:, None, None, :], groups=n * c)
    planes = F.conv2d(planes, kernels[:, None, :, None], groups=n * c)
    filtered = planes.reshape(n, c, h, w)
    if not has_alpha(c):
        return filtered
    alpha = x[:, -1:] / 2
    level = 1 - taps.sum(dim=1).square()[:, None, None, None]  # what a flat picture would lose
    color = filtered[:, :-1] + level * alpha
    return torch.cat([color, filtered[:, -1:] + level * (2 * alpha)], dim=1) - 1
