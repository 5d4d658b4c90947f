"""The listener before its app has been loaded, on real sockets."""

from __future__ import annotations

import threading
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
import trio
from engine import ScriptedExchange, get, post, read_answers, receive_all
from listening import small_app

from proxy.server.limits import Limits
from proxy.server.listen import open_listeners
from proxy.server.server import Server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@dataclass
class Late:
    """A server whose app is loaded once `may_load` is set, and a client of it."""

    server: Server
    client: trio.SocketStream
    nursery: trio.Nursery
    may_load: threading.Event
    reported: list[str]

    async def ask_for_a_page(self) -> None:
        """Returns when all that can happen without the app has happened."""
        await self.client.send_all(get("/page"))
        await trio.testing.wait_all_tasks_blocked(0.01)


@asynccontextmanager
async def late_app() -> AsyncIterator[Late]:
    """By the end of the block the server must have been stopped; the app may never have come."""
    may_load = threading.Event()
    reported: list[str] = []

    def load() -> Any:
        may_load.wait(10)
        return small_app()

    async def run() -> None:
        async with trio.open_nursery() as inner:
            reported.extend(await inner.start(server.run, listeners))

    with trio.fail_after(10):
        listeners = await open_listeners("127.0.0.1", 0, backlog=10)
        server = Server(ScriptedExchange(), load, limits=Limits())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run)
            client = await trio.open_tcp_stream(*listeners[0].socket.getsockname())
            async with client:
                yield Late(server, client, nursery, may_load, reported)
    may_load.set()


async def test_requests_are_answered_before_the_app_is_there_and_pages_after() -> None:
    async with late_app() as late:
        await late.client.send_all(post(b"one"))
        received = b""
        while not received.endswith(b"one"):
            received += await late.client.receive_some()
        assert late.reported == [], "it is not complete yet"
        await late.client.send_all(get("/page"))
        late.may_load.set()
        assert read_answers(await receive_all(late.client))[0].status == 200
        assert late.reported
        await late.client.aclose()
        await late.server.drain(1)


@pytest.mark.parametrize("end", ["drain", "abort"])
async def test_it_can_be_stopped_while_the_app_loads(end: str) -> None:
    async with late_app() as late:
        await late.ask_for_a_page()
        if end == "abort":
            late.server.abort()
        else:
            late.nursery.start_soon(late.server.drain, 0.01)
            late.may_load.set()
        await receive_all(late.client)
    assert late.server.statistics().open == 0


async def test_a_drain_does_not_wait_for_an_app_that_nobody_waits_for() -> None:
    async with late_app() as late:
        await late.client.send_all(post(b"one"))
        assert await late.client.receive_some()
        await late.server.drain(60)
        assert await late.client.receive_some() == b"", "it was idle"


async def test_a_drain_that_waits_for_the_app_ends_in_time() -> None:
    async with late_app() as late:
        await late.ask_for_a_page()
        await late.server.drain(0.01)
        assert await receive_all(late.client) == b""


async def test_a_page_that_waits_for_the_app_when_a_drain_begins_is_served() -> None:
    async with late_app() as late:
        await late.ask_for_a_page()
        late.nursery.start_soon(late.server.drain, 60)
        await trio.testing.wait_all_tasks_blocked(0.01)
        late.may_load.set()
        assert read_answers(await receive_all(late.client))[0].status == 200
