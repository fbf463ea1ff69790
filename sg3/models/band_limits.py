"""Band limits of StyleGAN3's layers, and the sampling rates, sizes and channels that follow (Karras et al. 2021,
Figure 4c and Appendix D): numbers alone, the layers that have them are in `stylegan3`.

Units and symbols are those of `stylegan3`: frequencies in periods per image width, rates in samples per image width,
sizes in samples with margins.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from math import ceil, log2

from sg3.canvas import Size

MOST_UPSAMPLING = 128  # of the sampling rate, from one layer to the next; filters grow with it


@dataclass(frozen=True)
class BandLimits:
    """Of what layers 0 to num_layers give; layer 0 also takes its own from the Fourier features before it."""

    cutoffs: list[float]  # f_c
    half_widths: list[float]  # f_h
    rates: list[int]  # s
    sizes: list[int]  # side of the maps in the square network, margins included
    channels: list[int]
    shapes: list[Size | None]  # height and width of the maps on another canvas


def band_limits(
    img_resolution: int,
    img_channels: int,
    num_layers: int,
    num_critical: int,
    *,
    first_cutoff: float,
    first_stopband: float,
    last_stopband_rel: float,
    margin_size: int,
    channel_base: int,
    channel_max: int,
    canvas: Size | None,
) -> BandLimits:
    """The arguments are `SynthesisNetwork`'s; `canvas` is its img_size if that is not the square.

    Raises ValueError for numbers that make no network.
    """
    if num_layers < 2 or not 1 <= num_critical < num_layers:
        got = f"{num_layers}, {num_critical}"
        raise ValueError(f"num_layers, num_critical: got {got}, expected 1 <= num_critical < num_layers")
    # Geometric progression of cutoff and stopband, level at the critically sampled end.
    last_cutoff = img_resolution / 2
    last_stopband = last_cutoff * last_stopband_rel
    exponents = [min(i / (num_layers - num_critical), 1.0) for i in range(num_layers + 1)]
    cutoffs = [first_cutoff * (last_cutoff / first_cutoff) ** e for e in exponents]
    stopbands = [first_stopband * (last_stopband / first_stopband) ** e for e in exponents]

    # The rate is the power of two that holds the stopband; margins hide the borders; channels shrink with 1 / f.
    rates = [2 ** ceil(log2(min(stop * 2, img_resolution))) for stop in stopbands]
    if any(not before <= after <= MOST_UPSAMPLING * before for before, after in pairwise(rates)):
        got = f"{first_stopband:g}, {last_stopband_rel:g}"
        raise ValueError(
            f"first_stopband, last_stopband_rel: got {got}, which make sampling rates {rates}; expected each to be "
            f"1 to {MOST_UPSAMPLING} times the one before"
        )
    half_widths = [max(stop, rate / 2) - cut for stop, rate, cut in zip(stopbands, rates, cutoffs, strict=True)]
    sizes = [rate + margin_size * 2 for rate in rates]
    sizes[-2:] = [img_resolution] * 2
    channels = [round(min(channel_base / 2 / cutoff, channel_max)) for cutoff in cutoffs]
    channels[-1] = img_channels
    shapes: list[Size | None] = [None] * len(sizes)
    if canvas is not None:
        step = max(img_resolution // rates[0], 1)
        if any(side % step for side in canvas):
            raise ValueError(f"img_size: got {list(canvas)}, expected multiples of {step} at a sampling rate of "
                             f"{img_resolution} whose first layer has {rates[0]}")  # fmt: skip
        shapes = [_on_canvas(size, rate, img_resolution, canvas) for size, rate in zip(sizes, rates, strict=True)]
    return BandLimits(cutoffs, half_widths, rates, sizes, channels, shapes)


def _on_canvas(size: int, rate: int, img_resolution: int, canvas: Size) -> Size:
    """Height and width of maps that have `size` samples a side in the square network: longer by what the canvas is,
    at their sampling rate; margins stay as they are."""
    return (
        size + rate * (canvas[0] - img_resolution) // img_resolution,
        size + rate * (canvas[1] - img_resolution) // img_resolution,
    )
