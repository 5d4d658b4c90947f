"""A connection that is ended at any moment leaves nothing behind."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
from engine import (
    FakeHost,
    MemoryWire,
    ScriptedExchange,
    chunked,
    forever,
    get,
    open_connection,
    post,
    read_answers,
    receive_all,
    serving,
    whole_body,
)

from proxy.server.limits import Limits

if TYPE_CHECKING:
    from collections.abc import Callable

    from proxy.server.connection import Connection


class CountedStream(trio.abc.HalfCloseableStream):
    """Passes everything on, and calls `tick` before and after each operation."""

    def __init__(self, stream, tick: Callable[[], None]) -> None:
        self._stream = stream
        self._tick = tick

    async def _counted(self, operation, *arguments):
        self._tick()
        await trio.lowlevel.checkpoint()
        result = await operation(*arguments)
        self._tick()
        return result

    async def receive_some(self, max_bytes=None):
        return await self._counted(self._stream.receive_some, max_bytes)

    async def send_all(self, data):
        return await self._counted(self._stream.send_all, data)

    async def wait_send_all_might_not_block(self):
        await self._stream.wait_send_all_might_not_block()

    async def send_eof(self):
        return await self._counted(self._stream.send_eof)

    async def aclose(self):
        await self._stream.aclose()


async def streaming(reader, writer) -> None:
    if reader.path == "/v1/early":
        await writer.respond(401, [], b"")
        return
    await whole_body(reader)
    await trio.lowlevel.checkpoint()
    await writer.start(200, [])
    await writer.write(b"piece")
    await trio.lowlevel.checkpoint()
    await writer.finish()


CONVERSATION = (
    chunked(b"abc", b"def")
    + post(b"x" * 10, "/v1/early")
    + post(b"hello", "/v1/x", b"expect: 100-continue").removesuffix(b"hello"),
    b"hello" + get() + b"GET /v1/x HT",
    b"TP/1.1\r\n: bad\r\n\r\n",
    b"more",
)


async def converse(stop_at: int, stop: Callable[[Connection, trio.CancelScope], None]) -> int:
    """Runs the conversation and stops it at that tick; the number of ticks there were."""
    host = FakeHost(ScriptedExchange(streaming), Limits(drain_bytes=20))
    connection, client = open_connection(host)
    ticks = 0
    outer = trio.CancelScope()

    def tick() -> None:
        nonlocal ticks
        ticks += 1
        if ticks == stop_at:
            stop(connection, outer)

    wire = connection._wire
    assert isinstance(wire, MemoryWire)
    connection._stream = CountedStream(connection._stream, tick)

    async def send() -> None:
        try:
            for piece in CONVERSATION:
                await client.send_all(piece)
                await trio.testing.wait_all_tasks_blocked()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            nursery.start_soon(receive_all, client)
            with outer:
                await connection.serve()
            before = ticks
            await trio.testing.wait_all_tasks_blocked()
            assert ticks == before, "it does nothing any more"
            nursery.cancel_scope.cancel()
    assert host.exchange.running == 0
    with pytest.raises(trio.ClosedResourceError):
        await wire._stream.send_all(b"x")
    return ticks


STOPS = {
    "the client leaves": lambda connection, outer: connection.depart(),
    "the server ends it": lambda connection, outer: connection.end(),
    "everything is cancelled": lambda connection, outer: outer.cancel(),
    "the socket is closed": lambda connection, outer: connection.hang_up(),
}


@pytest.mark.parametrize("name", STOPS)
async def test_stopped_at_every_await(name: str, autojump_clock):
    ticks = await converse(-1, STOPS[name])
    assert ticks > 20
    for stop_at in range(1, ticks + 1):
        await converse(stop_at, STOPS[name])


async def test_departure_cancels_the_exchange_at_once():
    host = FakeHost(ScriptedExchange(forever))
    async with serving(host) as (connection, client):
        await client.send_all(post())
        await trio.testing.wait_all_tasks_blocked()
        assert host.exchange.running == 1
        connection.depart()
        assert await receive_all(client) == b"", "nobody is there to be told"
    assert host.exchange.cancelled == 1


@pytest.mark.parametrize("request_", [post(b"abc")[:-1], chunked(b"abc")[:-3]])
async def test_an_end_in_the_middle_of_a_body_is_a_departure(request_: bytes):
    host = FakeHost()
    async with serving(host) as (_, client):
        await client.send_all(request_)
        await client.send_eof()
        assert await receive_all(client) == b""
    assert host.exchange.cancelled == 1


async def test_a_client_that_can_not_be_written_to_has_departed():
    async def endless(reader, writer) -> None:
        await writer.start(200, [])
        while True:
            await writer.write(b"x")

    host = FakeHost(ScriptedExchange(endless))
    async with serving(host) as (_, client):
        await client.send_all(post())
        await client.receive_some()
        await client.aclose()
    assert host.exchange.cancelled == 1


async def test_work_after_a_complete_answer_is_not_cancelled_by_a_departure():
    done = []

    async def tidy(reader, writer) -> None:
        await writer.respond(200, [], b"")
        connection.depart()
        await trio.lowlevel.checkpoint()
        done.append(reader.path)

    host = FakeHost(ScriptedExchange(tidy))
    async with serving(host) as (connection, client):
        await client.send_all(get("/v1/a") + get("/v1/b"))
        await receive_all(client)
    assert done == ["/v1/a"]
    assert host.exchange.cancelled == 0


async def test_a_request_that_a_drain_cuts_gets_a_503():
    host = FakeHost(ScriptedExchange(forever))
    async with serving(host) as (connection, client):
        await client.send_all(post())
        await trio.testing.wait_all_tasks_blocked()
        connection.end()
        [answer] = read_answers(await receive_all(client))
    assert answer.status == 503
    assert answer.headers[b"connection"] == b"close"
    assert answer.headers[b"retry-after"] == b"1"


async def test_a_stream_that_a_drain_cuts_is_seen_to_be_cut():
    async def long(reader, writer) -> None:
        await writer.start(200, [])
        await trio.sleep_forever()

    async with serving(FakeHost(ScriptedExchange(long))) as (connection, client):
        await client.send_all(post())
        await trio.testing.wait_all_tasks_blocked()
        connection.end()
        assert (await receive_all(client)).endswith(b"\r\n\r\n")


async def test_errors_in_groups_are_contained(caplog):
    async def failing(reader, writer) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            raise RuntimeError("inside a group")

    async with serving(FakeHost(ScriptedExchange(failing))) as (_, client):
        await client.send_all(post())
        [answer] = read_answers(await client.receive_some())
        await client.aclose()
    assert answer.status == 500
    assert "inside a group" in caplog.text
