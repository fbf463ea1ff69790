"""Sweeps that show how well a StyleGAN3 follows a transform: what it draws beside what it should draw.

For each step of a sweep the input transform moves or turns the Fourier features, and the result is compared with the
unmoved picture, moved or turned as a continuous image would be (Alias-Free GAN, Section 3.2 and Appendix E.3).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil, radians

import numpy as np
import torch
from PIL import Image, ImageDraw

from sg3.canvas import Size, middle
from sg3.metrics.equivariance import pseudo_rotate_fractional, rotate_fractional, translate_integer
from sg3.metrics.equivariance_psnr import check_transform, psnr
from sg3.models import StyleGenerator
from sg3.sampling import set_transform
from sg3.tools.video import to_frames
from sg3.transparency import Colour, has_alpha, over, possible

TRANSFORMS = ("x_t", "y_t", "rotate")
MIN_PANEL = 128  # panels of smaller networks are enlarged by a whole factor, to leave room for text
CAPTION = 32  # height of the text above the panels
GRAY: Colour = (0.5, 0.5, 0.5)


@dataclass(frozen=True)
class Step:
    """One step of a sweep: how far, the images in -1..1, and how well they agree where the reference is known."""

    amount: float  # pixels, or degrees
    generated: torch.Tensor  # [1, C, R, R]
    reference: torch.Tensor  # [1, C, R, R], 0 outside the mask, transparent if it has alpha
    difference: torch.Tensor  # [1, C, R, R], generated - reference; 0 outside the mask
    psnr: float  # dB, for a range of 2


def sweep_amounts(
    transform: str, size: int | Size, num_samples: int, translate_max: float = 0.125, rotate_max: float = 180.0
) -> list[float]:
    """From one extreme to the other: whole pixels up to `translate_max` of the image, of `size` (a square's side, or
    height and width), degrees up to `rotate_max`."""
    if transform not in TRANSFORMS:
        raise ValueError(f"transform: got {transform!r}, expected one of {', '.join(TRANSFORMS)}")
    ends = np.linspace(-1, 1, num_samples) if num_samples > 1 else np.ones(1)
    if transform == "rotate":
        return [float(a) for a in ends * rotate_max]
    height, width = (size, size) if isinstance(size, int) else size
    return [float(a) for a in np.rint(ends * translate_max * (width if transform == "x_t" else height))]


@torch.no_grad()
def sweep(G: StyleGenerator, ws: torch.Tensor, transform: str, amounts: list[float]) -> Iterator[Step]:
    """Yield a step for each amount (of `sweep_amounts`): pixels to the right (x_t) or down (y_t), or degrees.

    ws is [1, num_ws, w_dim] on G's device. Everything is float32. For a rotation, the generated image is compared
    after the filter that the reference has gone through, as in the metric EQ-R. G's transform is reset at the end.
    """
    check_transform(G, ["--network"])
    try:
        set_transform(G)
        still = G.synthesis(ws, noise_mode="const", force_fp32=True)
        for amount in amounts:
            if transform == "rotate":
                set_transform(G, rotate=amount)
                generated = G.synthesis(ws, noise_mode="const", force_fp32=True)
                reference, mask = rotate_fractional(still, radians(amount))
                compared, filter_mask = pseudo_rotate_fractional(generated, radians(amount))
                mask = mask * filter_mask
            else:
                height, width = G.img_size
                tx, ty = (amount / width, 0.0) if transform == "x_t" else (0.0, amount / height)
                set_transform(G, translate=(tx, ty))
                generated = compared = G.synthesis(ws, noise_mode="const", force_fp32=True)
                reference, mask = translate_integer(still, tx, ty)
            difference = (compared - reference) * mask
            squares, pixels = difference.double().square().sum(), mask.expand_as(difference).sum(dtype=torch.float64)
            known = (reference + 1) * mask - 1 if has_alpha(reference.shape[1]) else reference * mask
            yield Step(amount, generated, known, difference, psnr(float(squares), float(pixels)))
    finally:
        set_transform(G)


def draw_step(
    step: Step, transform: str, gain: float = 4.0, visible: Size | None = None, class_idx: int | None = None
) -> np.ndarray:
    """[generated | reference | gray + gain * difference] under a caption: uint8 [32 + s R, 3 s R, 3].

    s is the smallest whole factor that makes panels at least 128 pixels wide (plus a line each if sizes come out odd).
    Images with alpha lie on a gray, and so do those whose difference is shown. `visible`: only this part in the middle
    of them; the PSNR is of all. `class_idx`: that of the image, for the caption.
    """
    panels = to_frames(torch.cat(_panels(step, gain)))  # [3, R, R, 3]
    if visible is not None:
        rows, columns = middle((panels.shape[1], panels.shape[2]), visible)
        panels = panels[:, rows, columns]
    scale = ceil(MIN_PANEL / panels.shape[2])
    panels = panels.repeat(scale, axis=1).repeat(scale, axis=2)
    width = panels.shape[2]
    caption = Image.new("RGB", (3 * width, CAPTION), "black")
    pen = ImageDraw.Draw(caption)
    for i, title in enumerate(("generated", "reference", f"difference x {gain:g}")):
        pen.text((i * width + 4, 2), title, fill="white")
    unit = "degrees" if transform == "rotate" else "px"
    pen.text((4, 17), f"{transform} {step.amount:+.4g} {unit}", fill="white")
    pen.text((width + 4, 17), f"PSNR {step.psnr:.1f} dB", fill="white")
    if class_idx is not None:
        pen.text((2 * width + 4, 17), f"class {class_idx}", fill="white")
    return np.concatenate([np.asarray(caption), np.concatenate(list(panels), axis=1)], axis=0)


def _panels(step: Step, gain: float) -> list[torch.Tensor]:
    if not has_alpha(step.generated.shape[1]):
        return [step.generated, step.reference, step.difference * gain]
    difference = step.difference[:, :-1] - step.difference[:, -1:] * GRAY[0]  # of the pictures over the gray
    return [*(over(possible(images), GRAY) for images in (step.generated, step.reference)), difference * gain]
