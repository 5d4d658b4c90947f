"""The whole service in this process, over real sockets, before upstreams that a test scripts."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import trio
from served import configure, served

from proxy.service import Service

MODEL = "gpt-4o"


def instance(url: str, **fields: Any) -> dict[str, Any]:
    """The configuration of an instance with room for everything."""
    return {
        "api_key": "upstream-key-0123456789abcdef",
        "api_base": url,
        "supported_models": [MODEL],
        "max_tpm": 10**9,
        **fields,
    }


def chat(model: str = MODEL, *, stream: bool = False, **fields: Any) -> bytes:
    """A whole request as bytes."""
    body = {"model": model, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 9}
    content = json.dumps({**body, "stream": stream, **fields}).encode()
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nhost: proxy\r\ncontent-type: application/json\r\n"
        f"content-length: {len(content)}\r\n\r\n"
    )
    return head.encode() + content


@dataclass
class Whole:
    """A running service. `wait_until`: polls, because nothing tells a test of such things."""

    service: Service
    url: str
    _clients: list[trio.SocketStream] = field(default_factory=list)

    @property
    def upstream(self) -> Any:
        """Its connections to instances."""
        return self.service.exchange._means.upstream

    async def connect(self, receive_buffer_bytes: int | None = None) -> trio.SocketStream:
        """A client; closed at the end of the test, if it has not been before."""
        address = urlsplit(self.url)
        assert address.hostname is not None
        assert address.port is not None
        client = trio.socket.socket()
        if receive_buffer_bytes is not None:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
        await client.connect((address.hostname, address.port))
        self._clients = [kept for kept in self._clients if kept.socket.fileno() >= 0]
        self._clients.append(trio.SocketStream(client))
        return self._clients[-1]

    async def ask(self, request: bytes) -> tuple[int, bytes]:
        """On a connection of its own."""
        client = await self.connect()
        answer = await talk(client, request)
        await client.aclose()
        return answer

    def close_clients(self) -> None:
        for client in self._clients:
            client.socket.close()
        self._clients.clear()


async def talk(client: trio.SocketStream, request: bytes) -> tuple[int, bytes]:
    """Status and body, chunk sizes included, of the answer to `request` on a kept connection."""
    await client.send_all(request)
    received = b""
    while b"\r\n\r\n" not in received:
        received += await _more(client)
    head, _, body = received.partition(b"\r\n\r\n")
    fields = dict(line.split(b": ", 1) for line in head.split(b"\r\n")[1:])
    length = fields.get(b"content-length")
    while len(body) < int(length) if length else not body.endswith(b"0\r\n\r\n"):
        body += await _more(client)
    return int(head.split(b" ")[1]), body


async def _more(client: trio.SocketStream) -> bytes:
    data = bytes(await client.receive_some())
    if not data:
        raise EOFError("the service ended the connection in the middle of an answer")
    return data


async def wait_until(condition: Any) -> None:
    """Of what the service does within a moment. Fails after ten seconds."""
    with trio.fail_after(10):
        while not condition():  # noqa: ASYNC110 - no event tells of it
            await trio.sleep(0.01)


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@asynccontextmanager
async def whole_service(
    folder: Path, instances: dict[str, dict[str, Any]], **settings: str
) -> AsyncIterator[Whole]:
    configure(folder, instances)
    async with served(folder, settings) as (service, url):
        whole = Whole(service, url)
        try:
            yield whole
        finally:
            whole.close_clients()
