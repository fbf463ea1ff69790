"""Encoded bytes -> 8-bit pixels, under one stated policy.

Formats: PNG, JPEG, WebP and BMP, by content, and nothing else: GIF, TIFF, AVIF and the rest are refused by name (their
decoders have a history of holes and no place in a training set). At most 64 Mi pixels an image, 32 Mi in WebP. The
channels that come out depend on the file's header only:

- **Palette**: expanded to its real colours, RGB, or RGBA if the palette has transparency.
- **EXIF orientation**: applied.
- **16 bits per channel**: the upper byte is kept (as libpng and Pillow do for colour), for gray too.
- **Alpha**, and a PNG's transparent colour: kept, as the last channel of RGBA, or of gray with alpha; straight, as
  files have it.
- **1-bit and gray**: one channel, 0..255. **CMYK and YCbCr**: RGB. An animation (APNG, WebP) gives its first frame.

pyspng, if installed, decodes plain 8-bit gray, RGB and RGBA PNGs several times faster. It checks no
checksums, so it is given only bytes whose checksums have been checked, and only PNGs for which it returns
exactly what Pillow would.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from sg3 import limits
from sg3.data.image_kind import HEAD, READ, image_kind
from sg3.errors import DataError

try:
    from pyspng import load as _loaded_pyspng
    pyspng_load: Callable[[bytes], NDArray[Any]] | None = _loaded_pyspng
except ImportError:
    pyspng_load = None

Mode = Literal["L", "LA", "RGB", "RGBA"]
CHANNELS: dict[Mode, int] = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4}
MODE_WORDS: dict[Mode, str] = {"L": "gray", "LA": "gray with alpha", "RGB": "RGB", "RGBA": "RGB with alpha"}

FORMATS = ("PNG", "JPEG", "WEBP", "BMP")
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# Chunks that change neither pixels nor channels. tRNS, eXIf and text (it may hold EXIF) are left to Pillow.
_NEUTRAL_PNG_CHUNKS = frozenset({b"IHDR", b"IDAT", b"IEND", b"gAMA", b"cHRM", b"sRGB", b"pHYs", b"tIME"})


PNG_EXIF = (b"eXIf", b"Raw profile type exif", b"XML:com.adobe.xmp")  # where Pillow looks for an orientation
SIDEWAYS = (5, 6, 7, 8)  # orientations that swap width and height


class Header(NamedTuple):
    """What an image will be once decoded, and turned as EXIF says."""

    width: int
    height: int
    mode: Mode
    frames: int = 1  # that the file holds; the first is taken


def decode(data: bytes, where: str, intact: bool = False) -> NDArray[np.uint8]:
    """Encoded image -> uint8 [H, W, C], C = 1 to 4.

    `intact` says that the bytes already passed a checksum (those of a zip entry have). `where` starts the
    message. Raises DataError for anything that is not a whole image of the formats read.
    """
    if pyspng_load is not None and _is_plain_png(data, check_crc=not intact):
        try:
            pixels = cast(NDArray[np.uint8], pyspng_load(data))
            return pixels if pixels.ndim == 3 else pixels[:, :, np.newaxis]
        except RuntimeError:
            pass  # Pillow decides whether this is an image, and says why not
    pixels = np.asarray(decode_image(data, where))
    return pixels if pixels.ndim == 3 else pixels[:, :, np.newaxis]


def decode_image(data: bytes, where: str) -> Image.Image:
    """Encoded image -> Pillow image in mode L, LA, RGB or RGBA. Raises DataError."""
    image = _open(data, where)
    mode = _mode_after(image, data, where)
    try:
        image.load()
        ImageOps.exif_transpose(image, in_place=True)
        if image.mode == "I;16":
            image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
        return image if image.mode == mode else image.convert(mode)
    except Exception as error:  # decoders raise nearly every type on broken input
        raise _broken(where, error) from error


def count_pixels(data: bytes) -> int:
    """Pixels of an encoded image by its header; 0 if it is none."""
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
        return image.width * image.height
    except Exception:  # which one, and why, comes out when it is read
        return 0


def probe(data: bytes, where: str) -> Header:
    """Header of an encoded image, after checking that its data is whole; costs less than decoding it.

    PNG: the checksums of all chunks. JPEG: the entropy-coded data is read through at 1/8 scale. Others are
    decoded. Raises DataError.
    """
    image = _open(data, where)
    header = Header(*image.size, _mode_after(image, data, where))
    try:
        header = header._replace(frames=getattr(image, "n_frames", 1))
        if image.format == "PNG":
            image.verify()
            if not any(name in data for name in PNG_EXIF):
                return header
            image = _open(data, where)  # whose own orientation may stand behind the pixels
        else:
            image.draft(None, (max(1, header.width // 8), max(1, header.height // 8)))
            image.load()
        if image.getexif().get(ExifTags.Base.Orientation) in SIDEWAYS:
            header = header._replace(width=header.height, height=header.width)
    except Exception as error:
        raise _broken(where, error) from error
    return header


def _open(data: bytes, where: str) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError:
        kind = image_kind(data[:HEAD])
        if kind is None or kind in READ:
            raise DataError(f"{where}: not PNG, JPEG, WebP or BMP, or broken at its start; replace it") from None
        raise DataError(f"{where}: {kind}, not PNG, JPEG, WebP or BMP; convert it to PNG") from None
    except Image.DecompressionBombError:
        raise DataError(f"{where}: more than {limits.PIXELS >> 20} Mi pixels; scale it down first") from None
    except Exception as error:
        raise _broken(where, error) from error
    pixels = image.width * image.height
    most = limits.PIXELS_WEBP if image.format == "WEBP" else limits.PIXELS
    if pixels > most:
        raise DataError(f"{where}: {image.width}x{image.height} is more than {most >> 20} Mi pixels; "
                        "scale it down first")
    if image.format == "JPEG":
        scans = data.count(b"\xff\xda")  # inside of data, the decoder would see 255, 0
        if scans > limits.SCANS or scans * pixels > limits.SCANNED_PIXELS:
            raise DataError(f"{where}: a JPEG of {scans} scans, each over all pixels; save it again")
    return image


def _mode_after(image: Image.Image, data: bytes, where: str) -> Mode:
    """The mode that decoding will give, from the header alone."""
    if image.has_transparency_data:
        if image.format == "PNG" and image.mode in ("1", "L", "I;16", "RGB") and data[24] != 8:
            # Pillow compares the 16-bit (or 1..4-bit) key with 8-bit pixels, which hits the wrong ones.
            raise DataError(f"{where}: a transparent colour in a {data[24]}-bit PNG is not read; "
                            "save it with an alpha channel")
        return "LA" if image.mode in ("1", "L", "LA", "La", "I;16") else "RGBA"
    if image.mode in ("1", "L", "I;16"):
        return "L"
    if image.mode in ("P", "RGB", "CMYK", "YCbCr"):
        return "RGB"
    raise DataError(f"{where}: pixel format {image.mode} is not read; save it as 8-bit gray or RGB")


def _broken(where: str, error: Exception) -> DataError:
    cause = " ".join(str(error).split()) or type(error).__name__
    return DataError(f"{where}: broken image ({cause}); replace or remove it")


def _is_plain_png(data: bytes, check_crc: bool) -> bool:
    """Whether pyspng decodes this PNG exactly as the policy says; False for anything odd, cut or damaged."""
    if data[:8] != _PNG_SIGNATURE or data[12:16] != b"IHDR" or len(data) < 33:
        return False
    width, height, depth, colour = struct.unpack_from(">IIBB", data, 16)
    if depth != 8 or colour not in (0, 2, 6) or width * height > limits.PIXELS:
        return False
    view, start = memoryview(data), 8
    while start + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, start)
        end = start + 12 + length
        if kind not in _NEUTRAL_PNG_CHUNKS or end > len(data):
            return False
        if check_crc and zlib.crc32(view[start + 4:end - 4]) != int.from_bytes(view[end - 4:end], "big"):
            return False
        if kind == b"IEND":
            return True
        start = end
    return False
