"""Request bodies over ASGI: in pieces, held back, bounded in length and time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio
from asgi_server import conversation, plane
from front_fakes import ScriptedExchange, answer_ok, read_all
from trio.testing import wait_all_tasks_blocked

from proxy.errors import BodyTooLarge, RequestTimeout

if TYPE_CHECKING:
    from proxy.exchange.ports import RequestReader, ResponseWriter


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
