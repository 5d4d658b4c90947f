"""The request side of an exchange: `proxy.exchange.ports.RequestReader` over a connection."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from proxy.errors import BadRequest, BodyTooLarge, RequestTimeout
from proxy.server.chunked import ChunkedDecoder, MalformedChunks

if TYPE_CHECKING:
    from proxy.exchange.ports import Headers
    from proxy.exchange.terms import Terms
    from proxy.server.connection import Connection
    from proxy.server.head import Head

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Request:
    """One request whose head has been read; its body is taken from the connection as asked for."""

    __slots__ = (
        "_awaits_continue",
        "_begun_at",
        "_connection",
        "_decoder",
        "_head",
        "_left",
        "_taken",
        "complete",
        "headers",
        "method",
        "path",
        "query",
    )

    method: str
    path: str
    query: bytes
    headers: Headers

    def __init__(self, head: Head, connection: Connection) -> None:
        self.method = head.method
        self.path = head.path
        self.query = head.query
        self.headers = head.headers
        self._head = head
        self.complete = not (head.content_length or head.chunked)
        """Whether the whole body has been read."""
        self._connection = connection
        self._left = head.content_length
        self._decoder = ChunkedDecoder() if head.chunked else None
        self._awaits_continue = head.expects_continue
        self._taken = 0
        self._begun_at = 0.0

    @property
    def terms(self) -> Terms | None:
        """Kept with the head, of which the next request may be another copy."""
        return self._head.terms

    @terms.setter
    def terms(self, terms: Terms | None) -> None:
        self._head.terms = terms

    @property
    def skippable(self) -> bool:
        """Whether what is left of the body may be read and dropped to keep the connection."""
        return self.complete or (
            self._decoder is None
            and not self._awaits_continue
            and self._left <= self._connection.limits.drain_bytes
        )

    async def read_chunk(self) -> bytes:
        """As the port says. A checkpoint only when it has to wait for the client.

        Errors: besides the port's, `BadRequest` when the body is not in the coding that the head
        announced. The client going away in the middle cancels the connection's scope.
        """
        if self.complete:
            return b""
        if self._decoder is not None:
            return await self._read_coded(self._decoder)
        connection = self._connection
        if self._taken + self._left > connection.limits.body_bytes:
            raise BodyTooLarge(connection.limits.body_bytes)
        data = connection.received or await self._receive()
        left = self._left
        if len(data) > left:
            connection.received = data[left:]
            data = data[:left]
        else:
            connection.received = b""
        self._taken += len(data)
        self._left = left - len(data)
        self.complete = not self._left
        return data

    async def _read_coded(self, decoder: ChunkedDecoder) -> bytes:
        connection = self._connection
        while True:  # noqa: ASYNC913 - it waits whenever nothing more has been received
            data = connection.received or await self._receive()
            connection.received = b""
            try:
                payload = decoder.feed(data)
            except MalformedChunks as error:
                raise BadRequest(f"The request body is malformed: {error}.") from error
            self._taken += len(payload)
            if self._taken > connection.limits.body_bytes:
                raise BodyTooLarge(connection.limits.body_bytes)
            if decoder.complete:
                connection.received = decoder.rest
                self.complete = True
                return payload
            if payload:
                return payload

    async def _receive(self) -> bytes:
        connection = self._connection
        limits = connection.limits
        if self._awaits_continue:
            self._awaits_continue = False
            await connection.send(CONTINUE)
        if not self._begun_at:
            self._begun_at = trio.current_time()
        allowed_s = limits.body_timeout_s + self._taken / limits.body_bytes_per_s
        with trio.move_on_at(self._begun_at + allowed_s):
            return await connection.receive()
        raise RequestTimeout(allowed_s)

    async def skip(self) -> None:
        """Reads the rest of the body and drops it. Errors: as `read_chunk`."""
        while not self.complete:
            await self.read_chunk()
