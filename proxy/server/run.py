"""Serving from start to stop: the listener, the signals, the drain."""

from __future__ import annotations

import logging
import signal
from functools import partial
from typing import TYPE_CHECKING

import trio

from proxy.server.listen import open_listeners
from proxy.server.server import Server

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from hypercorn.typing import ASGIFramework

    from proxy.server.connection import Exchange
    from proxy.server.limits import Limits

LOG = logging.getLogger(__name__)


async def serve(
    exchange: Exchange,
    load_app: Callable[[], ASGIFramework],
    *,
    host: str,
    port: int,
    limits: Limits,
    tls: ssl.SSLContext | None = None,
    notice_s: float = 0.0,
    drain_s: float = 30.0,
    on_drain: Callable[[], None] | None = None,
    on_hangup: Callable[[], None] | None = None,
    on_start: Callable[[Server], None] | None = None,
    task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serves on `host` and `port` until a signal stops it; returns when all is closed.

    Requests for `exchange` go there directly, everything else to what `load_app` gives. Reports
    the URLs that it serves (several when `host` has several addresses). SIGTERM: `on_drain` is
    called; for `notice_s`, which a load balancer needs to notice, everybody is served and told to
    go elsewhere; then requests in hand have `drain_s` to finish. SIGINT: the same without the
    notice. A second one ends everything at once. SIGHUP: `on_hangup` is called. Must run in the
    main thread, because of the signals. `on_start` gets the server, to read its statistics.

    Errors: `ListenFailed`; what the app's start raises, in a group.
    """
    listeners = await open_listeners(host, port, backlog=limits.backlog)
    server = Server(exchange, load_app, limits=limits, tls=tls)
    if on_start is not None:
        on_start(server)
    async with trio.open_nursery() as nursery:
        await nursery.start(
            partial(
                watch_signals,
                server,
                drain_s,
                on_drain,
                on_hangup,
                notice_s=notice_s,
            )
        )
        await server.run(listeners, task_status=task_status)
        nursery.cancel_scope.cancel()


async def watch_signals(
    server: Server,
    drain_s: float,
    on_drain: Callable[[], None] | None = None,
    on_hangup: Callable[[], None] | None = None,
    *,
    notice_s: float = 0.0,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Turns signals into `drain`, `abort` and the two hooks, which must not block or raise.

    After the second stop signal the system's own reaction to signals is back: a third one kills
    the process, even if its event loop should be stuck.
    """
    hangup = getattr(signal, "SIGHUP", None) if on_hangup else None
    watched = [signal.SIGTERM, signal.SIGINT, *([hangup] if hangup else [])]
    with trio.open_signal_receiver(*watched) as signals:
        async with trio.open_nursery() as nursery:
            task_status.started()
            stopping = False
            async for received in signals:
                name = signal.Signals(received).name
                if received == hangup and on_hangup:
                    on_hangup()
                elif not stopping:
                    stopping = True
                    wait_s = notice_s if received == signal.SIGTERM else 0.0
                    LOG.info("%s: finishing requests for at most %g s", name, wait_s + drain_s)
                    if on_drain:
                        on_drain()
                    nursery.start_soon(_stop, server, wait_s, drain_s)
                else:
                    LOG.warning("%s again: stopping at once", name)
                    server.abort()
                    break


async def _stop(server: Server, notice_s: float, drain_s: float) -> None:
    if notice_s:
        server.wind_down()
        await trio.sleep(notice_s)
    await server.drain(drain_s)
