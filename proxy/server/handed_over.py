"""A connection's stream as it is handed over: the same, but for what it gives out."""

from __future__ import annotations

from typing import Any

import trio


class HandedOverStream(trio.abc.HalfCloseableStream):
    """All is done by `stream`. Whatever else Hypercorn asks for (the socket's addresses, TLS and
    what it negotiated) it finds on that itself."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        return bytes(await self._stream.receive_some(max_bytes))

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def send_eof(self) -> None:
        """Does nothing: Hypercorn closes the stream next, and might be cancelled in between."""

    async def aclose(self) -> None:
        await self._stream.aclose()
