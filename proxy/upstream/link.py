"""A byte stream to an upstream: the interface, and the one over a plain socket.

trio's own `SocketStream` is not used on this path: it makes a scheduler round trip of every send
and receive. Here a request that the kernel takes at once costs one system call and an answer one
wait.
"""

from __future__ import annotations

import select
import sys
from collections import deque
from typing import TYPE_CHECKING, Final, Protocol

import trio

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

RECEIVE_BYTES: Final = 65_536
"""The most that one `receive` takes: large enough for any usual answer, and a bound on what one
connection can hold in memory undelivered."""


class Link(Protocol):
    """A connected byte stream; at most one task writes and one reads.

    Errors of all methods but `close`: `OSError` (`ssl.SSLError` included) when the connection is
    broken, `trio.ClosedResourceError` when this end has closed it, perhaps while waiting.
    """

    def write(self, data: bytes) -> bool:
        """Takes all of `data` and sends at once what the network accepts. Never blocks.

        True when nothing is left to send; else `drain` sends the rest.
        """
        ...

    async def drain(self) -> None:
        """Everything written has been sent. A checkpoint only if something had to be."""
        ...

    async def receive(self) -> bytes:
        """What has arrived, at least one byte and at most about `RECEIVE_BYTES`; b"" at the end.
        A checkpoint unless something was left from before."""
        ...

    def readable(self) -> bool:
        """Whether `receive` would return or fail at once. Never blocks."""
        ...

    def close(self) -> None:
        """Ends the connection at once and wakes whoever waits in it. Idempotent; never blocks."""
        ...


class SocketLink:
    """A link over a connected TCP socket, which it owns from now on."""

    __slots__ = ("_closed", "_is_readable", "_socket", "_unsent")

    def __init__(self, connected: socket.socket) -> None:
        connected.setblocking(False)
        self._closed = False
        self._socket = connected
        self._is_readable = _readable(connected)
        self._unsent: deque[memoryview] = deque()

    def write(self, data: bytes) -> bool:
        if self._unsent:
            self._unsent.append(memoryview(data))
            return False
        sent = self._send(data)
        if sent == len(data):
            return True
        self._unsent.append(memoryview(data)[sent:])
        return False

    def _send(self, data: bytes | memoryview) -> int:
        try:
            return self._socket.send(data)
        except BlockingIOError:
            return 0

    async def drain(self) -> None:
        while self._unsent:
            self._check_open()
            await trio.lowlevel.wait_writable(self._socket)
            sent = self._send(self._unsent[0])
            if sent == len(self._unsent[0]):
                self._unsent.popleft()
            else:
                self._unsent[0] = self._unsent[0][sent:]

    async def receive(self) -> bytes:
        self._check_open()
        while True:
            await trio.lowlevel.wait_readable(self._socket)
            try:
                return self._socket.recv(RECEIVE_BYTES)
            except BlockingIOError:
                continue

    def readable(self) -> bool:
        return self._is_readable()

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            trio.lowlevel.notify_closing(self._socket)
            self._socket.close()

    def _check_open(self) -> None:
        if self._closed:  # trio can't wait for a socket that has no number any more.
            raise trio.ClosedResourceError


def _readable(connected: socket.socket) -> Callable[[], bool]:
    """A function that tells whether something (data, end, error) waits at the socket.

    Cost: under a microsecond; a `recv` with `MSG_PEEK` takes four times that, because on an idle
    socket it raises.
    """
    if sys.platform == "win32":  # pragma: no cover - has no poll(), and no limit on select()
        return lambda: bool(select.select([connected], [], [], 0)[0])
    poll = select.poll()
    poll.register(connected, select.POLLIN)
    return lambda: bool(poll.poll(0))
