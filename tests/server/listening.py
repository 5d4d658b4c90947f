"""The whole listener on a real socket, for tests."""

from __future__ import annotations

import socket
import ssl
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import trio
from engine import ScriptedExchange
from quart import request, websocket
from quart_trio import QuartTrio

from proxy.server.limits import Limits
from proxy.server.listen import open_listeners
from proxy.server.server import Server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


def small_app() -> Any:
    """An app with a page, an echo and a websocket; remembers its start and stop."""
    app = QuartTrio("small")
    app.events = []

    @app.before_serving
    async def start() -> None:
        app.events.append("started")

    @app.after_serving
    async def stop() -> None:
        app.events.append("stopped")

    @app.get("/page")
    async def page() -> str:
        return "a page"

    @app.post("/page")
    async def echo_body() -> bytes:
        return await request.get_data()

    @app.get("/slow")
    async def slow() -> str:
        app.events.append("slow began")
        await trio.sleep_forever()
        return ""

    @app.websocket("/socket")
    async def converse() -> None:
        while True:
            await websocket.send(await websocket.receive())

    return app


class Listening:
    def __init__(self, server: Server, app: Any, url: str, scope: trio.CancelScope) -> None:
        self.server = server
        self.app = app
        self.url = url
        self.scope = scope
        parts = urlsplit(url)
        self._address = (parts.hostname, parts.port)
        self._clients: list[trio.SocketStream] = []

    async def connect(self) -> trio.SocketStream:
        """A client, closed at the end of the test."""
        client = await trio.open_tcp_stream(*self._address)
        self._clients.append(client)
        return client

    def close_clients(self) -> None:
        for client in self._clients:
            client.socket.close()


@asynccontextmanager
async def listening(
    exchange: ScriptedExchange | None = None, *, app: Any = None, tls: Any = None, **limits: Any
) -> AsyncIterator[Listening]:
    """A running server, drained at once when the block is left."""
    app = app or small_app()
    server = Server(exchange or ScriptedExchange(), lambda: app, limits=Limits(**limits), tls=tls)
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            listeners = await open_listeners("127.0.0.1", 0, backlog=10)
            urls = await nursery.start(server.run, listeners)
            here = Listening(server, app, urls[0], nursery.cancel_scope)
            try:
                yield here
                await server.drain(0)
            finally:
                here.close_clients()


def reset(stream: trio.SocketStream) -> None:
    """Closes with a reset, as a client that crashes does."""
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    stream.socket.close()


def client_tls(authority, *protocols: str) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    if protocols:
        context.set_alpn_protocols(list(protocols))
    return context


async def until(condition) -> None:
    """Waits for something that another task does within a moment."""
    while not condition():
        await trio.lowlevel.checkpoint()


async def endless(reader, writer) -> None:
    await writer.start(200, [])
    while True:
        await writer.write(b"x" * 65536)
