"""The front end under Hypercorn over real sockets: what a client sees when things are cut."""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import h2.config
import h2.connection
import h2.events
import httpx
import priority
import pytest
import trio
from front_fakes import KEY, ScriptedExchange, answer_ok, config, front, read_all
from h2.errors import ErrorCodes
from h2.settings import SettingCodes
from hypercorn.config import Config
from hypercorn.trio import serve
from trio.testing import wait_all_tasks_blocked

from proxy.front import asgi, websocket
from proxy.front import http2 as http2_repairs

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from proxy.exchange.ports import RequestReader, ResponseWriter

http2_repairs.install()
websocket.install()


class Site:
    """A front end under Hypercorn on a port of its own."""

    def __init__(self, port: int, exchange: ScriptedExchange) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.exchange = exchange
        self.streams: list[trio.SocketStream] = []

    async def connect(self) -> trio.SocketStream:
        """A connection that is closed with the site."""
        self.streams.append(await trio.open_tcp_stream("127.0.0.1", self.port))
        return self.streams[-1]


@asynccontextmanager
async def front_end(
    script: Callable[..., Awaitable[None]] = answer_ok, *, keep_alive_s: float = 60
) -> AsyncIterator[Site]:
    """A front end whose exchange does `script`."""
    exchange = ScriptedExchange(script)
    app = front(config(), exchange=exchange)
    stop = trio.Event()
    hypercorn = Config()
    hypercorn.bind = ["127.0.0.1:0"]
    hypercorn.errorlog = None
    hypercorn.keep_alive_timeout = keep_alive_s
    serving = partial(serve, app, hypercorn, shutdown_trigger=stop.wait)
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            (url,) = await nursery.start(serving)
            site = Site(int(url.rpartition(":")[2]), exchange)
            yield site
            for stream in site.streams:
                await stream.aclose()
            stop.set()


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


async def stream_then_wait(reader: RequestReader, writer: ResponseWriter) -> None:
    await read_all(reader)
    await writer.start(200, [(b"content-type", b"text/event-stream")])
    await writer.write(b"data: first\n\n")
    await trio.sleep_forever()


async def stream_endlessly(reader: RequestReader, writer: ResponseWriter) -> None:
    await read_all(reader)
    await writer.start(200, [(b"content-type", b"text/event-stream")])
    while True:
        await writer.write(b"data: next\n\n")


async def stream_then_abort(reader: RequestReader, writer: ResponseWriter) -> None:
    await read_all(reader)
    await writer.start(200, [(b"content-type", b"text/event-stream")])
    await writer.write(b"data: first\n\n")
    writer.abort()


async def refuse(reader: RequestReader, writer: ResponseWriter) -> None:
    await writer.respond(401, [], b"no")


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


PIECE = b"x" * 65536
PIECES = 1000


async def write_a_lot(reader: RequestReader, writer: ResponseWriter, written: list[int]) -> None:
    await read_all(reader)
    await writer.start(200, [(b"content-length", b"%d" % (len(PIECE) * PIECES))])
    for _ in range(PIECES):
        await writer.write(PIECE)
        written[0] += 1
    await writer.finish()


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


# --- HTTP/2


class Http2Client:
    """One HTTP/2 connection in clear text, by prior knowledge."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self.http = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
        self.http.initiate_connection()

    def get(self, path: str) -> int:
        return self.request("GET", path, end=True)

    def post(self, *, end: bool, path: str = "/v1/x") -> int:
        return self.request("POST", path, end=end)

    def request(self, method: str, path: str, *more: tuple[str, str], end: bool) -> int:
        number = self.http.get_next_available_stream_id()
        fields = [(":method", method), (":path", path), (":scheme", "http"), (":authority", "h")]
        fields += more
        self.http.send_headers(number, fields, end_stream=end)
        return number

    async def flush(self) -> None:
        await self.stream.send_all(self.http.data_to_send())

    async def ended(self) -> None:
        """The server has ended the connection."""
        await self.flush()
        while chunk := await self.stream.receive_some():
            self.http.receive_data(chunk)

    async def events_until(self, kind: type[h2.events.Event], number: int) -> list[Any]:
        """All events up to the first of `kind` on stream `number`."""
        seen: list[Any] = []
        await self.flush()
        while True:
            chunk = await self.stream.receive_some()
            assert chunk, f"closed after {seen}"
            for event in self.http.receive_data(chunk):
                seen.append(event)
                if isinstance(event, h2.events.DataReceived):
                    self.http.acknowledge_received_data(
                        event.flow_controlled_length, event.stream_id
                    )
                if isinstance(event, kind) and event.stream_id == number:
                    await self.flush()
                    return seen
            await self.flush()


def content(events: list[Any]) -> bytes:
    return b"".join(each.data for each in events if isinstance(each, h2.events.DataReceived))


def status(events: list[Any]) -> bytes:
    (answer,) = [each for each in events if isinstance(each, h2.events.ResponseReceived)]
    return dict(answer.headers)[b":status"]


@asynccontextmanager
async def http2(site: Site) -> AsyncIterator[Http2Client]:
    async with await site.connect() as stream:
        yield Http2Client(stream)


async def test_a_whole_exchange_over_http2() -> None:
    async def echo(reader: RequestReader, writer: ResponseWriter) -> None:
        headers = [(b"connection", b"close"), (b"x-kept", b"1")]
        await writer.respond(200, headers, await read_all(reader))

    async with front_end(echo) as site, http2(site) as client:
        for body in (b"one", b"x" * 100_000):
            number = client.post(end=False)
            for start in range(0, len(body), 10_000):
                client.http.send_data(number, body[start : start + 10_000])
                await client.flush()
                if start % 50_000 == 40_000:
                    await client.events_until(h2.events.WindowUpdated, number)
            client.http.end_stream(number)
            events = await client.events_until(h2.events.StreamEnded, number)
            assert (status(events), content(events)) == (b"200", body)


async def test_an_aborted_http2_stream_is_reset_after_what_was_written() -> None:
    async with front_end(stream_then_abort) as site, http2(site) as client:
        number = client.post(end=True)
        events = await client.events_until(h2.events.StreamReset, number)
        assert content(events) == b"data: first\n\n"
        assert events[-1].error_code == ErrorCodes.INTERNAL_ERROR
        assert not any(isinstance(event, h2.events.StreamEnded) for event in events)
        again = client.get("/healthz")
        assert status(await client.events_until(h2.events.StreamEnded, again)) == b"200"


async def test_an_aborted_http2_stream_loses_nothing_that_was_written() -> None:
    written = b"x" * 32_000  # more than one frame, less than what makes the exchange wait

    async def script(reader: RequestReader, writer: ResponseWriter) -> None:
        await read_all(reader)
        await writer.start(200, [])
        await writer.write(written)
        writer.abort()

    async with front_end(script) as site, http2(site) as client:
        events = await client.events_until(h2.events.StreamReset, client.post(end=True))
        assert content(events) == written


@pytest.fixture
def little_room(monkeypatch: pytest.MonkeyPatch) -> int:
    """Streams that fit into Hypercorn's table of priorities; one more is an error there."""
    room = 20
    monkeypatch.setattr(priority, "PriorityTree", partial(priority.PriorityTree, room))
    return room


async def test_aborted_http2_streams_leave_no_trace(little_room: int) -> None:
    async with front_end(stream_then_abort) as site, http2(site) as client:
        for _ in range(little_room + 1):
            await client.events_until(h2.events.StreamReset, client.post(end=True))


async def test_an_http2_client_that_resets_its_stream_cancels() -> None:
    async with front_end(stream_then_wait) as site, http2(site) as client:
        number = client.post(end=True)
        await client.events_until(h2.events.DataReceived, number)
        client.http.reset_stream(number)
        await client.flush()
        assert await site.exchange.wait_ended() == ["cancelled"]


async def test_an_http2_client_that_leaves_cancels() -> None:
    async with front_end(stream_then_wait) as site:
        async with http2(site) as client:
            await client.events_until(h2.events.DataReceived, client.post(end=True))
        assert await site.exchange.wait_ended() == ["cancelled"]


async def test_an_http2_client_that_reads_slowly_slows_the_exchange() -> None:
    written = [0]
    async with front_end(partial(write_a_lot, written=written)) as site:
        async with http2(site) as client:
            client.post(end=True)
            await client.flush()
            await wait_all_tasks_blocked(0.05)
            assert 0 < written[0] < 10
        assert await site.exchange.wait_ended() == ["cancelled"]


@pytest.mark.parametrize("script", ["large answer", "small answer", "stream"])
async def test_an_http2_client_that_takes_nothing_is_given_up(
    script: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http2_repairs, "STALL_S", 0.1)
    scripts = {
        "large answer": partial(write_a_lot, written=[0]),
        "small answer": answer_ok,
        "stream": stream_endlessly,
    }
    async with front_end(scripts[script]) as site, http2(site) as client:
        client.http.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 0})
        events = await client.events_until(h2.events.StreamReset, client.post(end=True))
        assert status(events) == b"200"
        await site.exchange.wait_ended()
        client.http.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 65_535})
        again = client.get("/healthz")  # the connection is as good as before
        assert status(await client.events_until(h2.events.StreamEnded, again)) == b"200"


async def test_an_http2_client_that_takes_little_at_a_time_gets_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(http2_repairs, "STALL_S", 0.2)

    async def script(reader: RequestReader, writer: ResponseWriter) -> None:
        await writer.respond(200, [], b"x" * 100)

    async with front_end(script) as site, http2(site) as client:
        client.http.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 0})
        number = client.post(end=True)
        await client.events_until(h2.events.ResponseReceived, number)
        for _ in range(4):
            await trio.sleep(0.1)  # less than `STALL_S`, together more
            client.http.increment_flow_control_window(25, number)
            await client.flush()
        assert content(await client.events_until(h2.events.StreamEnded, number)) == b"x" * 100


async def test_a_pause_of_the_upstreams_is_no_stall(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http2_repairs, "STALL_S", 0.05)

    async def script(reader: RequestReader, writer: ResponseWriter) -> None:
        await read_all(reader)
        await writer.start(200, [])
        for _ in range(2):
            await writer.write(b"x" * 40_000)  # more than is buffered
            await trio.sleep(0.1)
        await writer.finish()

    async with front_end(script) as site, http2(site) as client:
        events = await client.events_until(h2.events.StreamEnded, client.post(end=True))
        assert content(events) == b"x" * 80_000


@pytest.mark.parametrize("what", ["reset", "malformed websocket", "nothing"])
async def test_an_http2_connection_on_which_nothing_goes_on_ends(what: str) -> None:
    async with front_end(stream_then_wait, keep_alive_s=0.1) as site, http2(site) as client:
        if what == "reset":
            number = client.post(end=True)
            await client.events_until(h2.events.DataReceived, number)
            client.http.reset_stream(number)
        elif what == "malformed websocket":
            protocol = (":protocol", "websocket")
            number = client.request("CONNECT", "/v1/realtime", protocol, end=False)
            events = await client.events_until(h2.events.StreamEnded, number)
            assert status(events) == b"400"
        with trio.fail_after(5):
            await client.ended()


@pytest.mark.parametrize("path", ["/v1/x", "/admin/instances", "/nowhere"])
async def test_http2_data_after_the_answer_harms_nobody(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes no key to send it."""
    monkeypatch.setattr(asgi, "LINGER_S", 0.05)
    async with front_end(refuse) as site, http2(site) as client:
        number = client.post(end=False, path=path)
        events = await client.events_until(h2.events.DataReceived, number)
        assert status(events) in (b"401", b"404")
        await client.events_until(h2.events.StreamEnded, number)
        client.http.send_data(number, b"late")
        events = await client.events_until(h2.events.StreamReset, number)
        assert events[-1].error_code == ErrorCodes.NO_ERROR
        again = client.get("/healthz")
        assert status(await client.events_until(h2.events.StreamEnded, again)) == b"200"


async def test_late_http2_data_does_not_use_up_the_connection() -> None:
    async with front_end(refuse) as site, http2(site) as client:
        for _ in range(20):
            number = client.post(end=False, path="/nowhere")
            await client.events_until(h2.events.StreamEnded, number)
            client.http.send_data(number, b"x" * 10_000)
            await client.events_until(h2.events.StreamReset, number)
