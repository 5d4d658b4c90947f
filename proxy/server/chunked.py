"""The chunked transfer coding of requests, decoded strictly (RFC 9112, section 7.1).

Sizes are plain hexadecimal digits, every line ends in CRLF, extensions and trailers are checked
for form, counted and dropped. llhttp could decode this too, but can't say where in the bytes a
message ended, which pipelining needs.
"""

from __future__ import annotations

import re

_SIZE_LINE = re.compile(rb"([0-9A-Fa-f]{1,15})(;[\t\x20-\x7e\x80-\xff]*)?")
_TRAILER_LINE = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[\t\x20-\x7e\x80-\xff]*")

LINE_BYTES_MAX = 4 * 1024
"""The longest size or trailer line."""

OVERHEAD_BYTES_MAX = 16 * 1024
"""All extensions and trailers of one body: they are nobody's payload."""


class MalformedChunks(ValueError):
    """The body is not in the chunked coding."""


class ChunkedDecoder:
    """Decodes one body from pieces cut anywhere. Never blocks; holds at most one line."""

    __slots__ = ("_left", "_line", "_overhead", "_trailers", "complete", "rest")

    def __init__(self) -> None:
        self.complete = False
        """Whether the last chunk and its trailers have been read."""
        self.rest = b""
        """What came after the end of the body; meaningful once `complete`."""
        self._left = 0
        """Bytes of the current chunk still to come, with the CRLF that follows it."""
        self._line = b""
        self._overhead = 0
        self._trailers = False

    def feed(self, received: bytes) -> bytes:
        """The payload in `received`; b"" when it completes none.

        Errors: `MalformedChunks`; the decoder can't be used afterwards.
        """
        payload: list[bytes] = []
        at = 0
        end = len(received)
        while at < end:
            if self._left:
                at = self._feed_chunk(received, at, payload)
                continue
            newline = received.find(b"\n", at)
            line = self._line + received[at : newline + 1 if newline >= 0 else end]
            if len(line) > LINE_BYTES_MAX:
                raise MalformedChunks("a line is too long")
            if newline < 0:
                self._line = line
                break
            self._line = b""
            at = newline + 1
            if not line.endswith(b"\r\n"):
                raise MalformedChunks("a line does not end in CRLF")
            self._feed_line(line[:-2])
            if self.complete:
                self.rest = received[at:]
                break
        return payload[0] if len(payload) == 1 else b"".join(payload)

    def _feed_chunk(self, received: bytes, at: int, payload: list[bytes]) -> int:
        data_left = self._left - 2
        if data_left > 0:
            data = received[at : at + data_left]
            payload.append(data)
            self._left -= len(data)
            return at + len(data)
        if received[at] != b"\r\n"[-self._left]:
            raise MalformedChunks("a chunk does not end in CRLF")
        self._left -= 1
        return at + 1

    def _feed_line(self, line: bytes) -> None:
        if self._trailers:
            if not line:
                self.complete = True
                return
            if not _TRAILER_LINE.fullmatch(line):
                raise MalformedChunks("a trailer is malformed")
            self._count(len(line))
            return
        match = _SIZE_LINE.fullmatch(line)
        if match is None:
            raise MalformedChunks("a chunk size is malformed")
        digits, extension = match.groups()
        if extension:
            self._count(len(extension))
        size = int(digits, 16)
        if size:
            self._left = size + 2
        else:
            self._trailers = True

    def _count(self, overhead_bytes: int) -> None:
        self._overhead += overhead_bytes
        if self._overhead > OVERHEAD_BYTES_MAX:
            raise MalformedChunks("extensions and trailers are too long")
