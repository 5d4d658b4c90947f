"""Links without a network: the test plays the upstream, byte by byte."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Callable

    from proxy.upstream.origin import Origin

ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


class MemoryLink:
    """What the pool wrote is in `sent`; `deliver`, `end` and `fail` are the upstream's side.

    `window`: how many bytes are accepted without `drain`, which waits until the test widens it.
    `on_write` is called after each attempt to write.
    """

    def __init__(self, origin: Origin, on_write: Callable[[MemoryLink], None]) -> None:
        self.origin = origin
        self.sent = bytearray()
        self.window: float = float("inf")
        self.closed = False
        self.write_error: OSError | None = None
        self.on_write = on_write
        self._unsent = b""
        self._arrived: deque[bytes | OSError] = deque()
        self._changed = trio.Event()

    def write(self, data: bytes) -> bool:
        if self.closed:
            raise OSError(9, "Bad file descriptor")
        if self.write_error is not None:
            self.sent += data
            self.on_write(self)
            raise self.write_error
        self._unsent += data
        return self._flush()

    def _flush(self) -> bool:
        accepted = int(min(len(self._unsent), self.window))
        self.window -= accepted
        self.sent += self._unsent[:accepted]
        self._unsent = self._unsent[accepted:]
        self.on_write(self)
        return not self._unsent

    async def drain(self) -> None:
        while not self._flush():
            await self._wait()

    async def receive(self) -> bytes:
        if self._arrived:
            await trio.lowlevel.checkpoint()
        while not self._arrived:
            await self._wait()
        if self._arrived[0] == b"":
            return b""
        arrived = self._arrived.popleft()
        if isinstance(arrived, OSError):
            raise arrived
        return arrived

    async def _wait(self) -> None:
        if self.closed:
            raise trio.ClosedResourceError
        await self._changed.wait()
        if self.closed:
            raise trio.ClosedResourceError

    def readable(self) -> bool:
        return bool(self._arrived)

    def close(self) -> None:
        self.closed = True
        self._change()

    def _change(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    def deliver(self, *pieces: bytes | OSError) -> None:
        self._arrived.extend(pieces)
        self._change()

    def end(self) -> None:
        self.deliver(b"")

    def fail(self, error: OSError | None = None) -> None:
        self.deliver(error or ConnectionResetError(104, "Connection reset by peer"))

    def widen(self, window: float) -> None:
        self.window = window
        self._change()


class MemoryDialer:
    """Makes links whose upstream answers each complete head with the next of `answers` (lists of
    pieces; the last one for ever; none: the test does it)."""

    def __init__(self, *answers: list[bytes]) -> None:
        self.answers = answers
        self.links: list[MemoryLink] = []
        self.delay_s = 0.0
        self.error: Exception | None = None
        self.window: float = float("inf")
        self.write_error: OSError | None = None
        self._served: dict[MemoryLink, int] = {}

    async def dial(self, origin: Origin) -> MemoryLink:
        await trio.sleep(self.delay_s)
        if self.error is not None:
            raise self.error
        link = MemoryLink(origin, self._respond)
        link.window = self.window
        link.write_error = self.write_error
        self.links.append(link)
        return link

    def _respond(self, link: MemoryLink) -> None:
        served = self._served.get(link, 0)
        if self.answers and link.sent.count(b"\r\n\r\n") > served:
            self._served[link] = served + 1
            link.deliver(*self.answers[min(sum(self._served.values()), len(self.answers)) - 1])

    @property
    def open_links(self) -> int:
        return sum(not link.closed for link in self.links)
