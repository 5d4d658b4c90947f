"""How a listener stops: drained, aborted, cancelled."""

from __future__ import annotations

import pytest
import trio
from engine import ScriptedExchange, chunked, forever, get, post, read_answers, receive_all
from http2_client import Http2Client
from listening import endless, listening, until


async def test_drain_ends_idle_connections_at_once_and_lets_requests_finish():
    go = trio.Event()

    async def patient(reader, writer) -> None:
        await go.wait()
        await writer.respond(200, [], b"finished")

    exchange = ScriptedExchange(patient)
    async with listening(exchange) as here:
        idle, busy = await here.connect(), await here.connect()
        http2 = Http2Client(await here.connect())
        assert (await http2.get("/page"))[0] == "200"
        await busy.send_all(post())
        await until(lambda: exchange.running == 1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(here.server.drain, 10)
            assert await receive_all(idle) == b""
            assert isinstance(await receive_all(http2.stream), bytes)
            with pytest.raises(OSError, match="all attempts to connect"):
                await here.connect()
            assert exchange.running == 1
            go.set()
            [answer] = read_answers(await receive_all(busy))
        assert (answer.status, answer.body) == (200, b"finished")
        assert answer.headers[b"connection"] == b"close"
    assert here.app.events[-1] == "stopped"


async def test_idle_connections_end_whoever_serves_them(monkeypatch):
    monkeypatch.setattr("proxy.server.server.TICK_S", 0.02)
    async with listening(keep_alive_s=0.1) as here:
        plain = await here.connect()
        http2 = Http2Client(await here.connect())
        assert (await http2.get("/page"))[0] == "200"
        with trio.fail_after(5):
            assert await receive_all(plain) == b""
            await receive_all(http2.stream)


async def test_drain_cuts_what_does_not_finish():
    exchange = ScriptedExchange(forever)
    async with listening(exchange) as here:
        client, page = await here.connect(), await here.connect()
        await client.send_all(post())
        await page.send_all(get("/slow"))
        await until(lambda: exchange.running == 1 and "slow began" in here.app.events)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(here.server.drain, 0.05)
            [answer] = read_answers(await receive_all(client))
            await receive_all(page)
        assert answer.status == 503
        assert exchange.cancelled == 1


async def test_a_stalled_client_can_not_hold_a_drain():
    async def shielded(reader, writer) -> None:
        with trio.CancelScope(shield=True):
            await endless(reader, writer)

    exchange = ScriptedExchange(shielded)
    async with listening(exchange) as here:
        client = await here.connect()
        await client.send_all(post())
        await until(lambda: exchange.running == 1)
        with trio.fail_after(5):
            await here.server.drain(0.05)
        assert exchange.running == 0
        await client.aclose()


async def test_abort_ends_everything_at_once():
    exchange = ScriptedExchange(forever)
    async with listening(exchange) as here:
        client = await here.connect()
        await client.send_all(post())
        await until(lambda: exchange.running == 1)
        with trio.fail_after(1):
            here.server.abort()
            await receive_all(client)
            await until(lambda: exchange.running == 0)


async def test_cancelling_the_server_closes_everything():
    exchange = ScriptedExchange(forever)
    async with listening(exchange) as here:
        client = await here.connect()
        await client.send_all(chunked(b"x"))
        await until(lambda: exchange.running == 1)
        here.scope.cancel()
    assert exchange.cancelled == 1
    with pytest.raises(OSError, match="all attempts to connect"):
        await here.connect()
