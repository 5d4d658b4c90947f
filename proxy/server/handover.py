"""Hypercorn and the ASGI app, for what the engine does not serve itself.

That is HTTP/2, WebSocket, and every HTTP/1.1 request that is not for the exchange. Hypercorn's
protocol server for one connection gets the stream with the bytes that were already read, and keeps
it until it ends.

An HTTP/1.1 connection ends after one answer there: every HTTP/1.1 request thus passes the strict
parser, and a client that asked for a page once is back on the fast path with its next request. The
strict parser reads heads. A chunked body there is read by h11, which also takes a chunk size with
spaces behind it and waits at a bare LF until the body's time is up; with nothing after it on the
connection (`proxy.server.one_request`), no second request can hide in one that two parsers read
differently.
"""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Protocol, cast

import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.trio.lifespan import Lifespan
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import TrioSingleTask, WorkerContext
from hypercorn.typing import ConnectionState, LifespanState

from proxy.server.handed_over import HandedOverStream
from proxy.server.head import HTTP2_PREFACE

if TYPE_CHECKING:
    from collections.abc import Callable

    from hypercorn.typing import ASGIFramework, TaskGroup

    from proxy.server.limits import Limits

LOG = logging.getLogger(__name__)


class ReplayedStream(HandedOverStream):
    """Gives out `received` again before it goes on."""

    def __init__(self, stream: trio.abc.Stream, received: bytes) -> None:
        super().__init__(stream)
        self._received = received

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        if not self._received:
            return await super().receive_some(max_bytes)
        await trio.lowlevel.checkpoint()
        end = len(self._received) if max_bytes is None else max_bytes
        data, self._received = self._received[:end], self._received[end:]
        return data


class Idler(Protocol):
    """A connection whose idle time somebody watches."""

    idle_since: float | None


class IdleMark(TrioSingleTask):
    """Stands in for Hypercorn's idle timer and only marks the connection as idle or not.

    Hypercorn restarts its timer at the end of an answer from inside the app's task, which
    Quart-Trio has cancelled by then, so that an HTTP/2 connection would stay open for ever. And
    this way one rule closes idle connections, whoever serves them.
    """

    def __init__(self, connection: Idler) -> None:
        super().__init__()
        self._connection = connection

    async def restart(self, task_group: TaskGroup, action: Callable[..., object]) -> None:
        self._connection.idle_since = trio.current_time()

    async def stop(self) -> None:
        self._connection.idle_since = None


class AppServer:
    """Serves whole connections with an ASGI app."""

    def __init__(self, app: ASGIFramework, limits: Limits) -> None:
        self._app = ASGIWrapper(app)
        self._http1 = _config(limits)
        self._http1.keep_alive_max_requests = 0
        self._http2 = _config(limits)
        # Hypercorn ends an HTTP/2 connection at this number whatever is under way on it.
        self._http2.keep_alive_max_requests = sys.maxsize
        self._context = WorkerContext(None)
        self._state = LifespanState({})
        self._stopping = trio.Event()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Starts the app (reported through `task_status`), and stops it after `stop`.

        Errors: Hypercorn's `LifespanFailureError` and `LifespanTimeoutError`, in a group.
        """
        lifespan = Lifespan(self._app, self._http1, self._state)
        ended = trio.Event()

        async def live() -> None:
            await lifespan.handle_lifespan()
            ended.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(live)
            await lifespan.wait_for_startup()
            if lifespan.shutdown.is_set():
                # It is over already: either the app needs no lifespan, or it failed to start and
                # the error is on its way.
                await ended.wait()
            task_status.started()
            await self._stopping.wait()
            if not ended.is_set():
                await lifespan.wait_for_shutdown()
            nursery.cancel_scope.cancel()

    async def take_over(self, connection: Idler, stream: trio.abc.Stream, received: bytes) -> None:
        """Serves `stream` until it ends, and closes it; `received` has been read from it."""
        alpn = getattr(stream, "selected_alpn_protocol", lambda: None)()
        http2 = alpn == "h2" or received.startswith(HTTP2_PREFACE)
        server = TCPServer(
            self._app,
            self._http2 if http2 else self._http1,
            self._context,
            ConnectionState(self._state.copy()),
            # The annotation there knows only TLS; plain streams are told apart by what they lack.
            cast("trio.SSLStream[trio.SocketStream]", ReplayedStream(stream, received)),
        )
        server.idle_task = IdleMark(connection)
        await server.run()

    async def drain(self) -> None:
        """No connection is kept for another request."""
        await self._context.terminated.set()

    def stop(self) -> None:
        """Lets `run` stop the app. Never blocks."""
        self._stopping.set()


def _config(limits: Limits) -> Config:
    """The same limits in Hypercorn's words.

    `read_timeout` stays off: it would end every answer that takes longer. A body's length and
    time are the app's to bound (`MAX_CONTENT_LENGTH`, `BODY_TIMEOUT`).
    """
    config = Config()
    config.accesslog = None
    config.errorlog = LOG
    config.include_server_header = False
    config.ssl_handshake_timeout = limits.head_timeout_s
    config.h11_max_incomplete_size = limits.head_bytes
    config.h2_max_header_list_size = limits.head_bytes
    return config
