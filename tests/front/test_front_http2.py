"""HTTP/2 under Hypercorn over real sockets: cut, slow and silent clients."""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import h2.config
import h2.connection
import h2.events
import priority
import pytest
import trio
from front_fakes import answer_ok, read_all
from h2.errors import ErrorCodes
from h2.settings import SettingCodes
from hypercorn_site import Site, front_end, refuse, stream_then_abort, stream_then_wait, write_a_lot
from trio.testing import wait_all_tasks_blocked

from proxy.front import asgi
from proxy.front import http2 as http2_repairs

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from proxy.exchange.ports import RequestReader, ResponseWriter


async def stream_endlessly(reader: RequestReader, writer: ResponseWriter) -> None:
    await read_all(reader)
    await writer.start(200, [(b"content-type", b"text/event-stream")])
    while True:
        await writer.write(b"data: next\n\n")


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
