"""Which kind of image some bytes are, by their content: names and suffixes are what people gave them.

Four kinds are read, the first picture of each (see `decode`): PNG, APNG with it, JPEG, WebP and BMP. The others are
known so that they can be named.
"""

from __future__ import annotations

READ = frozenset({"PNG", "JPEG", "WebP", "BMP"})
HEAD = 32  # bytes from the start that tell

_SIGNATURES = (
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"\xff\xd8\xff", "JPEG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
    (b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"\0\0\0\x0cJXL ", "JPEG XL"),
    (b"\xff\x0a", "JPEG XL"),
    (b"8BPS", "Photoshop"),
    (b"\x76\x2f\x31\x01", "OpenEXR"),
)
_BRANDS = {b"avif": "AVIF", b"avis": "AVIF", **dict.fromkeys((b"heic", b"heix", b"hevc", b"mif1", b"msf1"), "HEIF")}
_BMP_HEADERS = frozenset({12, 16, 40, 52, 56, 64, 108, 124})  # sizes in bytes of the header that follows a BMP's first


def image_kind(head: bytes) -> str | None:
    """PNG, JPEG, WebP, BMP (which are READ), GIF, TIFF, AVIF, ..., by the first HEAD bytes; None for no known image."""
    for start, kind in _SIGNATURES:
        if head.startswith(start):
            return kind
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WebP"
    if head[4:8] == b"ftyp":
        return _BRANDS.get(head[8:12])
    if head[:2] == b"BM" and int.from_bytes(head[14:18], "little") in _BMP_HEADERS:  # texts begin with BM, too
        return "BMP"
    return None
