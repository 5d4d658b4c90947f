"""The pool over links in memory: which connection is taken, kept and closed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio
from exchanging import counts, exchange, pools, read, request
from faulty_upstream import CHAT, answer, chunk, head_of_stream
from memory_link import ANSWER, MemoryDialer, MemoryLink
from uploads import Upload

from proxy.exchange.ports import UpstreamFailure
from proxy.upstream.pool import PoolLimits, PoolStatistics

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio.testing import MockClock


# One request


async def test_request_and_answer() -> None:
    dialer = MemoryDialer([answer(headers="X-Request-Id: abc\r\n")])
    async with pools(dialer) as upstream:
        response = await upstream.send(request())
        assert response.status == 200
        assert response.headers == [
            (b"content-type", b"application/json"), (b"x-request-id", b"abc"),
            (b"content-length", b"%d" % len(CHAT)),
        ]  # fmt: skip
        assert await read(response) == CHAT
        assert await response.read_chunk() == b""
    assert bytes(dialer.links[0].sent) == (
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: one.example\r\n"
        b"content-type: application/json\r\ncontent-length: 2\r\n\r\n{}"
    )


async def test_a_complete_answer_gives_its_connection_back_before_it_is_read() -> None:
    async with pools(MemoryDialer([ANSWER])) as upstream:
        response = await upstream.send(request())
        assert counts(upstream) == PoolStatistics(idle=1, opened=1)
        assert await read(response) == b"ok"


async def test_what_arrived_together_leaves_together() -> None:
    events = [chunk(b"data: %d\n\n" % number) for number in range(3)]
    pieces = [head_of_stream(), events[0] + events[1], events[2][:4], events[2][4:], b"0\r\n\r\n"]
    async with pools(MemoryDialer(pieces)) as upstream:
        response = await upstream.send(request())
        read_pieces = []
        while data := await response.read_chunk():
            read_pieces.append(data)
        assert read_pieces == [b"data: 0\n\ndata: 1\n\n", b"d", b"ata: 2\n\n"]
        assert counts(upstream) == PoolStatistics(idle=1, opened=1)


async def test_head_and_empty_answers() -> None:
    dialer = MemoryDialer(
        [b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n"],
        [b"HTTP/1.1 204 No Content\r\n\r\n"],
        [ANSWER],
    )
    async with pools(dialer) as upstream:
        assert await exchange(upstream, request(method="HEAD", body=b"")) == b""
        assert await exchange(upstream, request(method="DELETE", body=b"")) == b""
        assert await exchange(upstream) == b"ok"
        assert counts(upstream) == PoolStatistics(idle=1, opened=1, reused=2)


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({"url": "http://two.example/v1/x"}, "connect"),
        ({"url": "https://one.example/v1/x"}, "connect"),
        ({"url": "http://one.example@two.example/"}, "connect"),
        ({"url": "nonsense"}, "connect"),
        ({"url": "http://one.example/a b"}, "send"),
        ({"headers": [(b"x", b"y\r\nz: w")]}, "send"),
        ({"method": "GET /"}, "send"),
    ],
)
async def test_nothing_is_sent_where_or_as_it_must_not_be(
    fields: dict[str, Any], kind: str
) -> None:
    dialer = MemoryDialer([ANSWER])
    async with pools(dialer) as upstream:
        with pytest.raises(UpstreamFailure) as caught:
            await upstream.send(request(**fields))
        assert caught.value.phase == kind
        assert not dialer.links


# Keeping connections


async def test_the_connection_last_used_is_taken_first_and_the_others_grow_old(
    autojump_clock: MockClock,
) -> None:
    dialer = MemoryDialer([ANSWER])
    async with pools(dialer, PoolLimits(idle_s=60)) as upstream:
        dialer.delay_s = 1
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(exchange, upstream)
        assert counts(upstream) == PoolStatistics(idle=5, opened=5)
        for _ in range(7):
            await trio.sleep(10)
            await exchange(upstream)
        assert counts(upstream) == PoolStatistics(idle=1, opened=5, reused=7, closed=4)
        assert len({id(link) for link in dialer.links if not link.closed}) == 1
        await trio.sleep(61)
        assert counts(upstream) == PoolStatistics(opened=5, reused=7, closed=5)
        assert dialer.open_links == 0


async def test_no_more_idle_connections_than_the_limit(autojump_clock: MockClock) -> None:
    dialer = MemoryDialer([ANSWER])
    dialer.delay_s = 1
    async with pools(dialer, PoolLimits(idle_connections=2)) as upstream:
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(exchange, upstream)
        assert counts(upstream) == PoolStatistics(idle=2, opened=5, closed=3)


async def test_no_more_connections_in_use_than_the_limit_and_no_waiting() -> None:
    dialer = MemoryDialer([head_of_stream()])
    async with pools(dialer, PoolLimits(connections=2)) as upstream:
        held = [await upstream.send(request()) for _ in range(2)]
        with pytest.raises(UpstreamFailure) as caught:
            await upstream.send(request())
        assert (caught.value.phase, caught.value.kind) == ("connect", "other")
        await held[0].aclose()
        held.append(await upstream.send(request()))
        for response in held:
            await response.aclose()
        assert counts(upstream) == PoolStatistics(opened=3, closed=3)


@pytest.mark.parametrize(
    "spoil",
    [MemoryLink.end, MemoryLink.fail, lambda link: link.deliver(ANSWER)],
    ids=["closed", "reset", "unasked answer"],
)
async def test_an_idle_connection_that_has_something_to_say_is_not_used(
    spoil: Callable[[MemoryLink], None],
) -> None:
    dialer = MemoryDialer([ANSWER])
    async with pools(dialer) as upstream:
        await exchange(upstream)
        spoil(dialer.links[0])
        assert await exchange(upstream) == b"ok"
        assert counts(upstream) == PoolStatistics(idle=1, opened=2, closed=1)


@pytest.mark.parametrize(
    "wire",
    [
        b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok",
        ANSWER + b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
        ANSWER + b"surplus",
    ],
)
async def test_a_connection_that_can_not_be_kept_is_closed(wire: bytes) -> None:
    async with pools(MemoryDialer([wire])) as upstream:
        assert await exchange(upstream) == b"ok"
        assert counts(upstream) == PoolStatistics(opened=1, closed=1)


# A kept connection that was closed in the moment of its reuse


@pytest.mark.parametrize(
    "body", [b"{}", b"x" * 100_000, Upload(b"{", b"}"), Upload(b"{}", length=2)]
)
@pytest.mark.parametrize("how", ["end", "reset", "broken pipe"])
async def test_a_stale_connection_costs_the_request_nothing(body: Any, how: str) -> None:
    dialer = MemoryDialer([ANSWER])
    async with pools(dialer) as upstream:
        await exchange(upstream)
        stale = dialer.links[0]
        stale.on_write = MemoryLink.fail if how == "reset" else MemoryLink.end
        if how == "broken pipe":
            stale.write_error = BrokenPipeError(32, "Broken pipe")
        assert await exchange(upstream, request(body=body)) == b"ok"
        early = not isinstance(body, bytes)  # answered before it is sent: not kept
        assert counts(upstream) == PoolStatistics(not early, opened=2, reused=1, closed=1 + early)
        assert dialer.links[1].sent.startswith(b"POST /v1/chat/completions HTTP/1.1\r\n")
        if isinstance(body, bytes):
            assert dialer.links[1].sent.endswith(body)


async def test_once_something_was_answered_nothing_is_sent_again() -> None:
    dialer = MemoryDialer([ANSWER], [b"HTTP/1.1 1"], [ANSWER])
    async with pools(dialer) as upstream:
        await exchange(upstream)

        async def cut() -> None:
            await trio.testing.wait_all_tasks_blocked()
            dialer.links[0].end()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(cut)
            with pytest.raises(UpstreamFailure) as caught:
                await upstream.send(request())
        assert (caught.value.phase, caught.value.kind) == ("head", "reset")
        assert caught.value.answered
        assert len(dialer.links) == 1


async def test_a_new_connection_that_breaks_is_a_failure() -> None:
    dialer = MemoryDialer([b""])
    async with pools(dialer) as upstream:
        with pytest.raises(UpstreamFailure) as caught:
            await upstream.send(request())
        assert (caught.value.phase, caught.value.kind) == ("head", "reset")
        assert not caught.value.answered
        assert counts(upstream) == PoolStatistics(opened=1, closed=1)


async def test_the_dialers_failure_comes_through_and_frees_the_place() -> None:
    dialer = MemoryDialer([ANSWER])
    dialer.error = UpstreamFailure("connect", "refused", "Connection refused")
    async with pools(dialer, PoolLimits(connections=1)) as upstream:
        for _ in range(3):
            with pytest.raises(UpstreamFailure) as caught:
                await upstream.send(request())
            assert caught.value is dialer.error
        dialer.error = None
        assert await exchange(upstream) == b"ok"
