"""Clients of the listener that leave, that do not read, and that are too many."""

from __future__ import annotations

import socket

import httpx
import pytest
import trio
from engine import ScriptedExchange, get, post, read_answers, receive_all
from listening import client_tls, endless, listening, reset, small_app, until

from proxy.front.asgi import DataPlane


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
