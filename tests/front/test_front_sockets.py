"""The front end under Hypercorn over real sockets: what a client sees when things are cut."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import httpx
import pytest
import trio
from front_fakes import KEY, answer_ok, read_all
from hypercorn_site import (
    PIECE,
    PIECES,
    front_end,
    refuse,
    stream_then_abort,
    stream_then_wait,
    write_a_lot,
)
from trio.testing import wait_all_tasks_blocked

from proxy.front import asgi

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from proxy.exchange.ports import RequestReader, ResponseWriter


def post(body: bytes = b"", headers: bytes = b"", path: bytes = b"/v1/x") -> bytes:
    head = b"POST %b HTTP/1.1\r\nhost: h\r\n%b" % (path, headers)
    if b"-encoding" not in headers and b"-length" not in headers:
        head += b"content-length: %d\r\n" % len(body)
    return head + b"\r\n" + body


async def read_to_end(stream: trio.SocketStream) -> bytes:
    received = bytearray()
    while chunk := await stream.receive_some():
        received += chunk
    return bytes(received)


async def read_until(stream: trio.SocketStream, end: bytes) -> bytes:
    received = bytearray()
    while end not in received:
        chunk = await stream.receive_some()
        assert chunk, f"closed after {bytes(received)!r}"
        received += chunk
    return bytes(received)


# --- HTTP/1.1


async def test_a_whole_exchange_and_the_next_on_the_same_connection() -> None:
    async def echo(reader: RequestReader, writer: ResponseWriter) -> None:
        await writer.respond(200, [(b"x-path", reader.path.encode())], await read_all(reader))

    async with front_end(echo) as site:
        stream = await site.connect()
        await stream.send_all(post(b"one"))
        assert (await read_until(stream, b"one")).startswith(b"HTTP/1.1 200")
        await stream.send_all(post(b"two", path=b"/v1/a%20b"))
        assert b"x-path: /v1/a b\r\n" in await read_until(stream, b"two")
        await stream.send_all(b"GET /healthz HTTP/1.1\r\nhost: h\r\n\r\n")
        assert b"alive" in await read_until(stream, b"}")


async def test_a_request_in_ten_byte_pieces() -> None:
    async def echo(reader: RequestReader, writer: ResponseWriter) -> None:
        await writer.respond(200, [], await read_all(reader))

    request = post(
        b"".join(b"5\r\nhello\r\n" for _ in range(9)) + b"0\r\n\r\n",
        b"transfer-encoding: chunked\r\n",
    )
    async with front_end(echo) as site:
        stream = await site.connect()
        for start in range(0, len(request), 10):
            await stream.send_all(request[start : start + 10])
        assert b"\r\n\r\n" + b"hello" * 9 in await read_until(stream, b"hello" * 9)


async def test_pieces_of_an_answer_arrive_one_by_one() -> None:
    taken = [trio.Event() for _ in range(3)]

    async def script(reader: RequestReader, writer: ResponseWriter) -> None:
        await read_all(reader)
        await writer.start(200, [])
        for number, event in enumerate(taken):
            await writer.write(b"piece %d" % number)
            await event.wait()
        await writer.finish()

    async with front_end(script) as site:
        stream = await site.connect()
        await stream.send_all(post())
        for number, event in enumerate(taken):
            await read_until(stream, b"piece %d\r\n" % number)
            event.set()
        await read_until(stream, b"0\r\n\r\n")


async def test_an_aborted_stream_ends_without_its_last_chunk() -> None:
    async with front_end(stream_then_abort) as site:
        stream = await site.connect()
        await stream.send_all(post())
        received = await read_to_end(stream)
        assert received.endswith(b"data: first\n\n\r\n")
        async with httpx.AsyncClient() as client:
            with pytest.raises(httpx.RemoteProtocolError, match="incomplete chunked read"):
                await client.post(f"{site.url}/v1/x")


async def test_an_aborted_answer_of_known_length_falls_short() -> None:
    async def script(reader: RequestReader, writer: ResponseWriter) -> None:
        await read_all(reader)
        await writer.start(200, [(b"content-length", b"10")])
        await writer.write(b"five!")
        writer.abort()

    async with front_end(script) as site:
        stream = await site.connect()
        await stream.send_all(post())
        head, _, body = (await read_to_end(stream)).partition(b"\r\n\r\n")
        assert b"content-length: 10" in head
        assert body == b"five!"


async def test_a_bug_in_the_middle_of_a_stream_cuts_it(caplog: pytest.LogCaptureFixture) -> None:
    async def script(reader: RequestReader, writer: ResponseWriter) -> None:
        await writer.start(200, [])
        await writer.write(b"part")
        raise RuntimeError("the cause")

    async with front_end(script) as site:
        stream = await site.connect()
        await stream.send_all(post())
        assert (await read_to_end(stream)).endswith(b"part\r\n")
    assert "the cause" in caplog.text


@pytest.mark.parametrize("sent", [post(b"half", b"content-length: 8\r\n"), post(b"whole")])
async def test_a_client_that_leaves_cancels(sent: bytes) -> None:
    async def script(reader: RequestReader, writer: ResponseWriter) -> None:
        await read_all(reader)
        await trio.sleep_forever()

    async with front_end(script) as site:
        stream = await site.connect()
        await stream.send_all(sent)
        await wait_all_tasks_blocked(0.02)
        await stream.aclose()
        assert await site.exchange.wait_ended() == ["cancelled"]


async def test_a_client_that_leaves_a_stream_cancels() -> None:
    async with front_end(stream_then_wait) as site:
        stream = await site.connect()
        await stream.send_all(post())
        await read_until(stream, b"first")
        await stream.aclose()
        assert await site.exchange.wait_ended() == ["cancelled"]


async def test_what_follows_the_answer_is_not_cancelled() -> None:
    settle = trio.Event()

    async def script(reader: RequestReader, writer: ResponseWriter) -> None:
        await answer_ok(reader, writer)
        await settle.wait()

    async with front_end(script) as site:
        stream = await site.connect()
        await stream.send_all(post())
        await read_until(stream, b"ok")
        await stream.aclose()
        await wait_all_tasks_blocked(0.02)
        settle.set()
        assert await site.exchange.wait_ended() == ["done"]


async def test_a_client_that_reads_slowly_slows_the_exchange() -> None:
    written = [0]
    async with front_end(partial(write_a_lot, written=written)) as site:
        stream = await site.connect()
        await stream.send_all(post())
        await wait_all_tasks_blocked(0.05)
        assert 0 < written[0] < PIECES // 2
        received = len((await read_until(stream, b"\r\n\r\n")).partition(b"\r\n\r\n")[2])
        while received < len(PIECE) * PIECES:
            received += len(await stream.receive_some())
        assert received == len(PIECE) * PIECES
        assert await site.exchange.wait_ended() == ["done"]


async def test_a_client_that_leaves_without_having_read_cancels() -> None:
    written = [0]
    async with front_end(partial(write_a_lot, written=written)) as site:
        stream = await site.connect()
        await stream.send_all(post())
        await wait_all_tasks_blocked(0.05)
        await stream.aclose()
        assert await site.exchange.wait_ended() == ["cancelled"]


async def test_an_early_answer_reaches_a_client_that_is_still_sending() -> None:
    async with front_end(refuse) as site:
        async with httpx.AsyncClient() as client:
            answer = await client.post(f"{site.url}/v1/x", content=b"x" * 5_000_000)
        assert (answer.status_code, answer.content) == (401, b"no")
        assert await site.exchange.wait_ended() == ["done"]


async def start_then_abort(reader: RequestReader, writer: ResponseWriter) -> None:
    await writer.start(200, [])
    await wait_all_tasks_blocked(0.02)  # until the server's queue is full of the upload
    writer.abort()


@pytest.mark.parametrize("script", [refuse, start_then_abort])
async def test_an_endless_upload_leaves_nothing_behind(
    script: Callable[..., Awaitable[None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hypercorn queues ten messages for a request; more than that must not block its end."""
    monkeypatch.setattr(asgi, "LINGER_S", 0.05)
    async with front_end(script) as site:
        stream = await site.connect()
        await stream.send_all(post(b"", b"content-length: 900000000\r\n"))
        with pytest.raises(trio.BrokenResourceError):
            while True:
                await stream.send_all(b"x" * 65536)
        assert await site.exchange.wait_ended() == ["done"]


async def test_head_has_no_body() -> None:
    async with front_end() as site, httpx.AsyncClient() as client:
        for path in ("/v1/models", "/healthz", "/", "/openapi.json"):
            answer = await client.head(f"{site.url}{path}")
            assert (answer.status_code, answer.content) == (200, b"")
            assert int(answer.headers["content-length"]) > 0


@pytest.mark.parametrize("path", [b"/healthz", b"/admin/instances", b"/v1/models"])
async def test_an_idle_connection_is_closed_after_an_answer(path: bytes) -> None:
    async with front_end(keep_alive_s=0.1) as site:
        stream = await site.connect()
        key = b"x-admin-api-key: " + KEY["X-Admin-API-Key"].encode()
        await stream.send_all(b"GET %b HTTP/1.1\r\nhost: h\r\n%b\r\n\r\n" % (path, key))
        with trio.fail_after(5):
            assert (await read_to_end(stream)).startswith(b"HTTP/1.1 200")


async def test_a_target_that_is_a_whole_url() -> None:
    async with front_end() as site:
        for target, status in [
            (b"http://h/v1/x", b"200"),
            (b"?", b"200"),
            (b"http://h/no", b"404"),
        ]:
            stream = await site.connect()
            await stream.send_all(b"GET %b HTTP/1.1\r\nhost: h\r\n\r\n" % target)
            assert (await read_until(stream, b"\r\n\r\n")).startswith(b"HTTP/1.1 " + status)
            await stream.aclose()


@pytest.mark.parametrize("path", [b"/v1/realtime", b"/admin/instances", b"/healthz"])
async def test_a_websocket_is_turned_away(path: bytes, caplog: pytest.LogCaptureFixture) -> None:
    handshake = (
        b"GET %b HTTP/1.1\r\nhost: h\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
        b"sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    async with front_end() as site:
        stream = await site.connect()
        await stream.send_all(handshake % path)
        assert (await read_until(stream, b"\r\n\r\n")).startswith(b"HTTP/1.1 4")
    assert not caplog.records


HANDSHAKE = (
    b"GET /v1/realtime HTTP/1.%d\r\nhost: h\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
    b"sec-websocket-version: %d\r\n%b\r\n"
)
WS_KEY = b"sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n"


@pytest.mark.parametrize(
    "sent",
    [
        HANDSHAKE % (1, 13, b""),
        HANDSHAKE % (1, 12, WS_KEY),
        HANDSHAKE % (0, 13, WS_KEY),
        HANDSHAKE % (1, 13, WS_KEY),
        HANDSHAKE % (1, 13, WS_KEY) + b"\x81\x00",
    ],
    ids=["no key", "version 12", "HTTP/1.0", "well-formed", "a message too early"],
)
async def test_a_websocket_that_is_turned_away_does_not_stay_open(sent: bytes) -> None:
    async with front_end() as site:
        stream = await site.connect()
        await stream.send_all(sent)
        with trio.fail_after(5):
            assert (await read_to_end(stream)).startswith(b"HTTP/1.1 4")
