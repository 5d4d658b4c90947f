"""One connection, many requests: order, reuse, and what ends it."""

from __future__ import annotations

import pytest
import trio
from engine import (
    FakeHost,
    ScriptedExchange,
    chunked,
    get,
    open_connection,
    post,
    read_answers,
    receive_all,
    serving,
    talk,
    whole_body,
)

from proxy.errors import ProxyError
from proxy.server.connection import Connection
from proxy.server.limits import Limits


async def nothing_read(reader, writer) -> None:
    """An answer that does not wait for the body."""
    await writer.respond(401, [], b"no")


async def test_http_1_0_is_kept_alive_when_asked():
    request = get("/v1/x", b"connection: keep-alive", version=b"1.0")
    answers = read_answers(await talk(request + get(version=b"1.0") + get()), "GET", "GET")
    assert answers[0].headers[b"connection"] == b"keep-alive"
    assert answers[1].headers[b"connection"] == b"close"


async def test_close_is_obeyed_both_ways():
    sent = await talk(get("/v1/x", b"connection: close") + get())
    [answer] = read_answers(sent, "GET")
    assert answer.headers[b"connection"] == b"close"

    async def last(reader, writer) -> None:
        await writer.respond(200, [(b"connection", b"close")], b"")

    [answer] = read_answers(await talk(get() + get(), last), "GET")
    assert answer.headers[b"connection"] == b"close"


async def test_continue_is_sent_when_the_body_is_first_wanted():
    host = FakeHost()
    head, body = post(b"hello", "/v1/x", b"expect: 100-continue").split(b"\r\n\r\n")
    async with serving(host) as (_, client):
        await client.send_all(head + b"\r\n\r\n")
        assert await client.receive_some() == b"HTTP/1.1 100 Continue\r\n\r\n"
        await client.send_all(body)
        [answer] = read_answers(await client.receive_some())
        assert answer.body == b"hello"
        await client.aclose()


async def test_continue_is_not_sent_when_the_body_came_along_or_nobody_wants_it():
    request = post(b"hello", "/v1/x", b"expect: 100-continue")
    [answer] = read_answers(await talk(request))
    assert (answer.informational, answer.body) == ([], b"hello")
    [answer] = read_answers(await talk(request.split(b"hello")[0], nothing_read))
    assert (answer.informational, answer.status) == ([], 401)
    assert answer.headers[b"connection"] == b"close"


async def test_an_unread_body_is_skipped_if_it_is_short():
    host = FakeHost(ScriptedExchange(nothing_read), Limits(drain_bytes=10))
    answers = read_answers(await talk(post(b"x" * 10) + get(), host=host), "POST", "GET")
    assert [answer.status for answer in answers] == [401, 401]
    assert len(host.exchange.received) == 2


@pytest.mark.parametrize("request_", [post(b"x" * 11), chunked(b"x")])
async def test_else_the_connection_ends_with_the_answer(request_: bytes):
    host = FakeHost(ScriptedExchange(nothing_read), Limits(drain_bytes=10))
    [answer] = read_answers(await talk([request_, get()], host=host), "POST")
    assert answer.headers[b"connection"] == b"close"
    assert len(host.exchange.received) == 1


async def test_a_body_is_read_to_its_end_and_no_further():
    pieces = []

    async def twice(reader, writer) -> None:
        pieces.append(await whole_body(reader))
        pieces.append(await reader.read_chunk())
        await writer.respond(200, [], b"")

    await talk(post(b"abc") + chunked(b"d", b"ef") + get(), twice)
    assert pieces == [b"abc", b"", b"def", b"", b"", b""]


async def test_requests_reach_the_exchange_as_they_were_sent():
    host = FakeHost()
    await talk(post(b"", "/v1/a%20b?c=d", b"X-One: 1", b"x-one: 2"), host=host)
    [request] = host.exchange.received
    assert (request.method, request.path, request.query) == ("POST", "/v1/a b", b"c=d")
    assert request.headers[1:3] == [(b"x-one", b"1"), (b"x-one", b"2")]


CHUNKED = b"transfer-encoding: chunked"
CODED = get("/other", CHUNKED) + b"5;a=b\r\nhello\r\n0\r\nx-trailer: c\r\n\r\n"


@pytest.mark.parametrize("sizes", [(10_000,), (1,) * 1000, (150,) * 10])
@pytest.mark.parametrize("request_", [get("/admin/instances"), post(b"hello", "/other"), CODED])
async def test_a_request_for_a_page_is_handed_over_and_nothing_that_follows_it(
    request_: bytes, sizes: tuple[int, ...]
):
    host = FakeHost()
    sent = post(b"abc") + request_ + b"\r\n" + request_
    [answer] = read_answers(await talk(divided(sent, sizes), host=host))
    assert answer.body == b"abc"
    assert host.taken_over == [request_]


async def test_chunks_without_an_end_are_handed_over_as_they_are():
    host = FakeHost()
    broken = get("/other", CHUNKED) + b"5 \r\nhello\r\n0\r\n\r\n"
    await talk([broken, b"more"], host=host)
    assert host.taken_over == [broken + b"more"]


def divided(sent: bytes, sizes: tuple[int, ...]) -> list[bytes]:
    pieces = []
    for size in sizes:
        pieces.append(sent[:size])
        sent = sent[size:]
    return [piece for piece in pieces if piece]


@pytest.mark.parametrize(
    "request_",
    [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00",
        get("/v1/x", b"connection: Upgrade", b"upgrade: websocket") + b"\x81\x00",
    ],
)
async def test_everything_else_is_handed_over_with_what_was_read(request_: bytes):
    host = FakeHost()
    await talk([request_, b"more"], host=host)
    assert host.taken_over == [request_ + b"more"]
    host = FakeHost()
    first = post(b"abc")
    [answer] = read_answers(await talk(first + request_, host=host))
    assert answer.body == b"abc"
    assert host.taken_over == [request_]


async def test_other_upgrades_are_ignored():
    fields = [b"connection: upgrade, http2-settings", b"upgrade: h2c", b"http2-settings: AAMAAABk"]
    host = FakeHost()
    [answer] = read_answers(await talk(post(b"hello", "/v1/x", *fields), host=host))
    assert answer.body == b"hello"
    assert host.taken_over == []
    await talk(get("/page", *fields), host=host)
    [received] = host.taken_over
    assert b"h2c" not in received


@pytest.mark.parametrize(
    ("sent", "status", "code"),
    [
        (b"GET / HTTP/1.1\nhost: x\n\n", 400, b"null"),
        (b"\x16\x03\x01", 400, b"null"),
        (get("/v1/x", b"host: y"), 400, b"null"),
        (b"GET /" + b"a" * 20_000, 414, b"target_too_long"),
        (get("/v1/x", *[b"a: b"] * 300), 431, b"too_many_headers"),
        (get("/v1/x", b"a: " + b"b" * 70_000), 431, b"headers_too_large"),
        (post(b"", "/page").replace(b": 0", b": 999999999999"), 413, b"request_too_large"),
    ],
)
async def test_refusals_say_why_and_end_the_connection(sent: bytes, status: int, code: bytes):
    host = FakeHost()
    [answer] = read_answers(await talk([sent, get()], host=host))
    assert (answer.status, answer.headers[b"connection"]) == (status, b"close")
    assert answer.headers[b"content-type"] == b"application/json"
    assert b'"code": ' in answer.body
    assert code in answer.body
    assert host.exchange.received == []
    assert host.taken_over == []


async def test_refusals_come_after_the_answers_before():
    answers = read_answers(await talk(post(b"one") + get("/v1/x", b"a : b")), "POST", "POST")
    assert [answer.status for answer in answers] == [200, 400]


async def test_too_long_bodies_are_refused_before_they_are_read():
    sent = post(b"").replace(b"content-length: 0", b"content-length: 1001")
    [answer] = read_answers(await talk(sent, body_bytes=1000))
    assert (answer.status, answer.headers[b"connection"]) == (413, b"close")
    assert b"1000 bytes" in answer.body
    [answer] = read_answers(await talk(post(b"x" * 1000), body_bytes=1000))
    assert answer.status == 200
    [answer] = read_answers(await talk(chunked(*[b"x" * 100] * 11), body_bytes=1000))
    assert (answer.status, answer.headers[b"connection"]) == (413, b"close")


async def test_malformed_chunks_are_refused():
    [answer] = read_answers(await talk(chunked(b"abc").replace(b"3\r\n", b"4\r\n") + get()))
    assert (answer.status, answer.headers[b"connection"]) == (400, b"close")


async def test_an_error_of_the_exchange_becomes_the_answer():
    async def failing(reader, writer) -> None:
        raise ProxyError(418, "no coffee", type="x", retry_after_s=2)

    answers = read_answers(await talk(get() + get(), failing), "GET", "GET")
    assert [answer.status for answer in answers] == [418, 418]
    assert answers[0].headers[b"retry-after"] == b"2"
    assert b"no coffee" in answers[0].body


async def test_an_unexpected_error_is_logged_and_answered(caplog):
    async def failing(reader, writer) -> None:
        raise RuntimeError("secret detail")

    [answer] = read_answers(await talk(get(), failing), "GET")
    assert answer.status == 500
    assert b"secret" not in answer.body
    assert "secret detail" in caplog.text


async def test_a_forgotten_answer_is_a_500(caplog):
    async def forgetful(reader, writer) -> None:
        await trio.lowlevel.checkpoint()

    [answer] = read_answers(await talk(get(), forgetful), "GET")
    assert answer.status == 500
    assert "without a complete answer" in caplog.text


@pytest.mark.parametrize("value", [b"a\r\nx: y", b"a\nb", b"a\rb", b"a\x00b"])
async def test_no_answer_can_be_split(value: bytes, caplog):
    async def splitting(reader, writer) -> None:
        await writer.respond(200, [(b"x-header", value)], b"")

    [answer] = read_answers(await talk(get(), splitting), "GET")
    assert answer.status == 500
    assert b"x-header" not in answer.headers
    assert "line break" in caplog.text


async def test_an_idle_end_is_no_event(caplog):
    assert await talk(b"") == b""
    assert await talk([b"GET /v1/x HT"]) == b""
    assert caplog.text == ""


async def test_statistics_of_the_answer_are_visible_to_the_exchange():
    seen = []

    async def watching(reader, writer) -> None:
        seen.append(writer.started)
        await writer.start(200, [])
        seen.append(writer.started)
        await writer.finish()

    await talk(get(), watching)
    assert seen == [False, True]


async def test_a_draining_host_takes_no_further_request():
    host = FakeHost()

    async def drained(reader, writer) -> None:
        connection.retire()
        await writer.respond(200, [], b"last")

    host.exchange = ScriptedExchange(drained)
    async with serving(host) as (connection, client):
        await client.send_all(get() + get())
        [answer] = read_answers(await receive_all(client), "GET")
    assert answer.headers[b"connection"] == b"close"


async def test_a_connection_told_too_late_to_wind_down_serves_one_more_request():
    async def told_late(reader, writer) -> None:
        await writer.respond(200, [], b"")
        connection.closing = True

    answers = []
    async with serving(FakeHost(ScriptedExchange(told_late))) as (connection, client):
        for _ in range(2):
            await client.send_all(get())
            answers += read_answers(await client.receive_some(), "GET")
        assert await receive_all(client) == b""
    assert [answer.headers.get(b"connection") for answer in answers] == [None, b"close"]


async def test_a_connection_that_opens_while_draining_is_closed():
    host = FakeHost(draining=True)
    connection, client = open_connection(host)
    await connection.serve()
    assert await receive_all(client) == b""
    assert isinstance(connection, Connection)
