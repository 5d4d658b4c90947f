"""The listener before its app has been loaded, on real sockets."""

from __future__ import annotations

import threading

import pytest
import trio
from engine import ScriptedExchange, get, post, read_answers, receive_all
from listening import small_app

from proxy.server.limits import Limits
from proxy.server.listen import open_listeners
from proxy.server.server import Server


class SlowApp:
    """Loading ends when the test says so."""

    def __init__(self) -> None:
        self.may_load = threading.Event()
        self.reported: list[str] = []

    def load(self):
        self.may_load.wait(10)
        return small_app()

    async def serve(self, nursery: trio.Nursery) -> tuple[Server, trio.SocketStream]:
        listeners = await open_listeners("127.0.0.1", 0, backlog=10)
        server = Server(ScriptedExchange(), self.load, limits=Limits())

        async def run() -> None:
            async with trio.open_nursery() as inner:
                self.reported += await inner.start(server.run, listeners)

        nursery.start_soon(run)
        return server, await trio.open_tcp_stream(*listeners[0].socket.getsockname())


async def test_requests_are_answered_before_the_app_is_there_and_pages_after() -> None:
    late = SlowApp()
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            server, client = await late.serve(nursery)
            await client.send_all(post(b"one"))
            received = b""
            while not received.endswith(b"one"):
                received += await client.receive_some()
            assert late.reported == [], "it is not complete yet"
            await client.send_all(get("/page"))
            late.may_load.set()
            assert read_answers(await receive_all(client))[0].status == 200
            assert late.reported
            await client.aclose()
            await server.drain(1)


@pytest.mark.parametrize("end", ["drain", "abort"])
async def test_it_can_be_stopped_while_the_app_loads(end: str) -> None:
    late = SlowApp()
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            server, client = await late.serve(nursery)
            await client.send_all(get("/page"))
            await trio.testing.wait_all_tasks_blocked(0.01)
            if end == "abort":
                server.abort()
            else:
                nursery.start_soon(server.drain, 0.01)
                late.may_load.set()
            await receive_all(client)
            await client.aclose()
    late.may_load.set()
    assert server.statistics().open == 0


async def test_a_drain_does_not_wait_for_an_app_that_nobody_waits_for() -> None:
    late = SlowApp()
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            server, client = await late.serve(nursery)
            await client.send_all(post(b"one"))
            assert await client.receive_some()
            await server.drain(60)
            assert await client.receive_some() == b"", "it was idle"
            await client.aclose()
    late.may_load.set()


async def test_a_drain_that_waits_for_the_app_ends_in_time() -> None:
    late = SlowApp()
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            server, client = await late.serve(nursery)
            await client.send_all(get("/page"))
            await trio.testing.wait_all_tasks_blocked(0.01)
            await server.drain(0.01)
            assert await receive_all(client) == b""
            await client.aclose()
    late.may_load.set()


async def test_a_page_that_waits_for_the_app_when_a_drain_begins_is_served() -> None:
    late = SlowApp()
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            server, client = await late.serve(nursery)
            await client.send_all(get("/page"))
            await trio.testing.wait_all_tasks_blocked(0.01)
            nursery.start_soon(server.drain, 60)
            await trio.testing.wait_all_tasks_blocked(0.01)
            late.may_load.set()
            assert read_answers(await receive_all(client))[0].status == 200
            await client.aclose()
