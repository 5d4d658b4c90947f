"""The public listener as a whole: accepts clients, serves them, stops in an orderly way."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import trio

from proxy.errors import ProxyError
from proxy.server.answer import date_line, encode_refusal
from proxy.server.client_socket import ClientSocket
from proxy.server.connection import Connection
from proxy.server.connections import Connections, ConnectionStatistics
from proxy.server.departures import open_departures
from proxy.server.late_app import LateApp
from proxy.server.listen import url

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from hypercorn.typing import ASGIFramework

    from proxy.server.connection import Exchange
    from proxy.server.limits import Limits

LOG = logging.getLogger(__name__)

TICK_S = 1.0
"""How often the time is told to the connections and idle ones are looked for. A pass over all of
them costs less than a timer that is set and cleared for each request; in return, one may be
closed so much too early."""

CUT_S = 2.0
"""How long cancelled connections get to end by themselves before their sockets are closed."""


class Server:
    """One public listener. `run` it once; `drain` or `abort` ends it."""

    def __init__(
        self,
        exchange: Exchange,
        load_app: Callable[[], ASGIFramework],
        *,
        limits: Limits,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """`load_app`: see `LateApp`."""
        self.exchange = exchange
        self.limits = limits
        self.draining = False
        self._leaving = False
        self.now = trio.current_time()
        self.date = date_line()
        self._tls = tls
        self._app = LateApp(load_app, limits)
        self._connections = Connections(limits)
        self._departures = open_departures()
        self._accepting = trio.CancelScope()
        self._serving = trio.CancelScope()
        self._ended = trio.Event()

    def renew_tls(self, tls: ssl.SSLContext) -> None:
        """New connections get `tls`; open ones keep what they have. Never blocks."""
        self._tls = tls

    def statistics(self) -> ConnectionStatistics:
        return self._connections.statistics()

    async def run(
        self,
        listeners: list[trio.SocketListener],
        *,
        task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serves until drained or aborted; closes `listeners`.

        Connections are accepted at once, and while the exchange answers already the app is
        loaded and started; the URLs are reported when that is done too. Errors: what the app's
        start or stop raises, in a group.
        """
        urls = [url(one, tls=self._tls is not None) for one in listeners]
        loaded = False

        async def load(app: trio.Nursery) -> None:
            nonlocal loaded
            await app.start(self._app.run)
            loaded = True
            task_status.started(urls)

        try:
            async with trio.open_nursery() as app:
                async with trio.open_nursery() as watches:
                    watches.start_soon(self._departures.run)
                    watches.start_soon(self._tick)
                    watches.start_soon(load, app)
                    with self._serving:
                        async with trio.open_nursery() as clients:
                            clients.start_soon(self._accept, listeners, clients)
                    watches.cancel_scope.cancel()
                if not loaded:  # stopped before that; whoever waits for the start need not
                    task_status.started(urls)
                self._ended.set()
                self._app.stop()
        finally:
            self._ended.set()
            for listener in listeners:
                listener.socket.close()

    def wind_down(self) -> None:
        """Clients are told to go elsewhere, and served until they do: from now on an answer ends
        its HTTP/1.1 connection (one opened later is told up to `TICK_S` later). Never blocks."""
        self._leaving = True
        self._connections.wind_down()

    async def drain(self, deadline_s: float) -> None:
        """Stops: no new connections, idle ones closed, requests in hand finished within
        `deadline_s`, the rest cut. Returns when no connection is left.

        A request that is cut before its answer has begun gets a 503. Cut connections have
        `CUT_S` to wind up; then their sockets are closed under them, so that no client can hold
        the process.
        """
        self.draining = True
        self._accepting.cancel()
        await self._app.drain()
        self._connections.retire_all()
        with trio.move_on_after(deadline_s):
            await self._ended.wait()
            return
        if left := self.statistics().open:
            LOG.warning("drain: cutting %d connections", left)
        self._connections.end_all()
        with trio.move_on_after(CUT_S):
            await self._ended.wait()
            return
        self._connections.hang_up_all()
        await self._ended.wait()

    def abort(self) -> None:
        """Stops at once: closes every socket and cancels every request. Never blocks."""
        self._connections.hang_up_all()
        self._serving.cancel()

    async def _accept(self, listeners: list[trio.SocketListener], clients: trio.Nursery) -> None:
        with self._accepting:
            await trio.serve_listeners(self._serve_client, listeners, handler_nursery=clients)

    async def _serve_client(self, accepted: trio.SocketStream) -> None:
        try:
            address = str(accepted.socket.getpeername()[0])
            client = ClientSocket.adopt(accepted, self.limits)
        except OSError:  # The client has gone already.
            return
        stream: trio.abc.Stream = client
        if self._tls is not None:
            stream = trio.SSLStream(client, self._tls, server_side=True, https_compatible=True)
        connection = Connection(stream, client, self)
        if not self._connections.admit(connection, address):
            await self._turn_away(client)
            return
        try:
            self._departures.watch(client.socket, connection)
            await connection.serve()
        finally:
            self._departures.forget(connection)
            self._connections.leave(connection)

    async def _turn_away(self, client: ClientSocket) -> None:
        LOG.warning("too many connections: one refused")
        try:
            if self._tls is None:
                await client.send_all(encode_refusal(self._too_many_connections()))
        except trio.BrokenResourceError:
            pass  # It did not wait for the answer.
        finally:
            client.hang_up()

    def _too_many_connections(self) -> ProxyError:
        where, setting, code = "from your address", "MAX_CONNECTIONS_PER_CLIENT", "_from_client"
        if self._connections.full:
            where, setting, code = "to this proxy", "MAX_CONNECTIONS", ""
        return ProxyError(
            503,
            f"Too many connections {where} are open ({setting}).",
            type="server_error",
            code=f"too_many_connections{code}",
            retry_after_s=1.0,
            close=True,
        )

    async def take_over(
        self, connection: Connection, stream: trio.abc.Stream, received: bytes
    ) -> None:
        """Hands a connection to Hypercorn until it ends (see `connection.Host`)."""
        # Hypercorn reads all the time and notices by itself when the client goes.
        self._departures.forget(connection)
        await self._app.take_over(connection, stream, received)

    async def _tick(self) -> None:
        while True:
            await trio.sleep(TICK_S)
            self.now = trio.current_time()
            self.date = date_line()
            self._connections.close_idle(since=self.now - self.limits.keep_alive_s)
            if self._leaving:
                self._connections.wind_down()
