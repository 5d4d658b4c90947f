"""A client of the data plane over ASGI goes away."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio
from asgi_server import LAST, Message, Server, conversation, not_found, plane, scope
from front_fakes import ScriptedExchange, answer_ok, read_all
from trio.testing import wait_all_tasks_blocked

from proxy.front.asgi import ENDING_S, DataPlane

if TYPE_CHECKING:
    from proxy.exchange.ports import RequestReader, ResponseWriter


# --- the client goes away


async def test_a_disconnect_before_the_body_cancels() -> None:
    exchange = ScriptedExchange()
    async with conversation(plane(exchange)) as server:
        server.disconnect()
    assert exchange.ended == ["cancelled"]
    assert server.sent == []


async def test_a_disconnect_in_the_middle_of_the_body_cancels() -> None:
    exchange = ScriptedExchange()
    async with conversation(plane(exchange)) as server:
        server.body(b"half")
        await wait_all_tasks_blocked()
        server.disconnect()
    assert exchange.ended == ["cancelled"]
    assert server.sent == []


async def test_a_disconnect_behind_a_small_unread_body_cancels() -> None:
    async def script(reader: RequestReader, writer: ResponseWriter) -> None:
        await trio.sleep_forever()

    exchange = ScriptedExchange(script)
    async with conversation(plane(exchange)) as server:
        server.body(b"small", more=False)
        server.disconnect()
    assert exchange.ended == ["cancelled"]


async def test_a_disconnect_in_the_middle_of_the_answer_cancels() -> None:
    async def script(reader: RequestReader, writer: ResponseWriter) -> None:
        await read_all(reader)
        await writer.start(200, [])
        await writer.write(b"first")
        await trio.sleep_forever()

    exchange = ScriptedExchange(script)
    async with conversation(plane(exchange)) as server:
        server.body(b"", more=False)
        while server.answer != b"first":
            await server.next_sent()
        server.disconnect()
    assert exchange.ended == ["cancelled"]
    assert not server.complete


async def test_a_disconnect_while_the_client_takes_nothing_cancels() -> None:
    async def script(reader: RequestReader, writer: ResponseWriter) -> None:
        await read_all(reader)
        await writer.start(200, [])
        await writer.write(b"never taken")

    exchange = ScriptedExchange(script)
    async with conversation(plane(exchange)) as server:
        server.open = trio.Event()
        server.body(b"", more=False)
        await wait_all_tasks_blocked()
        server.disconnect()
    assert exchange.ended == ["cancelled"]


async def test_what_follows_the_answer_is_not_cancelled() -> None:
    """Servers report every answered request as disconnected."""
    settle = trio.Event()

    async def script(reader: RequestReader, writer: ResponseWriter) -> None:
        await answer_ok(reader, writer)
        await settle.wait()

    exchange = ScriptedExchange(script)
    async with conversation(plane(exchange)) as server:
        server.body(b"", more=False)
        while not server.complete:
            await server.next_sent()
        server.disconnect()
        await wait_all_tasks_blocked()
        settle.set()
    assert exchange.ended == ["done"]


async def test_a_disconnect_from_inside_the_last_send_interrupts_nothing() -> None:
    """Hypercorn reports it there, and has work of its own to do afterwards."""
    finished: list[str] = []

    class Reporting(Server):
        async def send(self, message: Message) -> None:
            await super().send(message)
            if message == LAST:
                self.disconnect()
                await wait_all_tasks_blocked()
                finished.append("the server's own work")

    async def application(scope: Any, receive: Any, send: Any) -> None:
        """As Quart-Trio: whichever of the two is ready first ends the other."""
        async with trio.open_nursery() as nursery:

            async def listen() -> None:
                while (await receive())["type"] != "http.disconnect":
                    pass
                nursery.cancel_scope.cancel()

            nursery.start_soon(listen)
            await not_found(scope, receive, send)
            nursery.cancel_scope.cancel()

    app = DataPlane(application, ScriptedExchange(), max_request_bytes=9, body_timeout_s=9)
    server = Reporting()
    server.body(b"", more=False)
    await app(scope(path="/elsewhere"), server.receive, server.send)
    assert finished == ["the server's own work"]


async def test_a_last_send_that_never_ends_is_cancelled(
    autojump_clock: trio.testing.MockClock,
) -> None:
    start = trio.current_time()

    class Stuck(Server):
        async def send(self, message: Message) -> None:
            if message == LAST:
                await trio.sleep_forever()
            await super().send(message)

    exchange = ScriptedExchange()
    server = Stuck()
    server.body(b"", more=False)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(plane(exchange), scope(), server.receive, server.send)
        await wait_all_tasks_blocked()
        server.disconnect()
    assert exchange.ended == ["cancelled"]
    assert trio.current_time() - start == pytest.approx(ENDING_S)
