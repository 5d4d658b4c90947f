"""The upstream of every measurement: answers at once, with bytes rendered at the start.

asyncio's protocols are the cheapest that the standard library has; no path, key or model is
looked at. Run as `python -m benchmarking.upstream`: prints its port and serves until it is ended.
"""

from __future__ import annotations

import asyncio
import gc
from functools import cache
from typing import cast

from .wire import (
    CROWDED_MODEL,
    STREAM_END,
    USAGE_EVENT,
    StreamShape,
    plain_answer,
    stream_events,
    stream_head,
    stream_shape,
)

_PLAIN = plain_answer()
_CROWDED = plain_answer(limits=False)
"""Says nothing of limits, so that the small one that is configured stays."""
_CROWDED_MARK = CROWDED_MODEL.encode()
_STREAM_HEAD = stream_head()
_events = cache(stream_events)


class Upstream(asyncio.Protocol):
    """One connection. No pipelining: a request comes when the answer before it is complete."""

    def __init__(self) -> None:
        self._received = b""
        self._missing_bytes = 0
        self._shape: StreamShape | None = None
        self._wants_usage = False
        self._plain = _PLAIN

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        if self._missing_bytes:
            self._missing_bytes -= len(data)
        else:
            self._received += data
            end = self._received.find(b"\r\n\r\n")
            if end < 0:
                return
            if not self._read_head(end):
                return
        if not self._missing_bytes:
            self._answer()

    def _read_head(self, end: int) -> bool:
        """False while a body of unknown length goes on. What a stream shall look like stands in
        the first part of a body, which comes with or right after the head."""
        received = self._received
        head = received[:end].lower()
        length = head.find(b"content-length:")
        if length >= 0:
            stop = head.find(b"\r", length)
            self._missing_bytes = int(head[length + 15 : stop if stop > 0 else end]) - (
                len(received) - end - 4
            )
            if self._missing_bytes and len(received) - end - 4 < 1024:
                self._missing_bytes = 0
                return False
        elif b"chunked" in head and not received.endswith(b"0\r\n\r\n"):
            return False
        self._shape = stream_shape(received)
        self._wants_usage = b'"include_usage"' in received
        self._plain = _CROWDED if _CROWDED_MARK in received else _PLAIN
        self._received = b""
        return True

    def _answer(self) -> None:
        if self._shape is None:
            self._transport.write(self._plain)
            return
        chunks = list(_events(self._shape.events))
        if self._wants_usage:
            chunks.append(USAGE_EVENT)
        chunks.append(STREAM_END)
        self._transport.write(_STREAM_HEAD)
        loop = asyncio.get_running_loop()
        self._send(loop, chunks, 0, loop.time(), self._shape.pause_s)

    def _send(
        self,
        loop: asyncio.AbstractEventLoop,
        chunks: list[bytes],
        index: int,
        start: float,
        pause_s: float,
    ) -> None:
        """One chunk per turn of the loop, each in a write of its own."""
        if self._transport.is_closing():
            return
        self._transport.write(chunks[index])
        index += 1
        if index == len(chunks):
            return
        if pause_s:
            loop.call_at(start + index * pause_s, self._send, loop, chunks, index, start, pause_s)
        else:
            loop.call_soon(self._send, loop, chunks, index, start, pause_s)


async def serve() -> None:
    """Serves on a free port of the loopback, which it prints."""
    server = await asyncio.get_running_loop().create_server(Upstream, "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    gc.collect()
    gc.disable()  # nothing here makes cycles, and a collection would look like a peer's pause
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve())
