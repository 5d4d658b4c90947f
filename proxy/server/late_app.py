"""The app behind the listener, loaded while the first requests are being served.

What the app and Hypercorn import takes a third of the whole start, and no request for the exchange
needs any of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Callable

    from hypercorn.typing import ASGIFramework

    from proxy.server.handover import AppServer, Idler
    from proxy.server.limits import Limits


class LateApp:
    """An `AppServer` that comes later; connections handed over before that wait for it."""

    def __init__(self, load: Callable[[], ASGIFramework], limits: Limits) -> None:
        """`load` is called once, in a thread of its own: it may import and block."""
        self._load = load
        self._limits = limits
        self._server: AppServer | None = None
        self._started = trio.Event()
        self._starting = trio.CancelScope()
        self._draining = False

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Loads and starts the app (reported through `task_status`), stops it after `stop`.

        Errors: what `load` raises; as `AppServer.run`, in a group.
        """
        with self._starting:
            server = await trio.to_thread.run_sync(self._loaded, abandon_on_cancel=True)
            async with trio.open_nursery() as nursery:
                await nursery.start(server.run)
                if self._draining:
                    await server.drain()
                self._server = server
                self._started.set()
                task_status.started()

    def _loaded(self) -> AppServer:
        from proxy.server.handover import AppServer  # imports Hypercorn

        return AppServer(self._load(), self._limits)

    async def take_over(self, connection: Idler, stream: trio.abc.Stream, received: bytes) -> None:
        """As `AppServer.take_over`, once there is one."""
        await self._started.wait()
        assert self._server is not None
        await self._server.take_over(connection, stream, received)

    async def drain(self) -> None:
        """No connection is kept for another request; does not wait for the app."""
        self._draining = True
        if self._server is not None:
            await self._server.drain()

    def stop(self) -> None:
        """Lets `run` stop the app, or give up loading it. Never blocks."""
        if self._server is None:
            self._starting.cancel()
        else:
            self._server.stop()
