"""Answers over ASGI: whole, in pieces, cut, and of an exchange with a bug."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest
import trio
from asgi_server import LAST, Server, conversation, plane, scope
from front_fakes import ScriptedExchange, read_all
from trio.testing import wait_all_tasks_blocked

from proxy.front.asgi import LINGER_S

if TYPE_CHECKING:
    from proxy.exchange.ports import RequestReader, ResponseWriter


# --- the answer


async def test_a_complete_answer() -> None:
    async def script(reader: RequestReader, writer: ResponseWriter) -> None:
        assert not writer.started
        headers = [(b"content-type", b"text/plain"), (b"content-length", b"999")]
        await writer.respond(201, headers, b"four")
        assert writer.started

    async with conversation(plane(ScriptedExchange(script))) as server:
        server.body(b"", more=False)
    assert server.status == 201
    assert server.headers == [(b"content-type", b"text/plain"), (b"content-length", b"4")]
    assert server.answer == b"four"
    assert server.complete


@pytest.mark.parametrize("status", [204, 304])
async def test_a_status_without_a_body_has_no_length(status: int) -> None:
    async def script(reader: RequestReader, writer: ResponseWriter) -> None:
        await writer.respond(status, [(b"etag", b"1")], b"")

    async with conversation(plane(ScriptedExchange(script))) as server:
        server.body(b"", more=False)
    assert server.headers == [(b"etag", b"1")]


async def test_pieces_of_an_answer_go_out_one_by_one() -> None:
    next_piece = [trio.Event() for _ in range(3)]

    async def script(reader: RequestReader, writer: ResponseWriter) -> None:
        await read_all(reader)
        await writer.start(200, [(b"content-type", b"text/event-stream")])
        for number, event in enumerate(next_piece):
            await event.wait()
            await writer.write(b"")
            await writer.write(b"piece %d" % number)
        await writer.finish()

    async with conversation(plane(ScriptedExchange(script))) as server:
        server.body(b"", more=False)
        assert (await server.next_sent())["type"] == "http.response.start"
        for number, event in enumerate(next_piece):
            event.set()
            message = await server.next_sent()
            assert (message["body"], message["more_body"]) == (b"piece %d" % number, True)
        assert await server.next_sent() == LAST


async def test_a_client_that_takes_nothing_holds_the_exchange_back() -> None:
    written: list[int] = []

    async def script(reader: RequestReader, writer: ResponseWriter) -> None:
        await read_all(reader)
        await writer.start(200, [])
        for number in range(3):
            await writer.write(b"x")
            written.append(number)
        await writer.finish()

    async with conversation(plane(ScriptedExchange(script))) as server:
        server.body(b"", more=False)
        await server.next_sent()
        server.open = trio.Event()
        await wait_all_tasks_blocked()
        held_at = len(written)
        server.open.set()
    assert held_at <= 1
    assert written == [0, 1, 2]


HEADERS = [
    (b"x-kept", b"a b\tc"),
    (b"x-latin", b"caf\xe9"),
    (b"x-empty", b""),
    (b"x-split", b"a\r\nset-cookie: b"),
    (b"x-newline", b"a\nb"),
    (b"x-null", b"a\x00b"),
    (b"bad name", b"a"),
    (b"bad\r\nname", b"a"),
    (b"", b"a"),
    (b"transfer-encoding", b"chunked"),
    (b"keep-alive", b"timeout=5"),
    (b"upgrade", b"h2c"),
    (b"connection", b"close"),
]


@pytest.mark.parametrize(("version", "connection"), [("1.0", 1), ("1.1", 1), ("2", 0), ("3", 0)])
async def test_headers_that_may_not_be_sent(version: str, connection: int) -> None:
    async def script(reader: RequestReader, writer: ResponseWriter) -> None:
        await writer.start(200, HEADERS)
        await writer.finish()

    async with conversation(plane(ScriptedExchange(script)), http_version=version) as server:
        server.body(b"", more=False)
    assert server.headers == HEADERS[:3] + HEADERS[-1:] * connection


async def test_an_aborted_answer_has_no_end() -> None:
    async def script(reader: RequestReader, writer: ResponseWriter) -> None:
        await read_all(reader)
        await writer.start(200, [])
        await writer.write(b"part")
        writer.abort()

    async with conversation(plane(ScriptedExchange(script))) as server:
        server.body(b"", more=False)
        await server.returned.wait()
    assert server.answer == b"part"
    assert not server.complete


async def test_an_answer_before_the_end_of_the_request_waits_for_it_a_little(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def script(reader: RequestReader, writer: ResponseWriter) -> None:
        await writer.respond(401, [], b"no")

    start = trio.current_time()
    async with conversation(plane(ScriptedExchange(script))) as server:
        server.body(b"x" * 5000)
        while server.answer != b"no":
            await server.next_sent()
        assert trio.current_time() == start
        assert not server.complete
        await trio.sleep(LINGER_S / 2)
        for _ in range(50):
            server.body(b"x" * 5000)
        server.body(b"", more=False)
        await server.returned.wait()
    assert trio.current_time() - start == pytest.approx(LINGER_S / 2)
    assert server.complete


@pytest.mark.parametrize("ending", ["respond", "abort"])
async def test_a_request_without_end_is_not_waited_for_long(
    ending: str, autojump_clock: trio.testing.MockClock
) -> None:
    async def script(reader: RequestReader, writer: ResponseWriter) -> None:
        if ending == "respond":
            await writer.respond(401, [], b"no")
        else:
            await writer.start(200, [])
            writer.abort()

    async with conversation(plane(ScriptedExchange(script))) as server:
        start = trio.current_time()
        while not server.returned.is_set():
            server.body(b"x" * 100)
            await trio.sleep(0.1)
        assert trio.current_time() - start < LINGER_S + 0.5
    assert server.complete == (ending == "respond")


# --- an exchange with a bug


async def test_a_bug_before_the_answer_is_a_500(caplog: pytest.LogCaptureFixture) -> None:
    async def script(reader: RequestReader, writer: ResponseWriter) -> None:
        raise RuntimeError("the cause")

    headers = [(b"x-request-id", b"abc-1")]
    with caplog.at_level(logging.ERROR):
        async with conversation(plane(ScriptedExchange(script)), headers=headers) as server:
            server.body(b"", more=False)
    assert server.status == 500
    assert server.complete
    assert b'"internal_error"' in server.answer
    assert b"the cause" not in server.answer
    assert (b"x-request-id", b"abc-1") in server.headers
    assert "abc-1" in caplog.text
    assert "the cause" in caplog.text


async def test_no_answer_at_all_is_a_500(caplog: pytest.LogCaptureFixture) -> None:
    async def script(reader: RequestReader, writer: ResponseWriter) -> None:
        pass

    async with conversation(plane(ScriptedExchange(script))) as server:
        server.body(b"", more=False)
    assert (server.status, server.complete) == (500, True)
    assert caplog.records


async def test_a_bug_in_the_middle_of_the_answer_cuts_it(caplog: pytest.LogCaptureFixture) -> None:
    async def script(reader: RequestReader, writer: ResponseWriter) -> None:
        await writer.start(200, [])
        await writer.write(b"part")
        raise RuntimeError("the cause")

    async with conversation(plane(ScriptedExchange(script))) as server:
        server.body(b"", more=False)
    assert (server.status, server.answer, server.complete) == (200, b"part", False)
    assert "the cause" in caplog.text


async def test_a_cancelled_server_cancels_the_exchange() -> None:
    exchange = ScriptedExchange()
    server = Server()
    with trio.move_on_after(0.01) as limit:
        await plane(exchange)(scope(), server.receive, server.send)
    assert limit.cancelled_caught
    assert exchange.ended == ["cancelled"]
    assert server.sent == []
