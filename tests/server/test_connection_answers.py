"""How answers are framed, and how one that is cut can be seen to be."""

from __future__ import annotations

import pytest
import trio
from engine import (
    FakeHost,
    MemoryWire,
    ScriptedExchange,
    chunked,
    echo,
    get,
    open_connection,
    post,
    read_answers,
    receive_all,
    talk,
    whole_body,
)


async def in_pieces(reader, writer) -> None:
    await whole_body(reader)
    await writer.start(200, [(b"content-type", b"text/event-stream")])
    await writer.write(b"one ")
    await writer.write(b"")
    await writer.write(b"two")
    await writer.finish()


async def test_an_answer_is_framed_and_dated():
    [answer] = read_answers(await talk(post(b"hello")))
    assert (answer.status, answer.body, answer.complete) == (200, b"hello", True)
    assert answer.headers[b"content-length"] == b"5"
    assert answer.headers[b"date"].endswith(b"GMT")
    assert answer.headers[b"content-type"] == b"text/plain"
    assert b"connection" not in answer.headers
    assert b"server" not in answer.headers


async def test_pipelined_requests_are_answered_in_order():
    bodies = [b"one", b"", b"three", b"4" * 1000]
    requests = [post(b"one"), post(), chunked(b"th", b"ree"), post(b"4" * 1000)]
    answers = read_answers(await talk(b"".join(requests)), *["POST"] * 4)
    assert [answer.body for answer in answers] == bodies


async def test_the_next_request_waits_for_the_answer_before():
    events = []

    async def slow(reader, writer) -> None:
        events.append(f"{reader.path} begins")
        await trio.testing.wait_all_tasks_blocked()
        await writer.respond(200, [], b"")
        events.append(f"{reader.path} ends")

    await talk(get("/v1/a") + get("/v1/b"), slow)
    assert events == ["/v1/a begins", "/v1/a ends", "/v1/b begins", "/v1/b ends"]


async def test_streams_are_chunked():
    sent = await talk(post(b"x"), in_pieces)
    [answer] = read_answers(sent)
    assert answer.body == b"one two"
    assert answer.complete
    assert answer.headers[b"transfer-encoding"] == b"chunked"
    assert sent.endswith(b"\r\n\r\n4\r\none \r\n3\r\ntwo\r\n0\r\n\r\n")


async def test_a_given_length_is_kept():
    async def sized(reader, writer) -> None:
        await writer.start(200, [(b"content-length", b"6")])
        await writer.write(b"abc")
        await writer.write(b"def")
        await writer.finish()

    answers = read_answers(await talk(get() + get(), sized), "GET", "GET")
    assert [answer.body for answer in answers] == [b"abcdef"] * 2
    assert b"transfer-encoding" not in answers[0].headers


async def test_a_given_date_is_kept_and_connection_headers_are_ours():
    headers = [
        (b"date", b"Thu, 01 Jan 1970 00:00:00 GMT"),
        (b"keep-alive", b"timeout=5"),
        (b"connection", b"foo"),
        (b"transfer-encoding", b"gzip"),
    ]

    async def dated(reader, writer) -> None:
        await writer.respond(200, headers, b"x")

    answers = read_answers(await talk(get() + get(), dated), "GET", "GET")
    assert answers[1].headers == {b"date": headers[0][1], b"content-length": b"1"}


@pytest.mark.parametrize("handle", [echo, in_pieces])
async def test_head_gets_no_body(handle):
    answers = read_answers(
        await talk(get(method="HEAD") + get(method="HEAD"), handle), "HEAD", "HEAD"
    )
    assert [answer.body for answer in answers] == [b"", b""]
    assert all(answer.complete for answer in answers)


async def test_head_keeps_a_given_length():
    async def sized(reader, writer) -> None:
        await writer.respond(200, [(b"content-length", b"1234")], b"")

    [answer] = read_answers(await talk(get(method="HEAD"), sized), "HEAD")
    assert answer.headers[b"content-length"] == b"1234"


@pytest.mark.parametrize("status", [204, 304])
async def test_statuses_without_a_body(status: int):
    async def bodiless(reader, writer) -> None:
        await writer.respond(status, [], b"")

    answers = read_answers(await talk(get() + get(), bodiless), "GET", "GET")
    assert [answer.status for answer in answers] == [status, status]
    assert b"content-length" not in answers[0].headers


async def test_an_unknown_status_has_no_reason():
    async def odd(reader, writer) -> None:
        await writer.respond(599, [], b"")

    assert (await talk(get(), odd)).startswith(b"HTTP/1.1 599 \r\n")


async def test_http_1_0_streams_end_with_the_connection():
    sent = await talk(get(version=b"1.0") + get(), in_pieces)
    assert sent.count(b"HTTP/1.1 200") == 1
    assert b"\r\nconnection: close\r\n" in sent
    assert b"transfer-encoding" not in sent
    assert sent.endswith(b"\r\n\r\none two")


async def cut(reader, writer) -> None:
    await writer.start(200, [])
    await writer.write(b"abc")
    writer.abort()


async def cut_short(reader, writer) -> None:
    await writer.start(200, [(b"content-length", b"5")])
    await writer.write(b"abc")
    await writer.finish()


async def broken_off(reader, writer) -> None:
    await writer.start(200, [])
    await writer.write(b"abc")
    raise RuntimeError


async def left_off(reader, writer) -> None:
    await writer.start(200, [])
    await writer.write(b"abc")


@pytest.mark.parametrize("handle", [cut, cut_short, broken_off, left_off])
async def test_a_cut_answer_is_seen_to_be_cut(handle):
    sent = await talk(get() + get(), handle)
    assert sent.count(b"HTTP/1.1") == 1
    assert sent.endswith((b"\r\n\r\nabc", b"3\r\nabc\r\n"))


async def test_a_cut_answer_to_http_1_0_resets_the_connection():
    connection, client = open_connection(FakeHost(ScriptedExchange(cut)))
    wire = connection._wire
    assert isinstance(wire, MemoryWire)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(connection.serve)
        await client.send_all(get(version=b"1.0"))
        await receive_all(client)
    assert wire.reset


async def test_a_body_longer_than_announced_is_cut_there(caplog):
    async def too_long(reader, writer) -> None:
        await writer.start(200, [(b"content-length", b"5")])
        await writer.write(b"abc")
        await writer.write(b"def")

    assert (await talk(get(), too_long)).endswith(b"\r\n\r\nabc")
    assert "longer than" in caplog.text
