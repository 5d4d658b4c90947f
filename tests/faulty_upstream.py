"""An upstream on raw sockets that does to the wire whatever its script says.

    async with faulty_upstream(reset_after(head_of_stream(), events=3), serving()) as upstream:
        ...  # upstream.url; the first connection is reset, later ones are served

Each connection runs one script, in the order of arrival; the last script serves all further
connections. A script is an async function of a `Wire`. `FAULTS` names the usual ones.
"""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator

CHAT = json.dumps(
    {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "gpt-4o",
        "choices": [
            {
                "index": 0,
                "finish_reason": "stop",
                "message": {"role": "assistant", "content": "Hello"},
            }
        ],
        "usage": {"prompt_tokens": 9, "completion_tokens": 1, "total_tokens": 10},
    }
).encode()


@dataclass
class Request:
    method: str
    target: str
    headers: dict[str, str]
    body: bytes


class Wire:
    """One accepted connection, with the bytes under the script's full control."""

    def __init__(self, stream: trio.abc.Stream, upstream: FaultyUpstream, number: int) -> None:
        self.stream = stream
        self.upstream = upstream
        self.number = number
        """0 for the first connection."""
        self._buffer = b""

    async def read_head(self) -> Request:
        """The next request's head. Errors: `EOFError` when the client has closed."""
        while b"\r\n\r\n" not in self._buffer:
            self._buffer += await self._more()
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        method, target, _ = first.split(" ")
        headers = {
            name.lower(): value for name, _, value in (line.partition(": ") for line in lines)
        }
        return Request(method, target, headers, b"")

    async def read_request(self) -> Request:
        """The next request, recorded in `upstream.requests`."""
        request = await self.read_head()
        if request.headers.get("transfer-encoding") == "chunked":
            while size := int(await self._line(), 16):
                request.body += await self._exactly(size)
                await self._line()
            await self._line()
        else:
            request.body = await self._exactly(int(request.headers.get("content-length", "0")))
        self.upstream.requests.append(request)
        return request

    async def _more(self) -> bytes:
        with suppress(trio.BrokenResourceError):
            if data := await self.stream.receive_some(65_536):
                return bytes(data)
        raise EOFError

    async def _line(self) -> bytes:
        while b"\r\n" not in self._buffer:
            self._buffer += await self._more()
        line, _, self._buffer = self._buffer.partition(b"\r\n")
        return line

    async def _exactly(self, count: int) -> bytes:
        while len(self._buffer) < count:
            self._buffer += await self._more()
        data, self._buffer = self._buffer[:count], self._buffer[count:]
        return data

    async def send(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def wait_closed(self) -> None:
        """Returns when the client has ended the connection; whatever it sends is ignored."""
        with suppress(EOFError):
            while True:
                await self._more()

    async def close(self) -> None:
        await trio.aclose_forcefully(self.stream)

    async def reset(self) -> None:
        """Ends the connection with RST."""
        transport = self.stream
        if isinstance(transport, trio.SSLStream):
            transport = transport.transport_stream
        assert isinstance(transport, trio.SocketStream)
        transport.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await trio.aclose_forcefully(self.stream)


Script = Callable[[Wire], Awaitable[None]]


@dataclass
class FaultyUpstream:
    url: str
    connections: int = 0
    """Accepted so far."""
    open: int = 0
    """Whose script still runs."""
    requests: list[Request] = field(default_factory=list)
    """Read to their end, by all connections."""
    _changed: trio.Event = field(default_factory=trio.Event)

    async def wait_open(self, count: int) -> None:
        """Returns when exactly `count` connections are open."""
        while self.open != count:
            await self._changed.wait()

    def _count(self, accepted: int, change: int) -> None:
        self.connections += accepted
        self.open += change
        self._changed.set()
        self._changed = trio.Event()


@asynccontextmanager
async def faulty_upstream(
    *scripts: Script, tls: ssl.SSLContext | None = None
) -> AsyncIterator[FaultyUpstream]:
    """Listens on a free port of the loopback until the block ends."""
    listeners: Sequence[trio.SocketListener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]
    upstream = FaultyUpstream(f"{'https' if tls else 'http'}://127.0.0.1:{port}")

    async def serve(stream: trio.abc.Stream) -> None:
        number = upstream.connections
        upstream._count(1, 1)
        try:
            wire = Wire(stream, upstream, number)
            with suppress(EOFError, trio.BrokenResourceError, trio.ClosedResourceError):
                await scripts[min(number, len(scripts) - 1)](wire)
            await trio.aclose_forcefully(stream)
        finally:
            upstream._count(0, -1)

    served = [trio.SSLListener(listener, tls) for listener in listeners] if tls else listeners
    async with trio.open_nursery() as nursery:
        await nursery.start(trio.serve_listeners, serve, served)
        yield upstream
        nursery.cancel_scope.cancel()


@contextmanager
def refused_url() -> Iterator[str]:
    """An address at which nobody listens for as long as the block lasts."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"


# What an upstream says, as bytes


def answer(body: bytes = CHAT, status: str = "200 OK", headers: str = "") -> bytes:
    """A complete answer with its length. `headers`: more lines, each with its line end."""
    head = f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\n{headers}"
    return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body


def head_of(kind: str, headers: str = "") -> bytes:
    """Of an answer in chunks."""
    head = f"HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\n{headers}"
    return f"{head}transfer-encoding: chunked\r\n\r\n".encode()


def head_of_stream(headers: str = "") -> bytes:
    return head_of("text/event-stream", headers)


def event(content: str = "Hello") -> bytes:
    """One chat completion chunk as a server-sent event."""
    choice = {"index": 0, "delta": {"content": content}, "finish_reason": None}
    data = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "choices": [choice]}
    return b"data: " + json.dumps(data).encode() + b"\n\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def stream(events: int = 3, headers: str = "") -> bytes:
    """A complete answer of `events` events and `[DONE]`, one chunk each."""
    chunks = [chunk(event(str(number))) for number in range(events)]
    return b"".join([head_of_stream(headers), *chunks, chunk(b"data: [DONE]\n\n"), b"0\r\n\r\n"])


# What an upstream does


def serving(*answers: bytes) -> Script:
    """Answers each request of a connection with the next of `answers`, the last one for ever."""
    answers = answers or (answer(),)

    async def script(wire: Wire) -> None:
        served = 0
        while True:
            await wire.read_request()
            await wire.send(answers[min(served, len(answers) - 1)])
            served += 1

    return script


def then_close(data: bytes) -> Script:
    """One request, `data`, and an orderly end whatever `data` promised."""

    async def script(wire: Wire) -> None:
        await wire.read_request()
        await wire.send(data)

    return script


def then_reset(data: bytes = b"") -> Script:
    """One request, `data` (which the loopback delivers before what follows), and RST."""

    async def script(wire: Wire) -> None:
        await wire.read_request()
        if data:
            await wire.send(data)
        await wire.reset()

    return script


def then_hang(data: bytes = b"") -> Script:
    """One request, `data`, and silence until the client gives up."""

    async def script(wire: Wire) -> None:
        await wire.read_request()
        if data:
            await wire.send(data)
        await wire.wait_closed()

    return script


def reset_at_once() -> Script:
    """RST before anything has been read."""

    async def script(wire: Wire) -> None:
        await wire.reset()

    return script


def trickling(data: bytes) -> Script:
    """`data` one byte per packet, then keeps the connection."""

    async def script(wire: Wire) -> None:
        while True:
            await wire.read_request()
            for position in range(len(data)):
                await wire.send(data[position : position + 1])

    return script


def refusing_early(data: bytes) -> Script:
    """Answers as soon as the head has come, and reads no byte of the body."""

    async def script(wire: Wire) -> None:
        await wire.read_head()
        await wire.send(data)
        await trio.sleep_forever()

    return script


def closing_when_idle(data: bytes, idle: trio.Event) -> Script:
    """Serves one request and closes the kept connection when `idle` is set."""

    async def script(wire: Wire) -> None:
        await wire.read_request()
        await wire.send(data)
        await idle.wait()

    return script


def closing_on_second(data: bytes) -> Script:
    """Serves one request, and closes when the next one arrives, without a byte of an answer."""

    async def script(wire: Wire) -> None:
        await wire.read_request()
        await wire.send(data)
        await wire.read_request()

    return script


def large_body(size_bytes: int) -> Script:
    """An answer of `size_bytes`, sent as fast as the client takes it."""

    async def script(wire: Wire) -> None:
        await wire.read_request()
        await wire.send(f"HTTP/1.1 200 OK\r\ncontent-length: {size_bytes}\r\n\r\n".encode())
        whole, rest = divmod(size_bytes, 1 << 20)
        for _ in range(whole):
            await wire.send(bytes(1 << 20))
        await wire.send(bytes(rest))

    return script


FAULTS: dict[str, Script] = {
    "reset at once": reset_at_once(),
    "close before the head": then_close(b""),
    "reset before the head": then_reset(),
    "close in the head": then_close(answer()[:20]),
    "reset in the body": then_reset(answer()[:-10]),
    "close in the body": then_close(answer()[:-10]),
    "reset after 2 events": then_reset(head_of_stream() + chunk(event("0")) + chunk(event("1"))),
    "close after 2 events": then_close(head_of_stream() + chunk(event("0")) + chunk(event("1"))),
    "truncated chunk": then_close(head_of_stream() + chunk(event())[:-9]),
    "missing last chunk": then_close(head_of_stream() + chunk(event())),
    "bad chunk size": then_close(head_of_stream() + chunk(event()) + b"zz\r\n"),
    "chunk longer than its size": then_close(head_of_stream() + b"2\r\nabc\r\n0\r\n\r\n"),
    "length and chunked": then_close(answer(headers="transfer-encoding: chunked\r\n")),
    "two lengths": then_close(answer(headers="content-length: 3\r\n")),
    "negative length": then_close(b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n"),
    "no HTTP": then_close(b"SSH-2.0-OpenSSH_9.6\r\n"),
    "1 MB header": then_close(answer(headers=f"x-large: {'x' * 1_000_000}\r\n")),
    "1000 headers": then_close(answer(headers="".join(f"x-{n}: y\r\n" for n in range(1000)))),
    "hang before the head": then_hang(),
    "hang in the head": then_hang(answer()[:20]),
    "hang in the body": then_hang(answer()[:-10]),
    "hang after 2 events": then_hang(head_of_stream() + chunk(event("0")) + chunk(event("1"))),
}
"""Every way to go wrong with one request; none of them ends in a complete answer."""

GOOD: dict[str, Script] = {
    "plain": serving(),
    "stream": serving(stream()),
    "trickle": trickling(answer()),
    "trickled stream": trickling(stream()),
    "100 continue": serving(b"HTTP/1.1 100 Continue\r\n\r\n" + answer()),
    "early hints": serving(b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" + answer()),
    "HTTP/1.0": then_close(answer().replace(b"HTTP/1.1", b"HTTP/1.0", 1)),
    "close without length": then_close(b"HTTP/1.1 200 OK\r\n\r\n" + CHAT),
    "surplus after the body": serving(answer() + b"surplus"),
    "close after each": then_close(answer(headers="connection: close\r\n")),
}
"""Odd but legal: each ends in a complete answer."""
