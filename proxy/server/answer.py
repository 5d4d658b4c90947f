"""The answer side of an exchange: `proxy.exchange.ports.ResponseWriter` over a connection."""

from __future__ import annotations

from email.utils import formatdate
from http import HTTPStatus
from typing import TYPE_CHECKING

from actors.clock import wall_now

if TYPE_CHECKING:
    from collections.abc import Mapping

    from proxy.errors import ProxyError
    from proxy.exchange.ports import Headers
    from proxy.server.connection import Connection
    from proxy.server.head import Head
    from proxy.server.request import Request

_STATUS_LINES = {
    status.value: b"HTTP/1.1 %d %b\r\n" % (status, status.phrase.encode()) for status in HTTPStatus
}
_BODILESS = frozenset((204, 304))
_OWN = frozenset((b"connection", b"content-length", b"date", b"keep-alive", b"transfer-encoding"))
"""Headers that the writer decides about, though some may be given."""
_NONE: Mapping[bytes, bytes] = {}


class _Date:
    """The `date` header, made once per second."""

    __slots__ = ("_line", "_second")

    def __init__(self) -> None:
        self._second = 0
        self._line = b""

    def line(self) -> bytes:
        second = int(wall_now())
        if second != self._second:
            self._second = second
            self._line = b"date: %b" % formatdate(second, usegmt=True).encode()
        return self._line


_date = _Date()


def _encode_head(status: int, lines: list[bytes]) -> bytes:
    """The head of an answer with these header lines.

    Errors: `ValueError` when a line holds a line break or NUL, which could end the head early and
    make two answers of one.
    """
    block = b"\r\n".join(lines)
    breaks = len(lines) - 1
    if block.count(b"\n") != breaks or block.count(b"\r") != breaks or b"\0" in block:
        raise ValueError("a response header contains a line break or NUL")
    status_line = _STATUS_LINES.get(status)
    if status_line is None:
        assert 200 <= status <= 999, "a final status"
        status_line = b"HTTP/1.1 %d \r\n" % status
    return b"%b%b\r\n\r\n" % (status_line, block)


def encode_refusal(error: ProxyError) -> bytes:
    """A whole answer that ends the connection, for where there is no request to answer."""
    body = error.body()
    lines = [b": ".join(pair) for pair in error.headers() if pair[0] not in _OWN]
    lines += [_date.line(), b"connection: close", b"content-length: %d" % len(body)]
    return _encode_head(error.status, lines) + body


class Answer:
    """The answer to one request, framed as that request's client understands it."""

    __slots__ = (
        "_chunked",
        "_connection",
        "_head_only",
        "_http_1_1",
        "_left",
        "_request",
        "complete",
        "keep_alive",
        "started",
    )

    started: bool
    complete: bool
    """Whether all of it has been handed to the kernel."""
    keep_alive: bool
    """Whether the connection can carry another request afterwards."""

    def __init__(self, head: Head, request: Request, connection: Connection) -> None:
        self.started = False
        self.complete = False
        self.keep_alive = head.keep_alive
        self._http_1_1 = head.http_1_1
        self._head_only = head.method == "HEAD"
        self._request = request
        self._connection = connection
        self._chunked = False
        self._left: int | None = None
        """Bytes of the body still to be written, when the head has told their number."""

    async def respond(self, status: int, headers: Headers, body: bytes) -> None:
        """As the port says: one send. In an answer to HEAD a given `content-length` is kept."""
        assert not self.started
        lines, given = _sort_out(headers)
        if status not in _BODILESS:
            length = given.get(b"content-length") if self._head_only else None
            lines.append(b"content-length: %b" % (length or b"%d" % len(body)))
        head = self._head(status, lines, given)
        self.started = True
        await self._connection.send(head if self._head_only or status in _BODILESS else head + body)
        self.complete = True

    async def start(self, status: int, headers: Headers) -> None:
        """As the port says."""
        assert not self.started
        lines, given = _sort_out(headers)
        length = given.get(b"content-length")
        if length is not None and status not in _BODILESS:
            lines.append(b"content-length: %b" % length)
        if self._head_only or status in _BODILESS:
            self._left = 0
        elif length is not None:
            self._left = int(length)
        elif self._http_1_1:
            self._chunked = True
            lines.append(b"transfer-encoding: chunked")
        else:
            self.keep_alive = False
        head = self._head(status, lines, given)
        self.started = True
        await self._connection.send(head)

    def _head(self, status: int, lines: list[bytes], given: Mapping[bytes, bytes]) -> bytes:
        lines.append(b"date: %b" % given[b"date"] if b"date" in given else _date.line())
        if self.keep_alive and (self._connection.closing or given or not self._request.complete):
            self.keep_alive = (
                not self._connection.closing
                and self._request.skippable
                and b"close" not in given.get(b"connection", b"").lower()
            )
        if not self.keep_alive:
            lines.append(b"connection: close")
        elif not self._http_1_1:
            lines.append(b"connection: keep-alive")
        return _encode_head(status, lines)

    async def write(self, data: bytes) -> None:
        """As the port says: one send, framing included."""
        assert self.started
        assert not self.complete
        if not data or self._head_only:
            return
        if self._chunked:
            data = b"%x\r\n%b\r\n" % (len(data), data)
        elif self._left is not None:
            self._left -= len(data)
            if self._left < 0:
                self.abort()
                raise ValueError("an answer's body is longer than its content-length")
        await self._connection.send(data)

    async def finish(self) -> None:
        """As the port says. A body shorter than its `content-length` is a cut one: `abort`."""
        assert self.started
        if self._left:
            self.abort()
            return
        if self._chunked:
            await self._connection.send(b"0\r\n\r\n")
        self.complete = True

    def abort(self) -> None:
        """As the port says."""
        self.keep_alive = False
        if not self.complete:
            self.complete = True
            # Where the connection's end is the body's end, only a reset tells a cut from an end.
            self._connection.hang_up(reset=not self._chunked and self._left is None)


def _sort_out(headers: Headers) -> tuple[list[bytes], Mapping[bytes, bytes]]:
    """The lines to send as they are, and those headers that the writer has a say in."""
    lines = [b": ".join(pair) for pair in headers if pair[0] not in _OWN]
    if len(lines) == len(headers):
        return lines, _NONE
    return lines, {name: value for name, value in headers if name in _OWN}
