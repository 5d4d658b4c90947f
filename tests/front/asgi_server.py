"""The server's side of ASGI, played message by message."""

from __future__ import annotations

import math
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import trio
from front_fakes import ScriptedExchange

from proxy.front.asgi import DataPlane

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


Message = dict[str, Any]
LAST = {"type": "http.response.body", "body": b"", "more_body": False}


class Server:
    """One request as an ASGI server would present it. `sent`: what the application has sent."""

    def __init__(self) -> None:
        self.sent: list[Message] = []
        self.open = trio.Event()
        """While not set, the client takes nothing: `send` waits."""
        self.open.set()
        self.returned = trio.Event()
        self._to_app, self._for_app = trio.open_memory_channel[Message](math.inf)
        self._from_app, self._news = trio.open_memory_channel[Message](math.inf)

    def body(self, data: bytes, *, more: bool = True) -> None:
        self._to_app.send_nowait({"type": "http.request", "body": data, "more_body": more})

    def disconnect(self) -> None:
        self._to_app.send_nowait({"type": "http.disconnect"})

    async def next_sent(self) -> Message:
        return await self._news.receive()

    async def receive(self) -> Message:
        return await self._for_app.receive()

    async def send(self, message: Message) -> None:
        await self.open.wait()
        await trio.lowlevel.checkpoint()
        self.sent.append(message)
        self._from_app.send_nowait(message)

    @property
    def status(self) -> int:
        return self.sent[0]["status"]

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        return self.sent[0]["headers"]

    @property
    def answer(self) -> bytes:
        return b"".join(message["body"] for message in self.sent[1:])

    @property
    def complete(self) -> bool:
        return self.sent[-1:] == [LAST]


def scope(method: str = "POST", path: str = "/v1/x", **fields: Any) -> dict[str, Any]:
    return {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [],
        "http_version": "1.1",
        "scheme": "http",
        "root_path": "",
        "client": ("127.0.0.1", 1),
        **fields,
    }


@asynccontextmanager
async def conversation(app: Any, **fields: Any) -> AsyncIterator[Server]:
    """The application at work on one request; leaving waits until it has returned."""
    server = Server()

    async def run() -> None:
        await app(scope(**fields), server.receive, server.send)
        server.returned.set()

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run)
            yield server


def plane(exchange: ScriptedExchange, limit: int = 1000, timeout_s: float = 30.0) -> DataPlane:
    return DataPlane(not_found, exchange, max_request_bytes=limit, body_timeout_s=timeout_s)


async def not_found(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 404, "headers": []})
    await send(LAST)
