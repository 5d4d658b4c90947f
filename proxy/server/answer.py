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


def date_line() -> bytes:
    """The `date` header as of now."""
    return b"date: %b" % formatdate(wall_now(), usegmt=True).encode()


def _encode(status: int, lines: list[bytes], body: bytes = b"") -> bytes:
    """A head with these header lines, and what follows it.

    Errors: `ValueError` when a line holds a line break or NUL, which could end the head early and
    make two answers of one.
    """
    block = b"\r\n".join(lines)
    if len(block) - len(block.translate(None, b"\r\n\0")) != 2 * (len(lines) - 1):
        raise ValueError("a response header contains a line break or NUL")
    status_line = _STATUS_LINES.get(status)
    if status_line is None:
        assert 200 <= status <= 999, "a final status"
        status_line = b"HTTP/1.1 %d \r\n" % status
    return b"%b%b\r\n\r\n%b" % (status_line, block, body)


def encode_refusal(error: ProxyError) -> bytes:
    """A whole answer that ends the connection, for where there is no request to answer."""
    body = error.body()
    lines = [b": ".join(pair) for pair in error.headers() if pair[0] not in _OWN]
    lines += [date_line(), b"connection: close", b"content-length: %d" % len(body)]
    return _encode(error.status, lines, body)


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
        lines = [b": ".join(pair) for pair in headers if pair[0] not in _OWN]
        given = _NONE if len(lines) == len(headers) else _own(headers)
        if status in _BODILESS:
            body = b""
        elif self._head_only:
            lines.append(b"content-length: %b" % given.get(b"content-length", b"%d" % len(body)))
            body = b""
        else:
            lines.append(b"content-length: %d" % len(body))
        self._complete_head(lines, given)
        message = _encode(status, lines, body)
        self.started = True
        await self._connection.send(message)
        self.complete = True

    async def start(self, status: int, headers: Headers) -> None:
        """As the port says."""
        assert not self.started
        lines = [b": ".join(pair) for pair in headers if pair[0] not in _OWN]
        given = _NONE if len(lines) == len(headers) else _own(headers)
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
        self._complete_head(lines, given)
        head = _encode(status, lines)
        self.started = True
        await self._connection.send(head)

    def _complete_head(self, lines: list[bytes], given: Mapping[bytes, bytes]) -> None:
        """Adds the date and what is to become of the connection."""
        date = given.get(b"date") if given else None
        lines.append(self._connection.host.date if date is None else b"date: %b" % date)
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


def _own(headers: Headers) -> Mapping[bytes, bytes]:
    return {name: value for name, value in headers if name in _OWN}
