"""An answer whose head has arrived: what `UpstreamResponse` promises."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import trio

from proxy.exchange.headers import is_event_stream
from proxy.exchange.ports import UpstreamFailure

if TYPE_CHECKING:
    from proxy.exchange.ports import Headers
    from proxy.upstream.connection import Connection


class Response:
    """Holds the connection for only as long as the body is not complete: an answer that came
    with its head in one piece has already given it back.

    A body that was cut never looks like a complete one: after a failure, or `aclose` before the
    end, reading raises.
    """

    __slots__ = ("_connection", "_cut", "_left_s", "_ready", "_silence_s", "headers", "status")

    def __init__(self, connection: Connection, silence_s: float, ends_at: float) -> None:
        """`silence_s`: for each piece; `ends_at`: for the whole body, event streams excepted, and
        as much later as nobody waits for the body meanwhile."""
        answer = connection.answer
        self.status = answer.status
        self.headers: Headers = answer.headers
        self._cut = False
        self._ready = answer.take()
        self._connection: Connection | None = None
        if answer.complete:
            connection.owner.give_back(connection)
            return
        self._connection = connection
        self._silence_s = silence_s
        self._left_s = math.inf
        if ends_at != math.inf and not is_event_stream(answer.headers):
            self._left_s = ends_at - trio.current_time()

    async def read_chunk(self) -> bytes:
        """Everything that one receive brought, b"" at the end. Errors: `UpstreamFailure` with
        phase "body". A checkpoint unless there was something already."""
        if self._ready:
            data, self._ready = self._ready, b""
            return data
        connection = self._connection
        if connection is None:
            if self._cut:
                raise UpstreamFailure("body", "other", "closed before its end", answered=True)
            return b""
        if self._left_s == math.inf:
            data = await connection.read_piece(self._silence_s, math.inf)
        else:
            data = await self._read_in_time(connection)
        if connection.answer.complete:
            self._connection = None
            connection.owner.give_back(connection)
        return data

    async def _read_in_time(self, connection: Connection) -> bytes:
        began = trio.current_time()
        try:
            return await connection.read_piece(self._silence_s, began + self._left_s)
        finally:
            self._left_s -= trio.current_time() - began

    async def aclose(self) -> None:
        """Idempotent. Not a checkpoint."""
        self._ready = b""
        connection, self._connection = self._connection, None
        if connection is not None:
            self._cut = True
            connection.owner.drop(connection)
