"""The data plane as ASGI: the tests play the server, message by message."""

from __future__ import annotations

import logging
import math
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio
from front_fakes import ScriptedExchange, answer_ok, front, read_all
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import wait_all_tasks_blocked

from proxy.errors import BodyTooLarge, RequestTimeout
from proxy.front.asgi import (
    ENDING_S,
    LINGER_S,
    AnswerWriter,
    BodyReader,
    Call,
    DataPlane,
    declared_length,
    target_path,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from proxy.exchange.ports import RequestReader, ResponseWriter

Message = dict[str, Any]
LAST = {"type": "http.response.body", "body": b"", "more_body": False}


class Server:
    """One request as an ASGI server would present it. `sent`: what the application has sent."""

    def __init__(self) -> None:
        self.sent: list[Message] = []
        self.open = trio.Event()
        """While not set, the client takes nothing: `send` waits."""
        self.open.set()
        self.returned = trio.Event()
        self._to_app, self._for_app = trio.open_memory_channel[Message](math.inf)
        self._from_app, self._news = trio.open_memory_channel[Message](math.inf)

    def body(self, data: bytes, *, more: bool = True) -> None:
        self._to_app.send_nowait({"type": "http.request", "body": data, "more_body": more})

    def disconnect(self) -> None:
        self._to_app.send_nowait({"type": "http.disconnect"})

    async def next_sent(self) -> Message:
        return await self._news.receive()

    async def receive(self) -> Message:
        return await self._for_app.receive()

    async def send(self, message: Message) -> None:
        await self.open.wait()
        await trio.lowlevel.checkpoint()
        self.sent.append(message)
        self._from_app.send_nowait(message)

    @property
    def status(self) -> int:
        return self.sent[0]["status"]

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        return self.sent[0]["headers"]

    @property
    def answer(self) -> bytes:
        return b"".join(message["body"] for message in self.sent[1:])

    @property
    def complete(self) -> bool:
        return self.sent[-1:] == [LAST]


def scope(method: str = "POST", path: str = "/v1/x", **fields: Any) -> dict[str, Any]:
    return {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [],
        "http_version": "1.1",
        "scheme": "http",
        "root_path": "",
        "client": ("127.0.0.1", 1),
        **fields,
    }


@asynccontextmanager
async def conversation(app: Any, **fields: Any) -> AsyncIterator[Server]:
    """The application at work on one request; leaving waits until it has returned."""
    server = Server()

    async def run() -> None:
        await app(scope(**fields), server.receive, server.send)
        server.returned.set()

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run)
            yield server


def plane(exchange: ScriptedExchange, limit: int = 1000, timeout_s: float = 30.0) -> DataPlane:
    return DataPlane(not_found, exchange, max_request_bytes=limit, body_timeout_s=timeout_s)


async def not_found(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 404, "headers": []})
    await send(LAST)


# --- the request


async def test_what_the_reader_shows() -> None:
    seen: dict[str, Any] = {}

    async def script(reader: RequestReader, writer: ResponseWriter) -> None:
        seen.update(
            method=reader.method, path=reader.path, query=reader.query, headers=reader.headers
        )
        await answer_ok(reader, writer)

    sent = [(b"a", b"1"), (b"a", b"2"), (b"host", b"h"), (b"odd", b"1\r\nevil:\n2\x00")]
    headers = [*sent[:3], (b"odd", b"1  evil: 2 ")]
    fields = {"path": "/v1/models/a b", "query_string": b"x=%20", "headers": sent}
    async with conversation(plane(ScriptedExchange(script)), method="get", **fields) as server:
        server.body(b"", more=False)
    assert seen == {
        "method": "GET",
        "path": "/v1/models/a b",
        "query": b"x=%20",
        "headers": headers,
    }


@pytest.mark.parametrize("size", [1, 10, 1000])
async def test_a_body_in_pieces_of_any_size(size: int) -> None:
    body = bytes(range(256)) * 3
    seen: list[bytes] = []

    async def script(reader: RequestReader, writer: ResponseWriter) -> None:
        seen.append(await read_all(reader))
        assert await reader.read_chunk() == b""
        assert await reader.read_chunk() == b""
        await writer.respond(200, [], b"")

    async with conversation(plane(ScriptedExchange(script))) as server:
        for start in range(0, len(body), size):
            server.body(body[start : start + size])
            server.body(b"")  # allowed by ASGI, and not the end
        server.body(b"", more=False)
    assert seen == [body]


async def test_the_last_piece_may_come_with_the_end() -> None:
    seen: list[bytes] = []

    async def script(reader: RequestReader, writer: ResponseWriter) -> None:
        seen.append(await read_all(reader))
        await writer.respond(200, [], b"")

    async with conversation(plane(ScriptedExchange(script))) as server:
        server.body(b"one ")
        server.body(b"two", more=False)
    assert seen == [b"one two"]


async def test_a_piece_is_read_before_the_next_has_come() -> None:
    first = trio.Event()

    async def script(reader: RequestReader, writer: ResponseWriter) -> None:
        assert await reader.read_chunk() == b"first"
        first.set()
        assert await reader.read_chunk() == b"second"
        await answer_ok(reader, writer)

    async with conversation(plane(ScriptedExchange(script))) as server:
        server.body(b"first")
        await first.wait()
        server.body(b"second", more=False)
    assert server.status == 200


async def test_an_unread_body_is_held_back() -> None:
    go_on = trio.Event()

    async def script(reader: RequestReader, writer: ResponseWriter) -> None:
        await go_on.wait()
        await answer_ok(reader, writer)

    async with conversation(plane(ScriptedExchange(script))) as server:
        for _ in range(100):
            server.body(b"x")
        await wait_all_tasks_blocked()
        left = server._for_app.statistics().current_buffer_used
        server.body(b"", more=False)
        go_on.set()
    assert left >= 98


async def test_a_declared_body_above_the_limit_is_refused_before_it_comes() -> None:
    async def script(reader: RequestReader, writer: ResponseWriter) -> None:
        for _ in range(2):
            with pytest.raises(BodyTooLarge) as caught:
                await reader.read_chunk()
        await writer.respond(caught.value.status, caught.value.headers(), caught.value.body())

    headers = [(b"content-length", b"1001")]
    async with conversation(plane(ScriptedExchange(script)), headers=headers) as server:
        while not server.answer:
            await server.next_sent()
        server.disconnect()
    assert server.status == 413


@pytest.mark.parametrize("surplus", [0, 1])
async def test_a_body_of_unknown_length_is_counted(surplus: int) -> None:
    async def script(reader: RequestReader, writer: ResponseWriter) -> None:
        try:
            body = await read_all(reader)
        except BodyTooLarge as error:
            await writer.respond(error.status, error.headers(), error.body())
        else:
            await writer.respond(200, [], b"%d" % len(body))

    async with conversation(plane(ScriptedExchange(script))) as server:
        for _ in range(100):
            server.body(b"0123456789")
        server.body(b"x" * surplus, more=False)
    assert server.status == (413 if surplus else 200)


async def test_a_client_that_stops_sending(autojump_clock: trio.testing.MockClock) -> None:
    caught_at: list[float] = []
    start = trio.current_time()

    async def script(reader: RequestReader, writer: ResponseWriter) -> None:
        assert await reader.read_chunk() == b"first"
        await trio.sleep(20)  # our own time, not the client's
        assert await reader.read_chunk() == b"second"
        with pytest.raises(RequestTimeout, match="5 seconds"):
            await reader.read_chunk()
        caught_at.append(trio.current_time() - start)
        await writer.respond(408, [], b"")

    async with conversation(plane(ScriptedExchange(script), timeout_s=5.0)) as server:
        await trio.sleep(2)
        server.body(b"first")
        server.body(b"second")
    assert caught_at == pytest.approx([2 + 20 + 3], abs=0.01)  # what has come buys a little
    assert server.status == 408


async def test_a_large_body_over_a_slow_line_gets_the_time_it_needs(
    autojump_clock: trio.testing.MockClock,
) -> None:
    refused_at: list[float] = []
    start = trio.current_time()

    async def script(reader: RequestReader, writer: ResponseWriter) -> None:
        with pytest.raises(RequestTimeout):
            while await reader.read_chunk():
                pass
        refused_at.append(trio.current_time() - start)
        await writer.respond(408, [], b"")

    app = plane(ScriptedExchange(script), limit=10**6, timeout_s=5.0)
    async with conversation(app) as server:
        for _ in range(10):  # each of them buys a second
            await trio.sleep(1.25)
            server.body(b"x" * 16 * 1024)
    assert refused_at == [10 + 5]


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


# --- what goes where


@pytest.mark.parametrize(
    ("path", "status"), [("/v1/x", 200), ("/openai/v1/x", 200), ("/v1", 404), ("/healthz", 404)]
)
async def test_other_paths_go_to_the_application(path: str, status: int) -> None:
    async with conversation(plane(ScriptedExchange()), path=path) as server:
        server.body(b"", more=False)
    assert server.status == status


async def test_other_scopes_go_to_the_application() -> None:
    seen: list[str] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["type"])

    app = DataPlane(application, ScriptedExchange(), max_request_bytes=1, body_timeout_s=1)
    for kind in ("lifespan", "websocket"):
        await app({**scope(), "type": kind}, None, None)
    assert seen == ["lifespan", "websocket"]


async def test_through_quart() -> None:
    exchange = ScriptedExchange()
    app = front(exchange=exchange)
    async with app.test_app() as running:
        client = running.test_client()
        answer = await client.post("/v1/chat/completions", data=b"{}")
        assert (answer.status_code, await answer.get_data()) == (200, b"ok")
        assert (await client.get("/healthz")).status_code == 200
        async with conversation(app) as server:
            server.body(b"half")
            server.disconnect()
    assert exchange.ended == ["done", "cancelled"]


@pytest.mark.parametrize(
    ("target", "path"),
    [
        ("/v1/x", "/v1/x"),
        ("//v1/x", "//v1/x"),
        ("http://host/v1/x", "/v1/x"),
        ("http://host:80/", "/"),
        ("http://host", "/"),
        ("http://[", "/"),
        ("*", "/"),
        ("", "/"),
        ("v1/x", "/"),
    ],
)
def test_target_path(target: str, path: str) -> None:
    assert target_path(target) == path


@pytest.mark.parametrize(
    ("value", "length"),
    [
        (None, 0),
        (b"0", 0),
        (b"007", 7),
        (b"12345", 12345),
        (b"-5", 0),
        (b"1e9", 0),
        (b"\xb2", 0),
        (b"9" * 18, 10**18 - 1),
        (b"9" * 10_000, 10**19),
    ],
)
def test_declared_length(value: bytes | None, length: int) -> None:
    headers = [(b"host", b"h")] + ([] if value is None else [(b"content-length", value)])
    assert declared_length(headers) == length


@given(st.lists(st.binary(max_size=20), max_size=30), st.integers(0, 200), st.booleans())
def test_the_reader_gives_the_body_or_refuses_it(
    pieces: list[bytes], limit: int, declared: bool
) -> None:
    body = b"".join(pieces)
    headers = [(b"content-length", b"%d" % len(body))] if declared else []

    async def check() -> None:
        server = Server()
        for piece in pieces:
            server.body(piece)
        server.body(b"", more=False)
        fields = scope(headers=headers)
        call = Call(server.receive, server.send)
        reader = BodyReader(fields, "/v1/x", call, limit_bytes=limit, body_timeout_s=5)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(reader.pump)
            try:
                assert await read_all(reader) == body
                assert len(body) <= limit
            except BodyTooLarge:
                assert len(body) > limit
            await AnswerWriter(fields, reader, call).respond(200, [], b"")
            nursery.cancel_scope.cancel()

    trio.run(check)
