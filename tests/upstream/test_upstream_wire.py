"""The pool over real sockets, against an upstream with every fault of the wire."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing
from cancelling import cancel_at_each_step
from exchanging import counts, exchange, pools, read, request_to
from faulty_upstream import (
    CHAT,
    FAULTS,
    GOOD,
    FaultyUpstream,
    answer,
    chunk,
    closing_on_second,
    closing_when_idle,
    event,
    faulty_upstream,
    head_of_stream,
    large_body,
    refused_url,
    refusing_early,
    serving,
    stream,
    then_hang,
    then_reset,
)

from proxy.exchange.ports import UpstreamFailure
from proxy.upstream.dial import SocketDialer
from proxy.upstream.pool import PoolStatistics

if TYPE_CHECKING:
    from proxy.upstream.instances import InstancePools
    from proxy.upstream.response import Response

EVENTS = b"".join(event(str(number)) for number in range(3)) + b"data: [DONE]\n\n"


async def settled(upstream: InstancePools, server: FaultyUpstream) -> PoolStatistics:
    """The counts once the other side knows as many open connections as we do."""
    ours = counts(upstream)
    with trio.fail_after(5):
        await server.wait_open(ours.idle + ours.in_use)
    return ours


@pytest.mark.parametrize("name", GOOD)
async def test_odd_but_legal_answers_arrive_whole(name: str) -> None:
    async with faulty_upstream(GOOD[name]) as server, pools(SocketDialer()) as upstream:
        for _ in range(2):
            response = await upstream.send(request_to(server.url))
            assert response.status == 200
            assert await read(response) == (EVENTS if "stream" in name else CHAT)
        assert (await settled(upstream, server)).in_use == 0
        assert [each.body for each in server.requests] == [b"{}", b"{}"]


FAIL_IN_BODY = {
    name
    for name in FAULTS
    if any(word in name for word in ("body", "events", "chunk ", "last chunk", "truncated"))
}


@pytest.mark.parametrize("name", FAULTS)
async def test_no_fault_looks_like_a_complete_answer(name: str) -> None:
    timeout_s = 0.05 if name.startswith("hang") else 5.0
    async with faulty_upstream(FAULTS[name]) as server, pools(SocketDialer()) as upstream:
        with pytest.raises(UpstreamFailure) as caught:
            await read(await upstream.send(request_to(server.url, patience_s=timeout_s)))
        failure = caught.value
        ours = await settled(upstream, server)
        assert (ours.idle, ours.in_use, ours.opened) == (0, 0, 1)
    if name == "reset at once":  # Whether the request was under way by then is a matter of luck.
        assert failure.phase in ("send", "head")
    else:
        assert failure.phase == ("body" if name in FAIL_IN_BODY else "head")
    if name.startswith("hang"):
        assert failure.kind == "timeout"
    elif any(word in name for word in ("close", "reset", "truncated", "missing")):
        assert failure.kind == "reset"
    else:
        assert failure.kind == "protocol"
    assert failure.answered == ("before the head" not in name and name != "reset at once")


async def test_what_came_before_the_fault_is_delivered() -> None:
    before = chunk(event("0")) + chunk(event("1"))
    async with (
        faulty_upstream(then_reset(head_of_stream() + before)) as server,
        pools(SocketDialer()) as upstream,
    ):
        response = await upstream.send(request_to(server.url))
        received = b""
        with pytest.raises(UpstreamFailure):
            while data := await response.read_chunk():
                received += data
        await response.aclose()
        assert received == event("0") + event("1")


async def test_nobody_listens() -> None:
    with refused_url() as url:
        async with pools(SocketDialer()) as upstream:
            with pytest.raises(UpstreamFailure) as caught:
                await upstream.send(request_to(url))
            assert (caught.value.phase, caught.value.kind) == ("connect", "refused")
            assert counts(upstream) == PoolStatistics()


async def test_a_name_that_does_not_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    class NoSuchName(trio.abc.HostnameResolver):
        async def getaddrinfo(self, *args: object, **kwargs: object) -> None:  # type: ignore[override]
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

        async def getnameinfo(self, *args: object) -> None:  # type: ignore[override]
            raise NotImplementedError

    trio.socket.set_custom_hostname_resolver(NoSuchName())
    async with pools(SocketDialer()) as upstream:
        with pytest.raises(UpstreamFailure) as caught:
            await upstream.send(request_to("http://nowhere.example"))
        assert (caught.value.phase, caught.value.kind) == ("connect", "dns")


async def test_a_connection_closed_while_idle_is_not_used() -> None:
    idle = trio.Event()
    async with (
        faulty_upstream(closing_when_idle(answer(), idle), serving()) as server,
        pools(SocketDialer()) as upstream,
    ):
        await exchange(upstream, request_to(server.url))
        idle.set()
        await server.wait_open(0)
        await exchange(upstream, request_to(server.url))
        assert await settled(upstream, server) == PoolStatistics(idle=1, opened=2, closed=1)


async def test_a_connection_closed_upon_the_second_request_costs_nothing() -> None:
    async with (
        faulty_upstream(closing_on_second(answer()), serving()) as server,
        pools(SocketDialer()) as upstream,
    ):
        for _ in range(3):
            assert await exchange(upstream, request_to(server.url)) == CHAT
        assert await settled(upstream, server) == PoolStatistics(
            idle=1, opened=2, reused=2, closed=1
        )


async def test_an_early_refusal_of_a_body_that_nobody_reads() -> None:
    refusal = answer(b"{}", "413 Content Too Large")
    async with (
        faulty_upstream(refusing_early(refusal)) as server,
        pools(SocketDialer()) as upstream,
    ):
        response = await upstream.send(request_to(server.url, bytes(20_000_000)))
        assert (response.status, await read(response)) == (413, b"{}")
        assert counts(upstream) == PoolStatistics(opened=1, closed=1)


async def size(response: Response) -> int:
    received_bytes = 0
    while data := await response.read_chunk():
        assert len(data) <= 65_536
        received_bytes += len(data)
    return received_bytes


async def test_bodies_larger_than_all_buffers_both_ways() -> None:
    async with (
        faulty_upstream(serving(), large_body(100_000_000)) as server,
        pools(SocketDialer()) as upstream,
    ):
        body = bytes(range(256)) * 40_000
        await read(await upstream.send(request_to(server.url, body)))
        assert server.requests[0].body == body
        await upstream.forget("one")
        assert await size(await upstream.send(request_to(server.url))) == 100_000_000


async def test_a_slow_reader_holds_the_upstream_back() -> None:
    async with faulty_upstream(large_body(50_000_000)) as server, pools(SocketDialer()) as upstream:
        response = await upstream.send(request_to(server.url))
        await trio.testing.wait_all_tasks_blocked()
        assert server.open == 1  # Not done, because it can't send any more.
        assert await size(response) == 50_000_000


async def test_many_at_a_time() -> None:
    async with faulty_upstream(serving(stream())) as server, pools(SocketDialer()) as upstream:

        async def one() -> None:
            for _ in range(5):
                assert await exchange(upstream, request_to(server.url)) == EVENTS

        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(one)
        ours = await settled(upstream, server)
        assert ours.in_use == 0
        assert ours.opened + ours.reused == 100


async def test_closing_wakes_whoever_waits_in_a_connection() -> None:
    async with faulty_upstream(then_hang()) as server, pools(SocketDialer()) as upstream:
        with pytest.raises(UpstreamFailure) as caught:
            await upstream.send(request_to(server.url, patience_s=0.02))
        assert caught.value.kind == "timeout"
        await server.wait_open(0)


async def test_cancelled_at_every_step() -> None:
    async with (
        faulty_upstream(serving(head_of_stream() + chunk(b"x"), b"0\r\n\r\n")) as server,
        pools(SocketDialer()) as upstream,
    ):

        async def one_piece() -> None:
            response = await upstream.send(request_to(server.url))
            try:
                await response.read_chunk()
            finally:
                await response.aclose()

        async def check() -> None:
            ours = await settled(upstream, server)
            assert (ours.idle, ours.in_use) == (0, 0)

        assert await cancel_at_each_step(one_piece, check) > 3
