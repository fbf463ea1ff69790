"""What a layer gives, as a picture: three channels as colours, a sheet of many, a power spectrum."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from sg3.errors import UsageError
from sg3.tools.files import Pixels
from sg3.tools.video import near_square
from sg3.viewer.layers import finite, watched
from sg3.viewer.pictures import Painter
from sg3.viewer.state import State

SHEET = 64  # channels on a sheet
MOST_SAMPLES = 2**24  # that are transformed at once
PADDED = 2  # a spectrum has so many samples for each of the map
# Settings that say how features are shown, not what they are.
SHOWING = ("layer_view", "channel", "gain_db", "normalize", "kaiser", "spectrum_db", "all_channels", "split", "compare",
           "network_b", "network", "untransform")  # fmt: skip


class _Found(Exception):
    """The layer has run; what follows is not needed."""


def features(painter: Painter, state: State, check: Callable[[], None] = lambda: None) -> torch.Tensor:
    """[C, H, W], float32, of the state's layer. Raises UsageError if there is no such layer."""
    key = str([(name, value) for name, value in state.plain().items() if name not in SHOWING])
    if painter.features is not None and painter.features[0] == key:
        return painter.features[1]
    found: list[torch.Tensor] = []

    def watch(name: str, x: torch.Tensor) -> None:
        check()
        if name == state.layer:
            found.append(x[0].detach().to(torch.float32).contiguous())
            raise _Found

    painter.stepwise.forget()  # a layer that is not run shows nothing
    with watched(painter, watch):
        try:
            painter.image(replace(state, untransform=False), check, by_layers=True)
        except _Found:
            painter.features = key, found[0]
            return found[0]
    raise UsageError(f"layer={state.layer}: this network has none of that name; see api/layers")


def picture(painter: Painter, state: State, check: Callable[[], None] = lambda: None) -> Pixels:
    """uint8 [H, W, 1 or 3]."""
    x = features(painter, state, check)
    if state.channel >= len(x):
        raise UsageError(f"channel={state.channel}: {state.layer} has channels 0 to {len(x) - 1}")
    if state.layer_view == "spectrum":
        level = spectrum(x if state.all_channels else x[state.channel :][:1], state.kaiser)
        shown = 1 + (level - level.max()) / state.spectrum_db
        return (shown.clamp(0, 1) * 255).to(torch.uint8).cpu().numpy()[:, :, None]
    gain = 10 ** (state.gain_db / 20)
    if state.normalize:
        gain /= max(float(x.abs().max()), 1e-12)
    shown = (x[state.channel :] * (gain * 127.5) + 128).clamp(0, 255).to(torch.uint8).cpu()
    if state.layer_view == "sheet":
        return _sheet(shown[:SHEET].numpy())
    return (shown[:3] if len(shown) >= 3 else shown[:1]).permute(1, 2, 0).contiguous().numpy()


def spectrum(x: torch.Tensor, beta: float) -> torch.Tensor:
    """Power [S, S] in decibels, frequency 0 in the middle, averaged over the channels of x [C, H, W], H = W.

    White noise of variance 1 is at 0 dB, whatever the window.
    """
    side = x.shape[1]
    window = torch.kaiser_window(side, periodic=False, beta=beta, dtype=torch.float64, device=x.device)
    windowed = x.double() * window[:, None] * window
    total = windowed.new_zeros(PADDED * side, PADDED * side)
    for part in windowed.split(max(1, MOST_SAMPLES // total.numel())):  # all channels at once may not fit into memory
        total += torch.fft.fft2(part, s=(PADDED * side, PADDED * side)).abs().square().sum(dim=0)
    power = total / len(x)
    power = torch.fft.fftshift(power) / window.square().sum() ** 2
    return 10 * torch.log10(power + 1e-20)


def radial(painter: Painter, state: State, check: Callable[[], None] = lambda: None) -> dict[str, Any]:
    """The spectrum as a curve: decibels, averaged around circles, over cycles per map; None for no number."""
    x = features(painter, state, check)
    if state.channel >= len(x):
        raise UsageError(f"channel={state.channel}: {state.layer} has channels 0 to {len(x) - 1}")
    level = spectrum(x if state.all_channels else x[state.channel :][:1], state.kaiser).cpu()
    side = len(level)
    place = torch.arange(side) - side // 2
    radius = (place[:, None].square() + place.square()).double().sqrt().round().long()
    inside = radius <= side // 2
    power = 10 ** (level / 10)
    total = torch.zeros(side // 2 + 1, dtype=torch.float64).index_add_(0, radius[inside], power[inside])
    count = torch.bincount(radius[inside], minlength=side // 2 + 1)
    curve = [finite(value) for value in (10 * torch.log10(total / count)).tolist()]
    return {"frequency": (torch.arange(side // 2 + 1) / PADDED).tolist(), "decibels": curve}


def _sheet(maps: np.ndarray) -> Pixels:
    """[C, H, W] -> [rows * (H + 1), columns * (W + 1), 1]"""
    count, height, width = maps.shape
    columns, rows = near_square(next(n for n in range(count, count + 9) if n < 4 or near_square(n)[1] > 1))
    page = np.zeros((rows * (height + 1), columns * (width + 1), 1), np.uint8)
    for index, channel in enumerate(maps):
        row, column = divmod(index, columns)
        page[row * (height + 1) :, column * (width + 1) :][:height, :width, 0] = channel
    return page
