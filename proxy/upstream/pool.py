"""The connections to one origin."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import trio

from proxy.exchange.ports import UpstreamFailure
from proxy.upstream.connection import Connection
from proxy.upstream.response import Response

if TYPE_CHECKING:
    from proxy.exchange.ports import UploadBody
    from proxy.upstream.link import Link
    from proxy.upstream.origin import Origin
    from proxy.upstream.watch import Watch


class Dialer(Protocol):
    async def dial(self, origin: Origin) -> Link:
        """A new link to `origin`, secured if its scheme says so. Errors: `UpstreamFailure` with
        phase "connect". The caller sets the time limit, by cancelling."""
        ...


class Request(Protocol):
    """What of an `UpstreamRequest` matters here; its address and headers are in the head."""

    method: str
    body: bytes | UploadBody
    timeout_s: float
    silence_s: float
    whole_s: float | None


@dataclass(frozen=True, slots=True)
class PoolLimits:
    """`connections`: in use at the same time; nobody ever waits for one, a request beyond the
    limit fails. `idle_connections`: kept for reuse; two or three times as many as a busy instance
    needs. `idle_s`: for how long; below the 240 s after which Azure's load balancers forget a
    silent connection without telling (learn.microsoft.com, "TCP reset and idle timeout").
    `connect_timeout_s`: for one connection, name look-up and TLS included.
    """

    connections: int = 10_000
    idle_connections: int = 256
    idle_s: float = 60.0
    connect_timeout_s: float = 10.0


@dataclass(frozen=True, slots=True)
class PoolStatistics:
    """`idle`, `in_use`: connections now; `opened`, `reused`, `closed`: since the start."""

    idle: int = 0
    in_use: int = 0
    opened: int = 0
    reused: int = 0
    closed: int = 0

    def __add__(self, other: PoolStatistics) -> PoolStatistics:
        return PoolStatistics(
            self.idle + other.idle,
            self.in_use + other.in_use,
            self.opened + other.opened,
            self.reused + other.reused,
            self.closed + other.closed,
        )


class OriginPool:
    """Opens a connection when none is idle, and takes the one last used first, so that in quiet
    times the surplus grows old and goes.

    Every state change is synchronous: no cancellation can fall between taking a connection and
    counting it.
    """

    __slots__ = (
        "_closed", "_dialer", "_idle", "_in_use", "_limits", "_opened", "_retired", "_reused",
        "_watch", "origin",
    )  # fmt: skip

    def __init__(self, origin: Origin, dialer: Dialer, watch: Watch, limits: PoolLimits) -> None:
        self.origin = origin
        self._dialer = dialer
        self._watch = watch
        self._limits = limits
        self._idle: deque[Connection] = deque()
        self._in_use = 0
        self._opened = 0
        self._reused = 0
        self._closed = 0
        self._retired = False

    async def send(self, request: Request, head: bytes) -> Response:
        """Sends a request, its `head` complete, and waits for the head of the answer.

        A kept connection may have been closed by the other side in the very moment of its reuse.
        If it ends without a byte of an answer, the request is sent once more, on a new one.
        Errors: `UpstreamFailure`, and whatever reading the body raises.
        """
        now = trio.current_time()
        connection = self._take_idle(now)
        if connection is not None:
            try:
                return await self._exchange(connection, request, head, now)
            except UpstreamFailure as stale:
                if stale.answered or stale.kind != "reset":
                    raise
                now = connection.started
        connection = await self._open(now + request.timeout_s)
        return await self._exchange(connection, request, head, now)

    async def _exchange(
        self, connection: Connection, request: Request, head: bytes, started: float
    ) -> Response:
        connection.started = started
        self._watch.set_deadline(connection, started + request.timeout_s)
        try:
            await connection.request(request.method, head, request.body)
        except BaseException:
            self.drop(connection)
            raise
        connection.deadline = math.inf
        whole_s = request.whole_s
        ends_at = math.inf if whole_s is None else connection.started + whole_s
        return Response(connection, request.silence_s, ends_at)

    def _take_idle(self, now: float) -> Connection | None:
        while self._idle:
            connection = self._idle.pop()
            connection.idle = False
            self._in_use += 1
            if connection.deadline > now and not connection.readable():
                self._reused += 1
                return connection
            self.drop(connection)
        return None

    async def _open(self, deadline: float) -> Connection:
        assert self._watch.running, "without the watch no deadline holds"
        if self._in_use >= self._limits.connections:
            raise UpstreamFailure("connect", "other", "too many connections are in use")
        self._in_use += 1
        try:
            link = await self._dial(deadline)
        except BaseException:
            self._in_use -= 1
            raise
        self._opened += 1
        return Connection(link, self, self._watch)

    async def _dial(self, deadline: float) -> Link:
        deadline = min(deadline, trio.current_time() + self._limits.connect_timeout_s)
        with trio.CancelScope(deadline=deadline):
            return await self._dialer.dial(self.origin)
        raise UpstreamFailure("connect", "timeout", "no connection in time")

    def give_back(self, connection: Connection) -> None:
        """Its exchange is complete: it becomes idle if it can be used again, else it is closed."""
        if (
            not connection.answer.keep
            or connection.closed
            or self._retired
            or len(self._idle) >= self._limits.idle_connections
        ):
            self.drop(connection)
            return
        self._in_use -= 1
        connection.idle = True
        self._idle.append(connection)
        self._watch.set_deadline(connection, trio.current_time() + self._limits.idle_s)

    def drop(self, connection: Connection) -> None:
        """Closes it, whether in use or idle. Idempotent; never blocks."""
        if connection.closed:
            return
        connection.close()
        self._closed += 1
        if connection.idle:
            connection.idle = False
            self._idle.remove(connection)
        else:
            self._in_use -= 1

    def retire(self) -> None:
        """No connection is kept from now on: idle ones are closed, those in use finish."""
        self._retired = True
        while self._idle:
            self.drop(self._idle[0])

    def statistics(self) -> PoolStatistics:
        return PoolStatistics(
            len(self._idle), self._in_use, self._opened, self._reused, self._closed
        )
