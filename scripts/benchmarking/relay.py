"""The yardstick: a relay on trio with httptools on both sides and nothing else.

A task per client connection with an upstream connection of its own. It reads the heads, as any
relay must, and passes on the bytes as they came; no pool, no keys, no limits, no log.
Run as `python -m benchmarking.relay PORT UPSTREAM_PORT`.
"""

from __future__ import annotations

import sys
from functools import partial

import httptools
import trio

_READ_BYTES = 65536


class Message:
    """What httptools tells of one message."""

    def __init__(self) -> None:
        self.url = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self.complete = False

    def on_message_begin(self) -> None:
        self.url = b""
        self.headers = []
        self.complete = False

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name, value))

    def on_message_complete(self) -> None:
        self.complete = True


async def relay(upstream_port: int, client: trio.SocketStream) -> None:
    """Serves one client connection until it ends."""
    request, answer = Message(), Message()
    request_parser = httptools.HttpRequestParser(request)
    answer_parser = httptools.HttpResponseParser(answer)
    async with await trio.open_tcp_stream("127.0.0.1", upstream_port) as upstream:
        try:
            while data := await client.receive_some(_READ_BYTES):
                request_parser.feed_data(data)
                await upstream.send_all(data)
                if not request.complete:
                    continue
                answer.complete = False
                while not answer.complete:
                    data = await upstream.receive_some(_READ_BYTES)
                    if not data:
                        return
                    answer_parser.feed_data(data)
                    await client.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return  # a client that goes away is nothing to report


async def main(port: int, upstream_port: int) -> None:
    await trio.serve_tcp(partial(relay, upstream_port), port, host="127.0.0.1", backlog=4096)


if __name__ == "__main__":
    trio.run(main, int(sys.argv[1]), int(sys.argv[2]))
