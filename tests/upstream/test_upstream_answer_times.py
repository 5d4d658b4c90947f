"""How long an upstream may take to connect and to answer, on the virtual clock."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
from exchanging import counts, pools, read, request
from faulty_upstream import chunk, head_of, head_of_stream
from memory_link import MemoryDialer

from proxy.exchange.ports import UpstreamFailure
from proxy.upstream.pool import PoolLimits, PoolStatistics

if TYPE_CHECKING:
    from trio.testing import MockClock


async def test_connecting_takes_its_own_time_at_most(autojump_clock: MockClock) -> None:
    dialer = MemoryDialer()
    dialer.delay_s = 1000
    async with pools(dialer, PoolLimits(connect_timeout_s=10)) as upstream:
        for timeout_s, expected_s in ((30.0, 10.0), (3.0, 3.0)):
            start = trio.current_time()
            with pytest.raises(UpstreamFailure) as caught:
                await upstream.send(request(timeout_s=timeout_s))
            assert (caught.value.phase, caught.value.kind) == ("connect", "timeout")
            assert trio.current_time() - start == expected_s
        assert counts(upstream) == PoolStatistics()


async def test_connecting_counts_towards_the_time_to_the_head(autojump_clock: MockClock) -> None:
    dialer = MemoryDialer()
    dialer.delay_s = 4
    async with pools(dialer) as upstream:
        start = trio.current_time()
        with pytest.raises(UpstreamFailure) as caught:
            await upstream.send(request(timeout_s=30))
        assert (caught.value.phase, caught.value.kind) == ("head", "timeout")
        assert trio.current_time() - start == pytest.approx(30, abs=0.02)
        assert counts(upstream) == PoolStatistics(opened=1, closed=1)


async def test_a_trickling_head_does_not_extend_its_time(autojump_clock: MockClock) -> None:
    dialer = MemoryDialer()
    async with pools(dialer) as upstream, trio.open_nursery() as nursery:

        async def trickle() -> None:
            await trio.sleep(1)
            dialer.links[0].deliver(b"HTTP/1.1 200 OK\r\n")
            while True:
                await trio.sleep(1)
                dialer.links[0].deliver(b"x: y\r\n")

        nursery.start_soon(trickle)
        start = trio.current_time()
        with pytest.raises(UpstreamFailure) as caught:
            await upstream.send(request(timeout_s=30))
        assert caught.value.kind == "timeout"
        assert trio.current_time() - start == pytest.approx(30, abs=0.02)
        nursery.cancel_scope.cancel()


async def test_each_silence_in_a_body_has_its_own_time(autojump_clock: MockClock) -> None:
    dialer = MemoryDialer([head_of_stream()])
    async with pools(dialer) as upstream, trio.open_nursery() as nursery:
        response = await upstream.send(request(timeout_s=5, silence_s=10))

        async def talk() -> None:
            for _ in range(4):
                await trio.sleep(9)
                dialer.links[0].deliver(chunk(b"x"))

        await trio.sleep(20)  # The head came in time; what follows has its own.
        nursery.start_soon(talk)
        start = trio.current_time()
        for _ in range(4):
            assert await response.read_chunk() == b"x"
        await trio.sleep(100)  # A slow reader is not the upstream's silence.
        resumed = trio.current_time()
        assert resumed - start == 136
        with pytest.raises(UpstreamFailure) as caught:
            await response.read_chunk()
        assert (caught.value.phase, caught.value.kind) == ("body", "timeout")
        assert trio.current_time() - resumed == pytest.approx(10, abs=0.02)
        with pytest.raises(UpstreamFailure):
            await response.read_chunk()
        await response.aclose()
        with pytest.raises(UpstreamFailure):
            await response.read_chunk()


@pytest.mark.parametrize("kind", ["text/event-stream", "application/json"])
async def test_a_body_has_its_time_as_a_whole_unless_it_is_an_event_stream(
    autojump_clock: MockClock, kind: str
) -> None:
    dialer = MemoryDialer([head_of(kind)])
    async with pools(dialer) as upstream, trio.open_nursery() as nursery:
        start = trio.current_time()
        response = await upstream.send(request(silence_s=10, whole_s=30))

        async def talk() -> None:
            for _ in range(8):
                await trio.sleep(5)
                dialer.links[0].deliver(chunk(b"x"))
            dialer.links[0].deliver(b"0\r\n\r\n")

        nursery.start_soon(talk)
        if kind == "text/event-stream":
            assert await read(response) == b"x" * 8
        else:
            with pytest.raises(UpstreamFailure) as caught:
                await read(response)
            assert (caught.value.phase, caught.value.kind) == ("body", "timeout")
            assert trio.current_time() - start == pytest.approx(30, abs=0.02)


async def test_a_client_that_reads_slowly_takes_no_time_from_a_body(
    autojump_clock: MockClock,
) -> None:
    async with pools(dialer := MemoryDialer([head_of("application/json")])) as upstream:
        response = await upstream.send(request(silence_s=60, whole_s=30))
        for _ in range(3):
            await trio.sleep(100)
            dialer.links[0].deliver(chunk(b"x"))
            assert await response.read_chunk() == b"x"
        with pytest.raises(UpstreamFailure, match="timeout"):
            await read(response)
        assert trio.current_time() == pytest.approx(330, abs=0.1)


async def test_a_wait_that_was_given_up_does_not_break_a_silence(autojump_clock: MockClock) -> None:
    dialer = MemoryDialer([head_of_stream()])
    async with pools(dialer) as upstream:
        response = await upstream.send(request(silence_s=10))
        with trio.move_on_after(4):
            await response.read_chunk()
        with pytest.raises(UpstreamFailure, match="timeout"):
            await response.read_chunk()
        assert trio.current_time() == pytest.approx(10, abs=0.1)
        await response.aclose()


async def test_framing_alone_does_not_break_a_silence(autojump_clock: MockClock) -> None:
    dialer = MemoryDialer([head_of_stream(), b"5;x="])
    async with pools(dialer) as upstream, trio.open_nursery() as nursery:
        response = await upstream.send(request(silence_s=10))

        async def trickle() -> None:
            while True:
                await trio.sleep(1)
                dialer.links[0].deliver(b"y")

        nursery.start_soon(trickle)
        with pytest.raises(UpstreamFailure) as caught:
            await response.read_chunk()
        assert caught.value.kind == "timeout"
        nursery.cancel_scope.cancel()
