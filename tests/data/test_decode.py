"""The pixel policy, and what broken or hostile images do."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from sg3.data import decode as decode_module
from sg3.data.decode import Header, decode, probe
from sg3.errors import DataError
from tests.helpers.image_files import encoded, pixels

RGB, GRAY, RGBA = pixels(0), pixels(1, channels=1), pixels(2, channels=4)


def png(*chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG of exactly these chunks."""
    parts = [struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
             for kind, data in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def raw_png(rows: np.ndarray, depth: int, colour: int, *extra: tuple[bytes, bytes]) -> bytes:
    """An unfiltered PNG from rows of bytes [H, bytes per row], any depth and colour type."""
    side = len(rows)
    header = struct.pack(">IIBBBBB", side, side, depth, colour, 0, 0, 0)
    body = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    return png((b"IHDR", header), *extra, (b"IDAT", body), (b"IEND", b""))


@pytest.mark.parametrize("image", [RGB, GRAY, RGBA], ids=["rgb", "gray", "rgba"])
def test_plain_png_is_returned_as_stored(image: np.ndarray) -> None:
    out = decode(encoded(image), "x")
    assert out.dtype == np.uint8
    assert out.ndim == 3
    np.testing.assert_array_equal(out.squeeze(), image)


def test_palette_becomes_its_colours() -> None:
    colours = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255]], dtype=np.uint8)
    index = np.arange(64).reshape(8, 8) % 3
    image = Image.fromarray(index.astype(np.uint8), "P")
    image.putpalette(colours.tobytes())
    np.testing.assert_array_equal(decode(encoded(image), "x"), colours[index])
    see_through = decode(encoded(image, transparency=1), "x")
    np.testing.assert_array_equal(see_through[:, :, :3], colours[index])
    np.testing.assert_array_equal(see_through[:, :, 3], np.where(index == 1, 0, 255))


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "JPEG", "PNG, 16 bits"])
def test_exif_orientation_is_applied(kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    image = np.ascontiguousarray(pixels(3)[:, :4])
    if kind == "PNG, 16 bits":
        image, kind = image[:, :, 0].astype(np.uint16) * 256, "PNG"
    upright = decode(encoded(image, kind), "x")
    assert upright.shape[:2] == (8, 4)
    np.testing.assert_array_equal(decode(encoded(image, kind, exif=exif), "x"), np.rot90(upright, -1))


def test_sixteen_bits_keep_the_upper_byte() -> None:
    gray = np.random.default_rng(0).integers(0, 65536, (8, 8)).astype(np.uint16)
    np.testing.assert_array_equal(decode(encoded(gray), "x")[:, :, 0], gray >> 8)
    colour = np.random.default_rng(1).integers(0, 65536, (8, 24)).astype(">u2")
    rgb = decode(raw_png(colour.view(np.uint8), 16, 2), "x")
    np.testing.assert_array_equal(rgb.reshape(8, 24), colour >> 8)


def test_alpha_is_kept() -> None:
    gray_alpha = pixels(4, channels=4)[:, :, :2]
    out = decode(encoded(Image.fromarray(np.ascontiguousarray(gray_alpha), "LA")), "x")
    np.testing.assert_array_equal(out, gray_alpha)
    keyed = decode(encoded(RGB, transparency=tuple(RGB[0, 0].tolist())), "x")
    assert keyed[0, 0, 3] == 0
    assert keyed[1:, :, 3].min() == 255
    np.testing.assert_array_equal(keyed[:, :, :3], RGB)


def test_transparent_colour_that_pillow_would_misread_is_refused() -> None:
    rows = np.zeros((4, 24), dtype=np.uint8)
    with pytest.raises(DataError, match="x: a transparent colour in a 16-bit PNG"):
        decode(raw_png(rows, 16, 2, (b"tRNS", bytes(6))), "x")


def test_one_bit_and_cmyk() -> None:
    bits = decode(encoded(Image.fromarray(GRAY).convert("1")), "x")
    assert bits.shape == (8, 8, 1)
    assert set(np.unique(bits)) <= {0, 255}
    assert decode(encoded(Image.new("CMYK", (8, 8)), "JPEG"), "x").shape == (8, 8, 3)


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGB", "RGBA", "I;16"])
def test_probe_foretells_what_decode_gives(mode: str) -> None:
    image = Image.fromarray(GRAY.astype(np.uint16) * 256) if mode == "I;16" else Image.fromarray(RGBA).convert(mode)
    data = encoded(image)
    assert probe(data, "x") == Header(8, 8, {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}[decode(data, "x").shape[2]])


# pyspng: the same pixels as Pillow, always.

needs_pyspng = pytest.mark.skipif(decode_module.pyspng_load is None, reason="pyspng is not installed")


def interlaced_png() -> tuple[bytes, np.ndarray]:
    passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
    rows = [b"\0" + row.tobytes() for y, x, dy, dx in passes for row in RGB[y::dy, x::dx]]
    header = struct.pack(">IIBBBBB", 8, 8, 8, 2, 0, 0, 1)
    return png((b"IHDR", header), (b"IDAT", zlib.compress(b"".join(rows))), (b"IEND", b"")), RGB


def gamma_png() -> tuple[bytes, np.ndarray]:
    info = PngImagePlugin.PngInfo()
    info.add(b"gAMA", (220000).to_bytes(4, "big"))
    info.add(b"sRGB", b"\0")
    return encoded(RGB, pnginfo=info), RGB


@needs_pyspng
@pytest.mark.parametrize("make", [interlaced_png, gamma_png])
def test_pyspng_gives_the_same_pixels(make: object, monkeypatch: pytest.MonkeyPatch) -> None:
    data, expected = make()  # type: ignore[operator]
    assert decode_module._is_plain_png(data, check_crc=True)
    np.testing.assert_array_equal(decode(data, "x"), expected)
    monkeypatch.setattr(decode_module, "pyspng_load", None)
    np.testing.assert_array_equal(decode(data, "x"), expected)


@needs_pyspng
def test_pyspng_is_used_for_plain_files_only() -> None:
    text = PngImagePlugin.PngInfo()
    text.add_text("Raw profile type exif", "may turn the image")
    assert decode_module._is_plain_png(encoded(RGB), check_crc=True)
    for other in (encoded(RGB, pnginfo=text), encoded(RGB, transparency=(1, 2, 3)), encoded(RGB)[:-4],
                  encoded(Image.fromarray(RGB).quantize(4)), encoded(GRAY.astype(np.uint16)), b"", RGB.tobytes()):
        assert not decode_module._is_plain_png(other, check_crc=True)


# Broken and hostile.

@pytest.mark.parametrize("with_pyspng", [True, False])
def test_a_flipped_bit_is_never_taken_for_pixels(with_pyspng: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not with_pyspng:
        monkeypatch.setattr(decode_module, "pyspng_load", None)
    whole = encoded(RGB, compress_level=0)
    body = whole.index(b"IDAT") + 4
    for offset in range(body, body + 200, 7):
        damaged = bytearray(whole)
        damaged[offset] ^= 4
        with pytest.raises(DataError, match=r"a\.png: broken image"):
            decode(bytes(damaged), "a.png")
        with pytest.raises(DataError, match=r"a\.png: broken image"):
            probe(bytes(damaged), "a.png")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP"])
@pytest.mark.parametrize("part", [0.1, 0.5, 0.9])
def test_truncation_is_found(kind: str, part: float) -> None:
    data = encoded(pixels(5, side=64), kind)
    cut = data[:int(len(data) * part)]
    for read in (decode, probe):
        with pytest.raises(DataError, match="x: "):
            read(cut, "x")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("side", [30_000, 10_000])
def test_huge_header_is_refused_unread(side: int) -> None:
    data = bytearray(encoded(RGB))
    data[16:24] = struct.pack(">II", side, side)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    for read in (decode, probe):
        with pytest.raises(DataError, match="more than 64 Mi pixels"):
            read(bytes(data), "x")


@pytest.mark.parametrize("kind", ["GIF", "TIFF", "PPM"])
def test_other_formats_are_not_decoded(kind: str) -> None:
    with pytest.raises(DataError, match="not PNG, JPEG, WebP or BMP"):
        decode(encoded(RGB, kind), "x")


def test_gray_with_a_transparent_colour_is_gray_with_alpha() -> None:
    image = Image.fromarray(GRAY if GRAY.ndim == 2 else GRAY[:, :, 0])
    key = int(np.asarray(image)[0, 0])
    out = decode(encoded(image, transparency=key), "x")
    assert out.shape == (8, 8, 2)
    np.testing.assert_array_equal(out[:, :, 1], np.where(np.asarray(image) == key, 0, 255))
    assert probe(encoded(image, transparency=key), "x") == Header(8, 8, "LA")


def test_palette_with_transparency() -> None:
    image = Image.fromarray(RGBA).convert("RGB").quantize(8)
    out = decode(encoded(image, transparency=bytes([0, 128])), "x")
    indices = np.asarray(image)
    np.testing.assert_array_equal(out[:, :, 3], np.choose(indices.clip(max=2), [0, 128, 255]))
