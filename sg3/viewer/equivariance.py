"""How well a picture follows its own translation and rotation: EQ-T and EQ-R for this one latent, in decibels.

The moved picture is compared with the unmoved one, moved as a continuous image would be (Alias-Free GAN, Appendix E).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import radians

import torch

from sg3.errors import UsageError
from sg3.metrics.equivariance import pseudo_rotate_fractional, rotate_fractional, translate_fractional
from sg3.metrics.equivariance_psnr import psnr
from sg3.models import stylegan3
from sg3.viewer.layers import finite
from sg3.viewer.pictures import Painter
from sg3.viewer.state import State


def readings(painter: Painter, state: State, check: Callable[[], None] = lambda: None) -> dict[str, float | None]:
    """`eqt` of the state's translation and `eqr` of its rotation, each by itself; None where it is not moved, or
    nothing can be compared. Raises UsageError for a network that cannot move its picture."""
    if not isinstance(painter.G, stylegan3.Generator):
        raise UsageError("equivariance: this network cannot move its image, only StyleGAN3 can")
    plain = replace(state, translate=(0.0, 0.0), rotate=0.0, scale=1.0, untransform=False, fp32=True)
    still = painter.image(plain, check)
    found: dict[str, float | None] = {"eqt": None, "eqr": None}
    if any(state.translate):
        reference, mask = translate_fractional(still, *state.translate)
        moved = painter.image(replace(plain, translate=state.translate), check)
        found["eqt"] = _level(reference, moved, mask)
    if state.rotate % 360:
        angle = radians(state.rotate)
        reference, mask = rotate_fractional(still, angle)
        turned, seen = pseudo_rotate_fractional(painter.image(replace(plain, rotate=state.rotate), check), angle)
        found["eqr"] = _level(reference, turned, mask * seen)
    return found


def _level(reference: torch.Tensor, image: torch.Tensor, mask: torch.Tensor) -> float | None:
    squares = float(((reference - image).double().square() * mask).sum())
    return finite(psnr(squares, float(mask.expand_as(image).sum())))
