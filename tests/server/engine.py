"""One connection of the engine over memory streams, with an exchange that a test can script."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import h11
import trio
from trio.testing import memory_stream_pair

from proxy.server.connection import Connection
from proxy.server.limits import Limits

Handle = Callable[[Any, Any], Awaitable[None]]


async def whole_body(reader: Any) -> bytes:
    pieces = []
    while piece := await reader.read_chunk():
        pieces.append(piece)
    return b"".join(pieces)


async def echo(reader: Any, writer: Any) -> None:
    await writer.respond(200, [(b"content-type", b"text/plain")], await whole_body(reader))


async def forever(reader: Any, writer: Any) -> None:
    await trio.sleep_forever()


@dataclass
class Received:
    """What the exchange was given."""

    method: str
    path: str
    query: bytes
    headers: list[tuple[bytes, bytes]]


class ScriptedExchange:
    """Serves paths below /v1/ with `handle`, and remembers what it was asked."""

    def __init__(self, handle: Handle = echo) -> None:
        self._handle = handle
        self.received: list[Received] = []
        self.cancelled = 0
        self.running = 0

    def matches(self, path: str) -> bool:
        return path.startswith("/v1/")

    async def handle(self, reader: Any, writer: Any) -> None:
        self.received.append(Received(reader.method, reader.path, reader.query, reader.headers))
        self.running += 1
        try:
            await self._handle(reader, writer)
        except trio.Cancelled:
            self.cancelled += 1
            raise
        finally:
            self.running -= 1


@dataclass
class FakeHost:
    exchange: ScriptedExchange = field(default_factory=ScriptedExchange)
    limits: Limits = field(default_factory=Limits)
    draining: bool = False
    date: bytes = b"date: Thu, 01 Jan 1970 00:00:00 GMT"
    taken_over: list[bytes] = field(default_factory=list)

    @property
    def now(self) -> float:
        return trio.current_time()

    async def take_over(self, connection: object, stream: trio.abc.Stream, received: bytes) -> None:
        while data := await stream.receive_some():
            received += data
        self.taken_over.append(received)
        await stream.aclose()


class MemoryWire:
    """Closes both directions of a memory stream at once."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.reset = False

    def hang_up(self, *, reset: bool = False) -> None:
        self.reset = self.reset or reset
        self._stream.send_stream.close()
        self._stream.receive_stream.close()


def open_connection(host: FakeHost) -> tuple[Connection, Any]:
    """The engine's end, not served yet, and the client's."""
    client, server = memory_stream_pair()
    return Connection(server, MemoryWire(server), host), client


@asynccontextmanager
async def serving(host: FakeHost) -> AsyncIterator[tuple[Connection, Any]]:
    """A connection that is served, and the client's end of it; it has ended after the block."""
    connection, client = open_connection(host)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(connection.serve)
        yield connection, client


async def receive_all(client: Any) -> bytes:
    received = b""
    while True:
        try:
            data = await client.receive_some()
        except trio.BrokenResourceError:
            return received
        if not data:
            return received
        received += data


async def talk(
    sent: bytes | Iterable[bytes],
    handle: Handle = echo,
    *,
    host: FakeHost | None = None,
    **limits: Any,
) -> bytes:
    """Sends all of `sent` (piece by piece), then EOF; what came back until the end."""
    if host is None:
        host = FakeHost(ScriptedExchange(handle), Limits(**limits))

    async def send() -> None:
        try:
            for piece in [sent] if isinstance(sent, bytes) else sent:
                await client.send_all(piece)
                await trio.testing.wait_all_tasks_blocked()
            await client.send_eof()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # Refused before it was all sent.

    async with serving(host) as (_, client), trio.open_nursery() as nursery:
        nursery.start_soon(send)
        answer = await receive_all(client)
    await client.aclose()
    return answer


@dataclass
class Answer:
    """One answer as h11, an independent parser, reads it."""

    status: int
    headers: dict[bytes, bytes]
    body: bytes
    complete: bool
    informational: list[int]


def read_answers(data: bytes, *methods: str) -> list[Answer]:
    """The answers in `data` to as many requests as there are `methods` (one POST if none)."""
    answers = []
    for method in methods or ("POST",):
        answer, data = _read_answer(data, method)
        answers.append(answer)
    assert data == b"", "nothing may follow the last answer"
    return answers


def _read_answer(data: bytes, method: str) -> tuple[Answer, bytes]:
    parser = h11.Connection(h11.CLIENT)
    parser.send(h11.Request(method=method, target="/", headers=[("host", "x")]))
    parser.send(h11.EndOfMessage())
    parser.receive_data(data)
    answer = Answer(0, {}, b"", False, [])
    while True:
        event = parser.next_event()
        if event is h11.NEED_DATA:
            parser.receive_data(b"")
            continue
        if isinstance(event, h11.InformationalResponse):
            answer.informational.append(event.status_code)
        elif isinstance(event, h11.Response):
            answer.status = event.status_code
            assert len(dict(event.headers)) == len(list(event.headers)), "no header twice"
            answer.headers = dict(event.headers)
        elif isinstance(event, h11.Data):
            answer.body += bytes(event.data)
        elif isinstance(event, h11.EndOfMessage):
            answer.complete = True
            return answer, bytes(parser.trailing_data[0])


def post(body: bytes = b"", path: str = "/v1/x", *headers: bytes, host: bytes = b"x") -> bytes:
    """A POST with `content-length`."""
    lines = [b"POST %b HTTP/1.1" % path.encode(), b"host: " + host, *headers]
    lines.append(b"content-length: %d" % len(body))
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def get(
    path: str = "/v1/x", *headers: bytes, version: bytes = b"1.1", method: str = "GET"
) -> bytes:
    lines = [b"%b %b HTTP/%b" % (method.encode(), path.encode(), version), b"host: x", *headers]
    return b"\r\n".join(lines) + b"\r\n\r\n"


def chunked(*pieces: bytes, trailer: bytes = b"") -> bytes:
    head = b"POST /v1/x HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
    coded = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    return head + coded + b"0\r\n" + trailer + b"\r\n"
