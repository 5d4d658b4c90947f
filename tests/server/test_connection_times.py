"""Slow and silent clients, on the virtual clock."""

from __future__ import annotations

import pytest
import trio
from engine import (
    FakeHost,
    ScriptedExchange,
    chunked,
    open_connection,
    post,
    read_answers,
    receive_all,
    serving,
    talk,
)

from proxy.server.connections import Connections
from proxy.server.limits import Limits

LIMITS = Limits(head_timeout_s=10, body_timeout_s=20, body_bytes_per_s=100, keep_alive_s=75)


async def trickle(client, data: bytes, interval_s: float) -> None:
    try:
        for index in range(len(data)):
            await client.send_all(data[index : index + 1])
            await trio.sleep(interval_s)
    except trio.BrokenResourceError:
        pass  # It was given up.


async def given_up_after(host: FakeHost, data: bytes, interval_s: float) -> tuple[float, bytes]:
    """How long the connection lasted with a client that sends a byte each interval."""
    connection, client = open_connection(host)
    start = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(connection.serve)
        nursery.start_soon(trickle, client, data, interval_s)
        answer = await receive_all(client)
        seconds = trio.current_time() - start
        nursery.cancel_scope.cancel()
    return seconds, answer


async def test_a_head_that_takes_too_long_is_answered_with_408(autojump_clock):
    host = FakeHost(limits=LIMITS)
    seconds, sent = await given_up_after(host, post(b"x" * 100), interval_s=1)
    [answer] = read_answers(sent)
    assert (answer.status, answer.headers[b"connection"]) == (408, b"close")
    assert seconds == pytest.approx(10)
    assert host.exchange.received == []


async def test_a_head_within_its_time_is_served(autojump_clock):
    connection, client = open_connection(FakeHost(limits=LIMITS))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(connection.serve)
        nursery.start_soon(trickle, client, post(b""), 0.1)
        [answer] = read_answers(await client.receive_some())
        assert answer.status == 200
        await client.aclose()


async def test_a_body_that_stops_is_answered_with_408(autojump_clock):
    host = FakeHost(limits=LIMITS)
    start = trio.current_time()
    async with serving(host) as (_, client):
        await client.send_all(post(b"x" * 100)[:-1])
        [answer] = read_answers(await receive_all(client))
        assert trio.current_time() - start == pytest.approx(20.99), "99 bytes buy 0.99 s"
    assert answer.status == 408
    assert answer.headers[b"connection"] == b"close"


@pytest.mark.parametrize("request_", [post(b"x" * 600), chunked(b"x" * 600)])
async def test_a_body_that_trickles_is_given_up(request_: bytes, autojump_clock):
    """100 bytes buy a second, so one byte each 0.1 s lasts 20 s and a tenth more."""
    host = FakeHost(limits=LIMITS)
    connection, client = open_connection(host)
    head, body = request_.split(b"\r\n\r\n", 1)
    start = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(connection.serve)
        await client.send_all(head + b"\r\n\r\n")
        nursery.start_soon(trickle, client, body, 0.1)
        [answer] = read_answers(await receive_all(client))
        seconds = trio.current_time() - start
        nursery.cancel_scope.cancel()
    assert answer.status == 408
    assert 20 <= seconds <= 23


async def test_a_slow_line_gets_the_time_that_its_length_needs(autojump_clock):
    host = FakeHost(limits=LIMITS)
    request = post(b"x" * 5000)
    async with serving(host) as (_, client):
        for at in range(0, len(request), 110):
            await client.send_all(request[at : at + 110])
            await trio.sleep(1)
        [answer] = read_answers(await client.receive_some())
        await client.aclose()
    assert (answer.status, len(answer.body)) == (200, 5000)


async def test_an_expected_body_has_its_time_from_the_invitation(autojump_clock):
    async def late(reader, writer) -> None:
        await trio.sleep(1000)
        await writer.respond(200, [], await reader.read_chunk())

    request = post(b"abc", "/v1/x", b"expect: 100-continue")
    async with serving(FakeHost(ScriptedExchange(late), LIMITS)) as (_, client):
        await client.send_all(request[:-3])
        assert b"100 Continue" in await client.receive_some()
        await trio.sleep(19)
        await client.send_all(b"abc")
        [answer] = read_answers(await client.receive_some())
        assert answer.status == 200
        await client.aclose()


async def test_an_unread_body_that_never_comes_ends_the_connection(autojump_clock):
    async def early(reader, writer) -> None:
        await writer.respond(401, [], b"")

    connection, client = open_connection(FakeHost(ScriptedExchange(early), LIMITS))
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(connection.serve)
            await client.send_all(post(b"abc")[:-1])
            [answer] = read_answers(await receive_all(client))
    assert answer.status == 401


async def test_idle_connections_are_closed_without_a_word(autojump_clock):
    host = FakeHost(limits=LIMITS)
    connections = Connections(LIMITS)
    fresh, fresh_client = open_connection(host)
    used, used_client = open_connection(host)
    assert connections.admit(fresh, "a")
    assert connections.admit(used, "a")

    async def look() -> None:
        while True:
            await trio.sleep(1)
            connections.close_idle(since=host.now - LIMITS.keep_alive_s)

    start = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(look)
        nursery.start_soon(fresh.serve)
        nursery.start_soon(used.serve)
        await trio.sleep(50.5)
        await used_client.send_all(post(b"x"))
        assert (await used_client.receive_some()).startswith(b"HTTP/1.1 200")
        assert connections.statistics().idle == 2
        assert await receive_all(fresh_client) == b""
        assert trio.current_time() - start == pytest.approx(75)
        assert await receive_all(used_client) == b""
        assert trio.current_time() - start == pytest.approx(126)
        nursery.cancel_scope.cancel()


async def test_a_request_in_hand_is_never_idle(autojump_clock):
    async def long(reader, writer) -> None:
        await trio.sleep(1000)
        connections.close_idle(since=host.now)
        await trio.sleep(1)
        await writer.respond(200, [], b"done")

    host = FakeHost(ScriptedExchange(long), LIMITS)
    connections = Connections(LIMITS)
    connection, client = open_connection(host)
    assert connections.admit(connection, "a")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(connection.serve)
        await client.send_all(post())
        [answer] = read_answers(await client.receive_some())
        assert answer.body == b"done"
        await client.aclose()


async def test_connections_are_counted_in_all_and_by_address():
    limits = Limits(connections=3, connections_per_address=2)
    connections = Connections(limits)
    ours = [open_connection(FakeHost())[0] for _ in range(6)]
    assert connections.admit(ours[0], "a")
    assert connections.admit(ours[1], "a")
    assert not connections.admit(ours[2], "a")
    assert connections.admit(ours[3], "b")
    assert not connections.admit(ours[4], "c")
    connections.leave(ours[0])
    assert connections.admit(ours[5], "a")
    statistics = connections.statistics()
    assert (statistics.open, statistics.refused) == (3, 2)


async def test_talk_itself_does_not_wait(autojump_clock):
    start = trio.current_time()
    await talk(post(b"x"))
    assert trio.current_time() == start
