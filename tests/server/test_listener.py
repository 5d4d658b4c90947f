"""The listener on real sockets: HTTP/1.1, HTTP/2, WebSocket and TLS on one port."""

from __future__ import annotations

import httpx
import pytest
import trio
from engine import ScriptedExchange, forever, get, post, read_answers, receive_all
from http2_client import Http2Client
from listening import client_tls, listening, reset, until
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, Message, Request


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
