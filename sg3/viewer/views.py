"""The whole of what a state shows: a picture or a layer, of one network or of two."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from PIL import Image

from sg3.errors import UsageError
from sg3.tools.files import Pixels
from sg3.transparency import opaque
from sg3.viewer import features
from sg3.viewer.pictures import Painter
from sg3.viewer.state import State

Find = Callable[[str], Painter]


def view(state: State, find: Find, check: Callable[[], None] = lambda: None) -> Pixels:
    """uint8 [H, W, C], with alpha where the network makes it and is not compared; `find` opens a network by its name.
    Raises UsageError and what `find` raises."""
    one = _single(find(state.network), state, check)
    if state.compare == "none":
        return one
    one = opaque(one)
    if not state.network_b:
        raise UsageError("network_b: needed to compare; choose a second network")
    two = _fitted(opaque(_single(find(state.network_b), replace(state, network=state.network_b), check)), one.shape)
    if state.compare == "split":
        both, column = one.copy(), round(state.split * one.shape[1])
        both[:, column:] = two[:, column:]
        return both
    return ((two.astype(np.int16) - one + 256) // 2).clip(0, 255).astype(np.uint8)


def _single(painter: Painter, state: State, check: Callable[[], None]) -> Pixels:
    return features.picture(painter, state, check) if state.layer else painter.picture(state, check)


def _fitted(pixels: Pixels, shape: tuple[int, ...]) -> Pixels:
    """Of the same size and number of channels as another picture [H, W, C]."""
    height, width, channels = shape
    if pixels.shape[2] != channels:
        gray = pixels.shape[2] < channels
        pixels = np.repeat(pixels[:, :, :1], channels, axis=2) if gray else pixels[:, :, :channels]
    if pixels.shape == shape:
        return pixels
    planes = [Image.fromarray(pixels[:, :, c]) for c in range(channels)]
    return np.stack([np.asarray(plane.resize((width, height), Image.Resampling.BICUBIC)) for plane in planes], axis=2)
