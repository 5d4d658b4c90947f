"""The stream of a connection that carries one request more and nothing after it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from proxy.server.chunked import ChunkedDecoder, MalformedChunks
from proxy.server.handed_over import HandedOverStream

if TYPE_CHECKING:
    import trio

    from proxy.server.head import Head


class OneRequest(HandedOverStream):
    """Gives out the body of one request, and then nothing until the client ends its side.

    What comes after the request is thrown away: its connection ends with the answer. h11 takes
    bytes behind the last request of a connection for an error, for which Hypercorn answers 400, or
    cuts the answer that is under way.
    """

    def __init__(self, stream: trio.abc.Stream, head: Head) -> None:
        super().__init__(stream)
        self._left = head.content_length
        self._decoder = ChunkedDecoder() if head.chunked else None

    def take(self, received: bytes) -> bytes:
        """What of `received`, which comes next, belongs to the request. Never blocks."""
        if self._decoder is None:
            taken = received[: self._left]
        elif self._decoder.complete:
            taken = b""
        else:
            taken = self._take_coded(self._decoder, received)
        self._left -= len(taken)
        return taken

    def _take_coded(self, decoder: ChunkedDecoder, received: bytes) -> bytes:
        try:
            decoder.feed(received)
        except MalformedChunks:
            # It has no end any more; whoever reads it will say so.
            self._decoder = None
            self._left = sys.maxsize
            return received
        return received[: len(received) - len(decoder.rest)]

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """As the stream's."""
        while True:
            received = await super().receive_some(max_bytes)
            taken = self.take(received)
            if taken or not received:
                return taken
