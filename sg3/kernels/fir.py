"""FIR filter design: the low-pass filters between StyleGAN3's layers, and normalisation of user-given taps.

Filters are designed once on the host in float64 and handed out as float32.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch

FilterLike = torch.Tensor | np.ndarray | Sequence[float] | Sequence[Sequence[float]] | float | None


def setup_filter(
    f: FilterLike,
    device: torch.device | str = "cpu",
    normalize: bool = True,
    flip_filter: bool = False,
    gain: float = 1.0,
    separable: bool | None = None,
) -> torch.Tensor:
    """Make a filter for `upfirdn2d` from taps.

    `f` is a scalar, [taps], [taps_y, taps_x], or None for the identity. With `normalize` the taps sum to 1, so that a
    constant image keeps its value; `gain` multiplies the result of filtering an image (both axes together);
    `flip_filter` reverses the taps. `separable=None` keeps a 1-D filter of at least 8 taps one-dimensional, where two
    passes are cheaper than one, and expands a shorter one into its outer product.

    Returns float32 [taps] or [taps_y, taps_x] on `device`. Raises ValueError for another number of dimensions.
    """
    taps = torch.as_tensor(1.0 if f is None else f, dtype=torch.float32)
    if taps.ndim not in (0, 1, 2) or taps.numel() == 0:
        raise ValueError(f"f: got shape {list(taps.shape)}, expected a scalar, [taps] or [taps_y, taps_x]")
    if not gain >= 0:
        raise ValueError(f"gain: got {gain}, expected a number >= 0")
    if taps.ndim == 0:
        taps = taps[None]
    if separable is None:
        separable = taps.ndim == 1 and taps.numel() >= 8
    if taps.ndim == 1 and not separable:
        taps = torch.outer(taps, taps)
    if taps.ndim == 2 and separable:
        raise ValueError(f"separable: is True, but f is two-dimensional {list(taps.shape)}")
    if normalize:
        taps = taps / taps.sum()
    if flip_filter:
        taps = taps.flip(list(range(taps.ndim)))
    return (taps * gain ** (taps.ndim / 2)).to(device=device)


def kaiser_attenuation(numtaps: int, width: float) -> float:
    """Stopband attenuation in dB that `numtaps` taps reach with a transition band of `width` (Nyquist = 1).

    Kaiser's estimate, as quoted in Karras et al. 2021, Appendix C.
    """
    return 2.285 * (numtaps - 1) * math.pi * width + 7.95


def kaiser_beta(attenuation: float) -> float:
    """Kaiser window parameter for a stopband attenuation in dB (Kaiser 1974)."""
    if attenuation > 50:
        return 0.1102 * (attenuation - 8.7)
    if attenuation > 21:
        return 0.5842 * (attenuation - 21) ** 0.4 + 0.07886 * (attenuation - 21)
    return 0.0


def design_lowpass_filter(
    numtaps: int, cutoff: float, width: float, fs: float, radial: bool = False
) -> torch.Tensor | None:
    """Kaiser-windowed low-pass filter with unit gain at frequency zero (Karras et al. 2021, Appendix C).

    `cutoff`, the `width` of the transition band and the sampling rate `fs` share one unit. The separable filter is a
    windowed sinc; the radial one is the jinc, the circularly symmetric ideal low-pass, under a separable window.

    Returns float32 [numtaps], or [numtaps, numtaps] if radial; None for a single tap, which filters nothing.
    Raises ValueError if the cutoff is not strictly between 0 and fs / 2.
    """
    if numtaps < 1:
        raise ValueError(f"numtaps: got {numtaps}, expected at least 1")
    if numtaps == 1:
        return None
    if not 0 < cutoff < fs / 2:
        raise ValueError(f"cutoff: got {cutoff:g}, expected a frequency strictly between 0 and fs / 2 = {fs / 2:g}")
    nyquist = fs / 2
    window = np.kaiser(numtaps, kaiser_beta(kaiser_attenuation(numtaps, width / nyquist)))
    offsets = np.arange(numtaps) - (numtaps - 1) / 2  # in samples, symmetric about 0
    if radial:
        taps = jinc(np.hypot(*np.meshgrid(offsets, offsets)) / fs, cutoff) * np.outer(window, window)
    else:
        taps = np.sinc(cutoff / nyquist * offsets) * window
    return torch.as_tensor(taps / taps.sum(), dtype=torch.float32)


def jinc(radius: np.ndarray, cutoff: float) -> np.ndarray:
    """J1(2 pi cutoff r) / (pi r), the impulse response of a circular low-pass; its limit at r = 0 is the cutoff."""
    r = torch.as_tensor(radius, dtype=torch.float64)
    safe = torch.where(r == 0, 1.0, r)
    values = torch.special.bessel_j1(2 * math.pi * cutoff * safe) / (math.pi * safe)
    result: np.ndarray = torch.where(r == 0, cutoff, values).numpy()
    return result
