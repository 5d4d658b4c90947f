"""The listener as a whole on real sockets: handover, TLS, limits, drain."""

from __future__ import annotations

import socket
import ssl

import h2.config
import h2.connection
import h2.events
import httpx
import pytest
import trio
import trustme
from engine import ScriptedExchange, chunked, get, post, read_answers, receive_all
from hypercorn.utils import LifespanFailureError
from listening import listening, reset, small_app
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, Message, Request

from proxy.front.asgi import DataPlane
from proxy.server.limits import Limits
from proxy.server.listen import ListenFailed, open_listeners, raise_open_file_limit, tls_context
from proxy.server.server import Server


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


@pytest.fixture
def server_tls(authority, tmp_path):
    certificate = authority.issue_cert("localhost", "127.0.0.1")
    chain, key = tmp_path / "chain.pem", tmp_path / "key.pem"
    chain.write_bytes(b"".join(pem.bytes() for pem in certificate.cert_chain_pems))
    certificate.private_key_pem.write_to_path(key)
    return tls_context(chain, key)


def client_tls(authority, *protocols: str) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    if protocols:
        context.set_alpn_protocols(list(protocols))
    return context


async def until(condition) -> None:
    """Waits for something that another task does within a moment."""
    while not condition():
        await trio.lowlevel.checkpoint()


async def forever(reader, writer) -> None:
    await trio.sleep_forever()


async def endless(reader, writer) -> None:
    await writer.start(200, [])
    while True:
        await writer.write(b"x" * 65536)


async def test_requests_on_one_connection():
    async with listening() as here:
        client = await here.connect()
        for body in (b"one", b"two" * 100_000):
            await client.send_all(post(body))
            received = b""
            while not received.endswith(body):
                received += await client.receive_some()
            assert read_answers(received)[0].body == body
        await client.aclose()


async def test_other_paths_are_served_by_the_app_and_the_connection_closed():
    async with listening() as here:
        client = await here.connect()
        await client.send_all(post(b"one") + post(b"x" * 100_000, "/page", b"expect: 100-continue"))
        first, second = read_answers(await receive_all(client), "POST", "POST")
        assert first.body == b"one"
        assert second.body == b"x" * 100_000
        assert second.headers[b"connection"] == b"close"
        assert b"server" not in second.headers
    assert here.app.events == ["started", "stopped"]


async def test_an_ordinary_client_does_not_notice():
    async with listening() as here, httpx.AsyncClient(base_url=here.url) as client:
        for _ in range(2):
            assert (await client.post("/v1/x", content=b"hello")).content == b"hello"
            assert (await client.get("/page")).text == "a page"
            assert (await client.get("/nowhere")).status_code == 404


class Http2Client:
    """Just enough HTTP/2 for a GET."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        self.h2.initiate_connection()

    def ask(self, path: str) -> None:
        stream_id = self.h2.get_next_available_stream_id()
        fields = {":method": "GET", ":path": path, ":scheme": "http", ":authority": "x"}
        self.h2.send_headers(stream_id, list(fields.items()), end_stream=True)

    async def get_at_once(self, path: str, count: int) -> None:
        """So many requests have been answered."""
        for _ in range(count):
            self.ask(path)
        while count:
            await self.stream.send_all(self.h2.data_to_send())
            data = await self.stream.receive_some()
            assert data, "the server ended the connection"
            events = self.h2.receive_data(bytes(data))
            assert not any(isinstance(event, h2.events.ConnectionTerminated) for event in events)
            count -= sum(isinstance(event, h2.events.StreamEnded) for event in events)

    async def get(self, path: str) -> tuple[str, bytes]:
        self.ask(path)
        status, body = "", b""
        while True:
            await self.stream.send_all(self.h2.data_to_send())
            data = await self.stream.receive_some()
            assert data, "the server ended the connection"
            for event in self.h2.receive_data(bytes(data)):
                if isinstance(event, h2.events.ResponseReceived):
                    status = dict(event.headers)[":status"]
                elif isinstance(event, h2.events.DataReceived):
                    body += event.data
                elif isinstance(event, h2.events.StreamEnded):
                    return status, body


async def test_http2_with_prior_knowledge():
    async with listening() as here:
        client = Http2Client(await here.connect())
        assert await client.get("/page") == ("200", b"a page")
        assert await client.get("/nowhere") != ("200", b"a page")
        assert await client.get("/page") == ("200", b"a page"), "on the same connection"
        await client.stream.aclose()


async def test_an_http2_connection_carries_any_number_of_requests():
    """Hypercorn would end it at a thousand."""

    async def bare(scope, receive, send):
        assert scope["type"] == "http"  # it needs no lifespan
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async with listening(app=bare) as here:
        client = Http2Client(await here.connect())
        for _ in range(11):
            await client.get_at_once("/page", 100)
        await client.stream.aclose()


async def test_http2_whose_preface_comes_in_pieces():
    async with listening() as here:
        client = Http2Client(await here.connect())
        preface = client.h2.data_to_send()
        for at in range(0, len(preface), 5):
            await client.stream.send_all(preface[at : at + 5])
            await trio.lowlevel.checkpoint()
        assert await client.get("/page") == ("200", b"a page")
        await client.stream.aclose()


async def test_websockets():
    async with listening() as here:
        stream = await here.connect()
        client = WSConnection(ConnectionType.CLIENT)
        await stream.send_all(client.send(Request(host="x", target="/socket")))
        sent = False
        while True:
            client.receive_data(bytes(await stream.receive_some()))
            for event in client.events():
                if isinstance(event, AcceptConnection):
                    await stream.send_all(client.send(Message("hello")))
                    sent = True
                elif isinstance(event, Message):
                    assert event.data == "hello"
                    assert sent
                    await stream.aclose()
                    return


async def test_tls_on_the_engine(authority, server_tls):
    async with listening(tls=server_tls) as here:
        assert here.url.startswith("https://127.0.0.1:")
        async with httpx.AsyncClient(verify=client_tls(authority), base_url=here.url) as client:
            for body in (b"hello", b"x" * 300_000):
                assert (await client.post("/v1/x", content=body)).content == body
            assert (await client.get("/page")).text == "a page"


async def test_tls_negotiates_http2(authority, server_tls):
    async with listening(tls=server_tls) as here:
        stream = trio.SSLStream(
            await here.connect(), client_tls(authority, "h2"), server_hostname="127.0.0.1"
        )
        await stream.do_handshake()
        assert stream.selected_alpn_protocol() == "h2"
        assert await Http2Client(stream).get("/page") == ("200", b"a page")
        await stream.transport_stream.aclose()


async def test_a_client_that_does_not_speak_tls_is_dropped(server_tls, caplog):
    async with listening(tls=server_tls) as here:
        client = await here.connect()
        await client.send_all(get())
        await receive_all(client)
        client = await here.connect()
        await client.aclose()
    assert caplog.text == ""


async def test_a_tls_handshake_must_come_in_time(server_tls):
    async with listening(tls=server_tls, head_timeout_s=0.05) as here:
        client = await here.connect()
        assert await receive_all(client) == b""


@pytest.mark.parametrize("how", ["close", "half-close", "reset"])
@pytest.mark.parametrize("with_tls", [False, True])
async def test_a_client_that_leaves_cancels_its_request(
    how: str, with_tls: bool, authority, server_tls
):
    exchange = ScriptedExchange(forever)
    async with listening(exchange, tls=server_tls if with_tls else None) as here:
        raw = await here.connect()
        client = raw
        if with_tls:
            client = trio.SSLStream(raw, client_tls(authority), server_hostname="127.0.0.1")
        await client.send_all(post(b"x"))
        await until(lambda: exchange.running == 1)
        if how == "reset":
            reset(raw)
        elif how == "half-close":
            await raw.send_eof()
        else:
            await raw.aclose()
        with trio.fail_after(1):
            await until(lambda: exchange.cancelled == 1)
        await until(lambda: here.server.statistics().open == 0)
        await raw.aclose()


async def test_a_client_that_leaves_an_endless_answer_cancels_it():
    exchange = ScriptedExchange(endless)
    async with listening(exchange) as here:
        client = await here.connect()
        await client.send_all(post())
        await client.receive_some()
        reset(client)
        with trio.fail_after(1):
            await until(lambda: exchange.cancelled == 1)


async def test_a_client_that_stops_reading_is_given_up():
    exchange = ScriptedExchange(endless)
    async with listening(exchange, send_stall_s=0.05) as here:
        client = await here.connect()
        await client.send_all(post())
        await until(lambda: exchange.cancelled == 1)
        await until(lambda: here.server.statistics().open == 0)
        await client.aclose()


async def test_an_early_answer_is_seen_by_a_client_that_still_sends():
    async def early(reader, writer) -> None:
        await writer.respond(401, [], b"no")

    async with (
        listening(ScriptedExchange(early)) as here,
        httpx.AsyncClient(base_url=here.url) as client,
    ):
        for _ in range(3):
            answer = await client.post("/v1/x", content=b"x" * 5_000_000)
            assert (answer.status_code, answer.content) == (401, b"no")


@pytest.mark.parametrize("secure", [False, True])
async def test_a_last_answer_arrives_whole_whatever_the_client_still_sends(
    secure: bool, authority, server_tls
):
    answer = b"x" * 90_000  # our kernel takes all of it, and the client's only a part
    more_was_sent = trio.Event()

    async def large(reader, writer) -> None:
        await more_was_sent.wait()
        await writer.respond(200, [], answer)

    tls = server_tls if secure else None
    exchange = ScriptedExchange(large)
    async with listening(exchange, tls=tls, linger_s=5) as here:
        client = await here.connect()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        stream = client
        if secure:
            stream = trio.SSLStream(
                client, client_tls(authority), server_hostname="127.0.0.1", https_compatible=True
            )
        await stream.send_all(get("/v1/x", b"connection: close"))
        await until(lambda: exchange.running == 1)
        await stream.send_all(b"\r\n")
        more_was_sent.set()
        await trio.testing.wait_all_tasks_blocked()
        [received] = read_answers(await receive_all(stream))
        assert received.body == answer
        await stream.aclose()


@pytest.mark.parametrize("secure", [False, True])
async def test_a_page_arrives_whole_whatever_the_client_still_sends(
    secure: bool, authority, server_tls
):
    page = "x" * 90_000  # our kernel takes all of it, and the client's only a part
    app = small_app()
    app.asgi_app = DataPlane(
        app.asgi_app, ScriptedExchange(), max_request_bytes=1, body_timeout_s=1
    )
    asked, more_was_sent = trio.Event(), trio.Event()

    @app.get("/large")
    async def large() -> str:
        asked.set()
        await more_was_sent.wait()
        return page

    async with listening(app=app, tls=server_tls if secure else None, linger_s=5) as here:
        client = await here.connect()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        stream = client
        if secure:
            stream = trio.SSLStream(
                client, client_tls(authority), server_hostname="127.0.0.1", https_compatible=True
            )
        await stream.send_all(get("/large"))
        await asked.wait()
        await stream.send_all(get("/page"))
        more_was_sent.set()
        await until(lambda: here.server.statistics().open == 1)
        await trio.testing.wait_all_tasks_blocked()
        await stream.send_all(b"late")
        [received] = read_answers(await receive_all(stream))
        assert received.body == page.encode()
        await stream.aclose()


@pytest.mark.parametrize(
    "sent",
    [
        post(b"hello", "/page", b"connection: close") + b"\r\n",
        get("/page").replace(b"1.1", b"1.0") * 2,
        get("/page", b"connection: close") * 2,
    ],
)
async def test_a_page_is_answered_whatever_comes_with_its_request(sent: bytes):
    async with listening() as here:
        client = await here.connect()
        await client.send_all(sent)
        [answer] = read_answers(await receive_all(client))
        assert answer.status == 200


@pytest.mark.parametrize(
    ("limit", "code", "setting"),
    [
        ("connections", b'"too_many_connections"', b"(MAX_CONNECTIONS)"),
        (
            "connections_per_address",
            b'"too_many_connections_from_client"',
            b"(MAX_CONNECTIONS_PER_CLIENT)",
        ),
    ],
)
async def test_one_connection_too_many_is_refused(limit: str, code: bytes, setting: bytes):
    async with listening(**{limit: 1}) as here:
        first = await here.connect()
        await until(lambda: here.server.statistics().open == 1)
        second = await here.connect()
        [answer] = read_answers(await receive_all(second))
        assert answer.status == 503
        assert code in answer.body
        assert setting in answer.body
        assert here.server.statistics().refused == 1
        await first.aclose()
        await until(lambda: here.server.statistics().open == 0)
        third = await here.connect()
        await third.send_all(get("/v1/x", b"connection: close"))
        assert (await receive_all(third)).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("secure", [False, True])
async def test_who_connects_before_the_wind_down_is_served_once(
    secure: bool, authority, server_tls
):
    async with listening(tls=server_tls if secure else None) as here:
        stream = client = await here.connect()
        await until(lambda: here.server.statistics().open == 1)
        here.server.wind_down()
        if secure:
            stream = trio.SSLStream(
                client, client_tls(authority), server_hostname="127.0.0.1", https_compatible=True
            )
            await stream.do_handshake()
        await stream.send_all(get())
        [answer] = read_answers(await receive_all(stream), "GET")
        assert (answer.status, answer.headers[b"connection"]) == (200, b"close")


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


async def test_an_app_that_can_not_start_stops_the_start():
    app = small_app()

    @app.before_serving
    async def fail() -> None:
        raise RuntimeError("no database")

    listeners = await open_listeners("127.0.0.1", 0, backlog=1)
    server = Server(ScriptedExchange(), lambda: app, limits=Limits())
    reported = []
    with pytest.RaisesGroup(
        pytest.RaisesExc(LifespanFailureError, match="no database"), flatten_subgroups=True
    ):
        async with trio.open_nursery() as nursery:
            reported = await nursery.start(server.run, listeners)
    assert reported == [], "it never said that it serves"
    assert listeners[0].socket.fileno() == -1


async def test_an_app_without_a_lifespan_will_do():
    async def bare(scope, receive, send) -> None:
        assert scope["type"] == "http"
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"bare"})

    async with listening(app=bare) as here, httpx.AsyncClient(base_url=here.url) as client:
        assert (await client.get("/page")).content == b"bare"


async def test_a_port_in_use_is_explained():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ListenFailed, match=rf"127.0.0.1:{port}: another program is using"):
            await open_listeners("127.0.0.1", port, backlog=1)


@pytest.mark.parametrize(
    ("host", "port", "reason"),
    [("192.0.2.1", 0, "does not have that address"), ("name.invalid", 0, "cannot listen on name")],
)
async def test_other_failures_are_explained(host: str, port: int, reason: str):
    with pytest.raises(ListenFailed, match=reason):
        await open_listeners(host, port, backlog=1)


async def test_all_addresses_of_a_machine_share_a_port():
    listeners = await open_listeners("", 0, backlog=1)
    ports = {one.socket.getsockname()[1] for one in listeners}
    assert len(ports) == 1
    for one in listeners:
        one.socket.close()


def test_the_open_file_limit_is_raised():
    import resource

    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
        assert raise_open_file_limit() == before[1]
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == before[1]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
