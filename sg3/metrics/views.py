"""How detectors see images with alpha: laid on a background, which is part of the metric's definition, and their alpha
alone, because a wrong outline does not show where subject and background agree.

Of images between black bars the part without them is looked at.

A view is a text: "" (as they are, for images without alpha), "over #rrggbb", or "alpha".
"""

from __future__ import annotations

import torch

from sg3.canvas import Size, middle
from sg3.sampling import quantized
from sg3.transparency import Colour, colour, network_values, over

AS_THEY_ARE = ""
ALPHA = "alpha"
OVER = "over "


def over_colour(background: str) -> str:
    """The view over a background, by its name or as #rrggbb. Raises UsageError."""
    red, green, blue = (round(255 * value) for value in colour(background))
    return f"{OVER}#{red:02x}{green:02x}{blue:02x}"


def background_of(view: str) -> Colour | None:
    """The colour of a view over one."""
    return colour(view.removeprefix(OVER)) if view.startswith(OVER) else None


def framed(images: torch.Tensor, visible: Size | None) -> torch.Tensor:
    """The middle, of height and width `visible`, of images [..., H, W]; all of them for None."""
    if visible is None:
        return images
    rows, columns = middle((images.shape[-2], images.shape[-1]), visible)
    return images[..., rows, columns]


def seen(images: torch.Tensor, view: str) -> torch.Tensor:
    """Images as the view shows them, uint8 [N, 3, H, W]: of straight uint8 pixels [N, 2 or 4, H, W], or of
    premultiplied ones in -1..1. As they are, they come back as they are."""
    if view == AS_THEY_ARE:
        return images
    values = network_values(images) if images.dtype == torch.uint8 else images
    background = background_of(view)
    shown = values[:, -1:] if background is None else over(values, background)
    return quantized(shown).expand(-1, 3, -1, -1)
