"""What an image's first bytes say of it: its format and its size. Pure, and nothing is decoded.

A picture of a few kilobytes can claim billions of pixels, so its size is known before anything
takes memory for it. Sources: PNG (RFC 2083), GIF89a, JPEG (ITU T.81, annex B), WebP (RFC 9649).
"""

import struct
from typing import NamedTuple

_PNG = b"\x89PNG\r\n\x1a\n"
# Markers of JPEG that begin a frame and so hold its size: all SOFn, less DHT, JPG and DAC.
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
# Markers that stand alone: TEM, RSTn, SOI, EOI.
_ALONE = frozenset({0x01, *range(0xD0, 0xDA)})


class Header(NamedTuple):
    """Format (``PNG``, ``JPEG``, ``WEBP`` or ``GIF``), width and height in pixels."""

    format: str
    width: int
    height: int


def header_of(data: bytes) -> Header | None:
    """The header of an image; None for bytes that are none of the four formats, or that end
    before their size is told."""
    try:
        if data.startswith(_PNG):
            return Header("PNG", *struct.unpack_from(">II", data, 16))
        if data.startswith((b"GIF87a", b"GIF89a")):
            return Header("GIF", *struct.unpack_from("<HH", data, 6))
        if data.startswith(b"\xff\xd8\xff"):
            return _jpeg(data)
        if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
            return _webp(data)
    except (struct.error, IndexError):
        pass
    return None


def _jpeg(data: bytes) -> Header | None:
    at = 2
    while True:
        while data[at] == 0xFF:  # a marker may be filled up with more of these
            at += 1
        marker = data[at]
        at += 1
        if marker in _FRAMES:
            height, width = struct.unpack_from(">HH", data, at + 3)
            return Header("JPEG", width, height)
        if marker not in _ALONE:
            (length,) = struct.unpack_from(">H", data, at)
            at += length
        if data[at] != 0xFF:
            return None


def _webp(data: bytes) -> Header | None:
    kind = data[12:16]
    if kind == b"VP8X":
        low = struct.unpack_from("<HBHB", data, 24)
        return Header("WEBP", 1 + low[0] + (low[1] << 16), 1 + low[2] + (low[3] << 16))
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        return Header("WEBP", 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF))
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return Header("WEBP", width & 0x3FFF, height & 0x3FFF)
    return None
