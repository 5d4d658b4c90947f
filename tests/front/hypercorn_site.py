"""The front end under Hypercorn on a port of its own, and what its exchange does there."""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

import trio
from front_fakes import ScriptedExchange, answer_ok, config, front, read_all
from hypercorn.config import Config
from hypercorn.trio import serve

from proxy.front import http2 as http2_repairs
from proxy.front import websocket

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from proxy.exchange.ports import RequestReader, ResponseWriter


http2_repairs.install()
websocket.install()


class Site:
    """A front end under Hypercorn on a port of its own."""

    def __init__(self, port: int, exchange: ScriptedExchange) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.exchange = exchange
        self.streams: list[trio.SocketStream] = []

    async def connect(self) -> trio.SocketStream:
        """A connection that is closed with the site."""
        self.streams.append(await trio.open_tcp_stream("127.0.0.1", self.port))
        return self.streams[-1]


@asynccontextmanager
async def front_end(
    script: Callable[..., Awaitable[None]] = answer_ok, *, keep_alive_s: float = 60
) -> AsyncIterator[Site]:
    """A front end whose exchange does `script`."""
    exchange = ScriptedExchange(script)
    app = front(config(), exchange=exchange)
    stop = trio.Event()
    hypercorn = Config()
    hypercorn.bind = ["127.0.0.1:0"]
    hypercorn.errorlog = None
    hypercorn.keep_alive_timeout = keep_alive_s
    serving = partial(serve, app, hypercorn, shutdown_trigger=stop.wait)
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            (url,) = await nursery.start(serving)
            site = Site(int(url.rpartition(":")[2]), exchange)
            yield site
            for stream in site.streams:
                await stream.aclose()
            stop.set()


async def stream_then_wait(reader: RequestReader, writer: ResponseWriter) -> None:
    await read_all(reader)
    await writer.start(200, [(b"content-type", b"text/event-stream")])
    await writer.write(b"data: first\n\n")
    await trio.sleep_forever()


async def stream_then_abort(reader: RequestReader, writer: ResponseWriter) -> None:
    await read_all(reader)
    await writer.start(200, [(b"content-type", b"text/event-stream")])
    await writer.write(b"data: first\n\n")
    writer.abort()


async def refuse(reader: RequestReader, writer: ResponseWriter) -> None:
    await writer.respond(401, [], b"no")


PIECE = b"x" * 65536
PIECES = 1000


async def write_a_lot(reader: RequestReader, writer: ResponseWriter, written: list[int]) -> None:
    await read_all(reader)
    await writer.start(200, [(b"content-length", b"%d" % (len(PIECE) * PIECES))])
    for _ in range(PIECES):
        await writer.write(PIECE)
        written[0] += 1
    await writer.finish()
