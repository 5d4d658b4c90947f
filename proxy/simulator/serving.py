"""A simulated resource on a port of its own."""

from __future__ import annotations

import logging
import socket
from functools import partial
from typing import TYPE_CHECKING

import trio
from hypercorn.config import Config
from hypercorn.trio import serve
from tricycle import open_service_nursery

from proxy.simulator.app import create_app

if TYPE_CHECKING:
    from proxy.simulator.resource import Resource

_GRACE_S = 0.5
_KEEP_ALIVE_S = 75.0
_BACKLOG = 1024


async def serve_resource(
    resource: Resource,
    host: str,
    port: int,
    *,
    control_key: str | None = None,
    task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serves `resource` until cancelled; `task_status` gets its URL once it is listening.

    Port 0 takes a free one. When cancelled, requests in progress have half a second to finish.
    Errors: OSError when the address can't be bound.
    """
    config = _listening(host, port)
    stop = trio.Event()
    async with open_service_nursery() as nursery:
        app = create_app(resource, control_key=control_key)
        run = partial(serve, app, config, shutdown_trigger=stop.wait)
        urls: list[str] = await nursery.start(run)
        task_status.started(urls[0])
        try:
            await trio.sleep_forever()
        finally:
            stop.set()


def _listening(host: str, port: int) -> Config:
    """A Hypercorn configuration with a socket that is bound already.

    So a port in use is a plain OSError here, and not a group of them from deep inside.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        bound.bind((host, port))
    except OSError:
        bound.close()
        raise
    config = Config()
    config.bind = [f"fd://{bound.detach()}"]
    config.backlog = _BACKLOG
    config.graceful_timeout = _GRACE_S
    config.keep_alive_timeout = _KEEP_ALIVE_S
    config.keep_alive_max_requests = 2**31
    config.errorlog = logging.getLogger("proxy.simulator")
    return config
