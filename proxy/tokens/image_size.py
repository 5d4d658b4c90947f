"""Width and height of an image in a data: URL, from its first bytes.

Only the header is decoded, so the cost does not depend on the size of the image.
"""

from __future__ import annotations

import binascii

_HEADER_BYTES = 32
"""Enough for the dimensions in PNG, GIF and WebP."""

_LONGEST_PREAMBLE_CHARS = 256
"""Media type and parameters before the comma; real ones have about 20 characters."""

_MOST_SEGMENTS = 64
"""JPEG segments before the frame header. A colour profile or a preview can take a dozen."""

_FRAME_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""Start-of-frame markers; the three left out are tables and a reserved code (ITU T.81, B.1.1.3)."""


def image_size(url: str) -> tuple[int, int] | None:
    """(width, height) in pixels of a base64 data: URL; None if that can't be read from it.

    Understands PNG, JPEG, GIF and WebP, whatever the media type says.
    """
    start = url.find(",", 0, _LONGEST_PREAMBLE_CHARS) + 1
    if not start or url[:5].lower() != "data:" or url[start - 8 : start - 1].lower() != ";base64":
        return None
    content = _Base64(url, start)
    try:
        head = content.read(0, _HEADER_BYTES)
        size = _jpeg(content) if head.startswith(b"\xff\xd8") else _fixed_header(head)
    except ValueError:
        return None
    return size if size is not None and size[0] > 0 and size[1] > 0 else None


class _Base64:
    """Random access to base64 text: four characters hold three bytes."""

    __slots__ = ("_start", "_text")

    def __init__(self, text: str, start: int) -> None:
        self._text = text
        self._start = start

    def read(self, offset: int, length: int) -> bytes:
        """The bytes at `offset`, fewer than `length` at the end. Errors: `ValueError`."""
        first = self._start + offset // 3 * 4
        last = self._start + (offset + length + 2) // 3 * 4
        skip = offset % 3
        return binascii.a2b_base64(self._text[first:last])[skip : skip + length]


def _fixed_header(head: bytes) -> tuple[int, int] | None:
    if head.startswith(b"\x89PNG\r\n\x1a\n") and head[12:16] == b"IHDR":
        return int.from_bytes(head[16:20], "big"), int.from_bytes(head[20:24], "big")
    if head.startswith((b"GIF87a", b"GIF89a")):
        return int.from_bytes(head[6:8], "little"), int.from_bytes(head[8:10], "little")
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP" and len(head) >= 30:
        return _webp(head)
    return None


def _webp(head: bytes) -> tuple[int, int] | None:
    """RFC 9649, sections 2.5 to 2.7: a lossy, a lossless or an extended first chunk."""
    chunk = head[12:16]
    if chunk == b"VP8X":
        width, height = head[24:27], head[27:30]
        return int.from_bytes(width, "little") + 1, int.from_bytes(height, "little") + 1
    if chunk == b"VP8L" and head[20] == 0x2F:
        bits = int.from_bytes(head[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if chunk == b"VP8 " and head[23:26] == b"\x9d\x01\x2a":
        width, height = head[26:28], head[28:30]
        return int.from_bytes(width, "little") & 0x3FFF, int.from_bytes(height, "little") & 0x3FFF
    return None


def _jpeg(content: _Base64) -> tuple[int, int] | None:
    """The frame header comes after any number of segments, each of which says its length."""
    offset = 2
    for _ in range(_MOST_SEGMENTS):
        segment = content.read(offset, 9)
        if len(segment) < 9 or segment[0] != 0xFF:
            return None
        if segment[1] in _FRAME_MARKERS:
            return int.from_bytes(segment[7:9], "big"), int.from_bytes(segment[5:7], "big")
        offset += 2 + int.from_bytes(segment[2:4], "big")
    return None
