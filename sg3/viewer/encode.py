"""Pictures as bytes for the wire."""

from __future__ import annotations

import json
from collections.abc import Mapping
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin

from sg3.tools.files import Pixels
from sg3.transparency import opaque

JPEG_QUALITY = 85
FAST = 1  # zlib's level for frames: a third of the time for a tenth more bytes


def png(pixels: Pixels, settings: Mapping[str, object] | None = None, level: int = 6) -> bytes:
    """A PNG of pixels [H, W, C], with the settings as JSON in its text field `sg3`, where `sg3 generate` has them."""
    info = PngImagePlugin.PngInfo()
    if settings is not None:
        info.add_text("sg3", json.dumps(settings))
    return _saved(picture(pixels), format="PNG", pnginfo=info, compress_level=level)


def jpeg(pixels: Pixels) -> bytes:
    """A JPEG of pixels [H, W, C], those with alpha over a checkerboard."""
    return _saved(picture(opaque(pixels)), format="JPEG", quality=JPEG_QUALITY)


def npz(arrays: Mapping[str, NDArray[np.generic]]) -> bytes:
    """Named arrays as an .npz file."""
    buffer = BytesIO()
    np.savez(buffer, **dict(arrays))  # type: ignore[arg-type]  # a name may be anything but `file`
    return buffer.getvalue()


def picture(pixels: Pixels) -> Image.Image:
    """Pixels [H, W, C]: gray or RGB, with alpha or without; of another number of channels the first one."""
    return Image.fromarray(pixels if pixels.shape[2] in (2, 3, 4) else pixels[:, :, 0])


def _saved(image: Image.Image, **how: object) -> bytes:
    buffer = BytesIO()
    image.save(buffer, **how)  # type: ignore[arg-type]
    return buffer.getvalue()
