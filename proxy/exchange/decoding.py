"""Undoing the content coding of a stream that came compressed although it was asked for plain.

Events can only be told apart, held and left out in plain text. gzip and deflate come with the
standard library; of other codings nothing is read.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Final

from proxy.exchange.ports import UpstreamFailure

if TYPE_CHECKING:
    from proxy.exchange.ports import Headers, UpstreamResponse

PIECE_BYTES: Final = 64 * 1024
"""Of plain text made at once, however much a compressed piece stands for."""
_WINDOW_BITS: Final = {b"gzip": 31, b"x-gzip": 31, b"deflate": 15}


def content_coding(headers: Headers) -> bytes:
    """In lower case; b"" for plain content. Several codings are one that nobody knows."""
    codings = b",".join(value for name, value in headers if name == b"content-encoding")
    coding = codings.strip().lower()
    return b"" if coding == b"identity" else coding


def decodable(coding: bytes) -> bool:
    return coding in _WINDOW_BITS


class DecodedResponse:
    """An `UpstreamResponse` whose body and headers are those of the plain content."""

    def __init__(self, response: UpstreamResponse, coding: bytes) -> None:
        self.status = response.status
        self.headers: Headers = [
            pair for pair in response.headers if pair[0] != b"content-encoding"
        ]
        self._response = response
        self._window_bits = _WINDOW_BITS[coding]
        self._decoder = zlib.decompressobj(self._window_bits)
        self._coded = b""
        self._more = False
        """The decoder may have plain text in store."""

    async def read_chunk(self) -> bytes:
        """Plain text as soon as it can be had. Errors: `UpstreamFailure`, also for what is not in
        the coding that it claims."""
        while True:
            while self._coded or self._more:
                plain = self._decode()
                if plain:
                    return plain
            self._coded = await self._response.read_chunk()
            if not self._coded:
                return b""

    def _decode(self) -> bytes:
        """At most `PIECE_BYTES` of plain text."""
        if self._decoder.eof:  # A body may be several coded ones, one after the other.
            self._decoder = zlib.decompressobj(self._window_bits)
        try:
            plain = self._decoder.decompress(self._coded, PIECE_BYTES)
        except zlib.error as error:
            raise UpstreamFailure(
                "body", "protocol", "the content is not in its coding", answered=True
            ) from error
        self._coded = self._decoder.unconsumed_tail or self._decoder.unused_data
        self._more = len(plain) == PIECE_BYTES
        return plain

    async def aclose(self) -> None:
        await self._response.aclose()
