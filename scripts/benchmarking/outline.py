"""The second yardstick: the relay with what no design of this service can do without, and no more.

It reads the JSON of the request and of the answer, writes both heads anew, and asks a router, which
asks one of ten instances, by messages between tasks; the instance is told at the end what was used.
No keys, no ids, no limits, no estimates, no pool, no retries, no log.
Run as `python -m benchmarking.outline PORT UPSTREAM_PORT`.
"""

from __future__ import annotations

import sys
from functools import partial
from itertools import cycle
from typing import TypeAlias

import httptools
import trio
from pydantic_core import from_json

from actors.mailbox import Mailbox, Reply

from .relay import Message
from .wire import CHAT_PATH

_READ_BYTES = 65536
_WAITING = 4096

InstanceBox: TypeAlias = "Mailbox[Reply[InstanceBox], int]"
RouterBox: TypeAlias = "Mailbox[Reply[InstanceBox], None]"


class WholeMessage(Message):
    """With its body."""

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.body = b""

    def on_body(self, piece: bytes) -> None:
        self.body += piece


async def route(box: RouterBox, instances: list[InstanceBox]) -> None:
    turn = cycle(instances)
    while True:
        await box.wait_nonempty()
        reply = box.receive_nowait()
        assert reply is not None
        next(turn).offer(reply)


async def grant(box: InstanceBox) -> None:
    used_tokens = 0
    while True:
        await box.wait_nonempty()
        message = box.receive_nowait()
        if isinstance(message, int):
            used_tokens += message
        else:
            message.set(box)


async def relay(router: RouterBox, upstream_port: int, client: trio.SocketStream) -> None:
    """Serves one client connection until it ends."""
    request, answer = WholeMessage(), WholeMessage()
    request_parser = httptools.HttpRequestParser(request)
    answer_parser = httptools.HttpResponseParser(answer)
    async with await trio.open_tcp_stream("127.0.0.1", upstream_port) as upstream:
        try:
            while data := await client.receive_some(_READ_BYTES):
                request_parser.feed_data(data)
                if not request.complete:
                    continue
                assert from_json(request.body)["model"]
                reply: Reply[InstanceBox] = Reply()
                router.offer(reply)
                instance = await reply.wait()
                start = b"POST %b HTTP/1.1\r\napi-key: secret\r\n" % CHAT_PATH.encode()
                await upstream.send_all(_message(start, request))
                answer.complete = False
                while not answer.complete:
                    data = await upstream.receive_some(_READ_BYTES)
                    if not data:
                        return
                    answer_parser.feed_data(data)
                used_tokens = from_json(answer.body)["usage"]["total_tokens"]
                await client.send_all(_message(b"HTTP/1.1 200 OK\r\n", answer))
                instance.tell(used_tokens)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return  # a client that goes away is nothing to report


def _message(start: bytes, message: WholeMessage) -> bytes:
    lines = [b"%b: %b\r\n" % each for each in message.headers if each[0] != b"authorization"]
    return b"".join([start, *lines, b"\r\n", message.body])


async def main(port: int, upstream_port: int) -> None:
    router: RouterBox = Mailbox(_WAITING)
    instances: list[InstanceBox] = [Mailbox(_WAITING) for _ in range(10)]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(route, router, instances)
        for instance in instances:
            nursery.start_soon(grant, instance)
        serve = partial(relay, router, upstream_port)
        await trio.serve_tcp(serve, port, host="127.0.0.1", backlog=4096)


if __name__ == "__main__":
    trio.run(main, int(sys.argv[1]), int(sys.argv[2]))
