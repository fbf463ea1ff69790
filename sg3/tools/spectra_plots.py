"""Pictures of power spectra, by matplotlib: the whole plane, and slices through it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from sg3.plotting import new_figure
from sg3.tools.spectra import Spectrum

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def heatmap(spectrum: Spectrum, title: str, smooth: float = 1.25) -> Figure:
    """The plane of frequencies, zero in the middle, power in decibels as colour, a contour every 10 dB.

    smooth: standard deviation, in entries of the spectrum, of the Gaussian that takes out the noise of few images.
    """
    figure = new_figure((6.4, 5.4))
    axes = figure.add_subplot()
    level = np.fft.fftshift(spectrum.smoothed(smooth).decibels())
    step = spectrum.image_size / len(level)
    first = np.fft.fftshift(np.fft.fftfreq(len(level), 1 / len(level)))[0] * step
    centres = first + step * np.arange(len(level))
    edges = (first - step / 2, centres[-1] + step / 2)
    picture = axes.imshow(level, extent=(*edges, *edges), origin="lower", cmap="viridis", interpolation="nearest")
    tens = np.arange(np.floor(level.min() / 10), np.ceil(level.max() / 10) + 1) * 10
    axes.contour(centres, centres, level, levels=tens, colors="black", linewidths=0.4, linestyles="solid", alpha=0.6)
    axes.set(title=title, xlabel="horizontal frequency [cycles per image]", ylabel="vertical frequency")
    figure.colorbar(picture, label="power [dB]")
    return figure


def slices(spectra: Mapping[str, Spectrum], smooth: float = 0.0) -> Figure:
    """Power in decibels along the horizontal (0 degrees) and the diagonal (45 degrees), one line for each spectrum."""
    figure = new_figure((10, 4.2))
    panels = figure.subplots(1, 2, sharey=True)
    smoothed = {name: spectrum.smoothed(smooth) for name, spectrum in spectra.items()}
    panels[0].set(title="0 degrees", xlabel="frequency [cycles per image]", ylabel="power [dB]")
    panels[1].set(title="45 degrees", xlabel="frequency [cycles per image]")
    for name, spectrum in smoothed.items():
        panels[0].plot(*spectrum.slice(0), label=name, linewidth=1)
        panels[1].plot(*spectrum.slice(45), label=name, linewidth=1)
    for panel in panels:
        panel.set_xlim(left=0)
        panel.grid(alpha=0.3)
    panels[1].legend(frameon=False)
    return figure
