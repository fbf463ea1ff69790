"""Pictures of power spectra, by matplotlib: the whole plane, and slices through it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

import numpy as np

from sg3.plotting import new_figure
from sg3.tools.spectra import Reals, Spectrum

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def heatmap(spectrum: Spectrum, title: str, smooth: float = 1.25) -> Figure:
    """The plane of frequencies, zero in the middle, power in decibels as colour, a contour every 10 dB.

    smooth: standard deviation, in entries of the spectrum, of the Gaussian that takes out the noise of few images.
    """
    figure = new_figure((6.4, 5.4))
    axes = figure.add_subplot()
    level = np.fft.fftshift(spectrum.smoothed(smooth).decibels())
    (down, rows), (across, columns) = (_places(spectrum, side) for side in level.shape)
    picture = axes.imshow(level, extent=(*across, *down), origin="lower", cmap="viridis", interpolation="nearest")
    tens = np.arange(np.floor(level.min() / 10), np.ceil(level.max() / 10) + 1) * 10
    axes.contour(columns, rows, level, levels=tens, colors="black", linewidths=0.4, linestyles="solid", alpha=0.6)
    unit = "image" if spectrum.is_square else "pixel"
    axes.set(title=title, xlabel=f"horizontal frequency [cycles per {unit}]", ylabel="vertical frequency")
    figure.colorbar(picture, label="power [dB]")
    return figure


def _places(spectrum: Spectrum, side: int) -> tuple[tuple[float, float], Reals]:
    """Outer edges and centres of the entries along an axis."""
    step = spectrum.image_size / side if isinstance(spectrum.image_size, int) else 1 / side
    first = np.fft.fftshift(np.fft.fftfreq(side, 1 / side))[0] * step
    centres = first + step * np.arange(side)
    return (first - step / 2, centres[-1] + step / 2), centres


def slices(spectra: Mapping[str, Spectrum], smooth: float = 0.0) -> Figure:
    """Power in decibels along the horizontal (0 degrees) and the diagonal (45 degrees), one line for each spectrum.

    If images of one are not square: along x, along y and averaged over circles, in cycles per pixel.
    """
    smoothed = {name: spectrum.smoothed(smooth) for name, spectrum in spectra.items()}
    if not all(spectrum.is_square for spectrum in spectra.values()):
        return _per_pixel(smoothed)
    figure = new_figure((10, 4.2))
    panels = figure.subplots(1, 2, sharey=True)
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


def _per_pixel(spectra: Mapping[str, Spectrum]) -> Figure:
    figure = new_figure((13, 4.2))
    panels = figure.subplots(1, 3, sharey=True)
    titles: dict[Literal["x", "y", "radius"], str] = {"x": "along x", "y": "along y", "radius": "mean over circles"}
    for panel, (along, title) in zip(panels, titles.items(), strict=True):
        panel.set(title=title, xlabel="frequency [cycles per pixel]")
        for name, spectrum in spectra.items():
            panel.plot(*spectrum.per_pixel(along), label=name, linewidth=1)
        panel.set_xlim(0, 0.5)
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("power [dB]")
    panels[-1].legend(frameon=False)
    return figure
