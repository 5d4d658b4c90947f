"""Requests with a body, and an upstream that does not wait for the end of it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest
import trio
from exchanging import counts, exchange, pools, read, request
from faulty_upstream import chunk, head_of, head_of_stream
from memory_link import ANSWER, MemoryDialer
from uploads import Upload

from proxy.exchange.ports import UpstreamFailure
from proxy.upstream.pool import PoolStatistics

if TYPE_CHECKING:
    from trio.testing import MockClock


def slow_upload(pause_s: float) -> Upload:
    body = Upload(b"abc", b"def", length=6)
    body.pauses_s[1] = pause_s
    return body


async def test_a_large_body_waits_for_the_network(autojump_clock: MockClock) -> None:
    dialer = MemoryDialer()
    dialer.window = 1000
    body = os.urandom(100_000)
    async with pools(dialer) as upstream, trio.open_nursery() as nursery:

        async def network() -> None:
            await trio.testing.wait_all_tasks_blocked()
            link = dialer.links[0]
            while len(link.sent) < len(body):
                await trio.sleep(1)
                link.widen(10_000)
            await trio.sleep(1)
            link.widen(float("inf"))
            link.deliver(ANSWER)

        nursery.start_soon(network)
        assert await exchange(upstream, request(body=body)) == b"ok"
        assert dialer.links[0].sent.endswith(b"\r\n\r\n" + body)
        assert counts(upstream).idle == 1


async def test_uploads_are_framed_by_length_or_in_chunks() -> None:
    async with pools(dialer := MemoryDialer()) as upstream:
        for length, ending in ((None, b"0\r\n\r\n"), (6, b"abcdef")):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_answer_when_sent, dialer, ending)
                upload = Upload(b"abc", b"def", length=length)
                assert await exchange(upstream, request(body=upload)) == b"ok"
        first, second = bytes(dialer.links[0].sent).split(b"POST ")[1:]
        assert b"transfer-encoding: chunked\r\n" in first
        assert first.endswith(b"\r\n\r\n3\r\nabc\r\n3\r\ndef\r\n0\r\n\r\n")
        assert second.endswith(b"content-length: 6\r\n\r\nabcdef")
        assert counts(upstream) == PoolStatistics(idle=1, opened=1, reused=1)


async def _answer_when_sent(dialer: MemoryDialer, ending: bytes) -> None:
    while not dialer.links or not dialer.links[0].sent.endswith(ending):
        await trio.lowlevel.checkpoint()
    dialer.links[0].deliver(ANSWER)


@pytest.mark.parametrize("pieces", [(b"abc",), (b"abc", b"defgh"), ()])
async def test_an_upload_that_has_not_its_length_is_cut(pieces: tuple[bytes, ...]) -> None:
    async with pools(MemoryDialer()) as upstream:
        with pytest.raises(UpstreamFailure) as caught:
            await upstream.send(request(body=Upload(*pieces, length=6)))
        assert (caught.value.phase, caught.value.kind) == ("send", "other")
        assert counts(upstream) == PoolStatistics(opened=1, closed=1)


async def test_what_reading_the_body_raises_comes_through_as_it_is() -> None:
    error = ValueError("the client sent nonsense")
    async with pools(MemoryDialer()) as upstream:
        with pytest.raises(ValueError, match="nonsense") as caught:
            await upstream.send(request(body=Upload(b"abc", error)))
        assert caught.value is error
        assert counts(upstream) == PoolStatistics(opened=1, closed=1)


@pytest.mark.parametrize("kind", ["stuck network", "stuck client"])
async def test_an_early_refusal_ends_the_upload(kind: str) -> None:
    refusal = b"HTTP/1.1 413 Content Too Large\r\ncontent-length: 3\r\n\r\nbig"
    dialer = MemoryDialer([refusal])
    body: bytes | Upload = b"x" * 100_000
    if kind == "stuck network":
        dialer.window = 1000
    else:
        body = Upload(b"abc", b"def")
        body.gates[1] = trio.Event()
    async with pools(dialer) as upstream:
        response = await upstream.send(request(body=body))
        assert response.status == 413
        assert await read(response) == b"big"
        assert counts(upstream) == PoolStatistics(opened=1, closed=1)


@pytest.mark.parametrize("kind", ["stuck network", "stuck client"])
async def test_an_early_answer_that_is_complete_ends_the_upload(
    autojump_clock: MockClock, kind: str
) -> None:
    dialer = MemoryDialer([ANSWER[:-1], ANSWER[-1:]])
    body: bytes | Upload = b"x" * 100_000
    if kind == "stuck network":
        dialer.window = 1000
    else:
        body = slow_upload(100)
    async with pools(dialer) as upstream:
        assert await exchange(upstream, request(body=body)) == b"ok"
        assert trio.current_time() == 0
        assert counts(upstream) == PoolStatistics(opened=1, closed=1)


async def test_an_early_answer_that_goes_on_waits_for_the_upload(
    autojump_clock: MockClock,
) -> None:
    """An upstream may answer while it reads; what it says meanwhile is taken."""
    async with pools(dialer := MemoryDialer([head_of_stream(), chunk(b"early")])) as upstream:
        response = await upstream.send(request(body=slow_upload(1)))
        link = dialer.links[0]
        assert link.sent.endswith(b"abcdef")
        link.deliver(chunk(b", late"), b"0\r\n\r\n")
        assert await read(response) == b"early, late"
        assert counts(upstream).idle == 1


async def test_an_upstream_that_writes_before_it_reads_is_read_up_to_a_bound(
    autojump_clock: MockClock,
) -> None:
    dialer = MemoryDialer([head_of_stream()])
    dialer.window = 1000
    piece = chunk(b"x" * 60_000)
    for pieces, in_time in ((15, True), (50, False)):
        async with pools(dialer) as upstream, trio.open_nursery() as nursery:

            async def write_then_read(link_number: int, pieces: int) -> None:
                await trio.testing.wait_all_tasks_blocked()
                link = dialer.links[link_number]
                link.deliver(*[piece] * pieces)
                await trio.sleep(1)
                if not link.readable():
                    link.widen(float("inf"))
                    link.deliver(b"0\r\n\r\n")

            nursery.start_soon(write_then_read, len(dialer.links), pieces)
            made = request(body=b"y" * 100_000, timeout_s=30)
            if in_time:
                assert len(await exchange(upstream, made)) == 60_000 * pieces
            else:
                with pytest.raises(UpstreamFailure, match="not sent in time") as caught:
                    await upstream.send(made)
                assert caught.value.answered
                nursery.cancel_scope.cancel()


@pytest.mark.parametrize("ending", [b"", ConnectionResetError(104, "reset"), b"zzz\r\n"])
async def test_an_early_answer_that_is_cut_is_never_complete(
    autojump_clock: MockClock, ending: Any
) -> None:
    async with pools(MemoryDialer([head_of_stream(), chunk(b"part"), ending])) as upstream:
        with pytest.raises(UpstreamFailure) as caught:
            await exchange(upstream, request(body=slow_upload(100)))
        assert (caught.value.phase, caught.value.answered) == ("body", True)
        assert counts(upstream) == PoolStatistics(opened=1, closed=1)


@pytest.mark.parametrize("large", [False, True])
async def test_the_last_words_of_an_upstream_that_breaks_off_are_heard(large: bool) -> None:
    refusal = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 2\r\n\r\nno"
    dialer = MemoryDialer([ANSWER])
    async with pools(dialer) as upstream:
        await exchange(upstream)
        link = dialer.links[0]
        link.write_error = BrokenPipeError(32, "Broken pipe")
        dialer.answers = ()
        async with trio.open_nursery() as nursery:

            async def speak() -> None:
                await trio.testing.wait_all_tasks_blocked()
                link.deliver(refusal)

            nursery.start_soon(speak)
            response = await upstream.send(request(body=b"x" * 100_000 if large else b"{}"))
        assert (response.status, await read(response)) == (400, b"no")
        assert counts(upstream) == PoolStatistics(opened=1, reused=1, closed=1)


@pytest.mark.parametrize(("words", "phase"), [(b"", "send"), (b"HTTP/1.1 400 Bad", "head")])
async def test_a_connection_that_breaks_while_sending(words: bytes, phase: str) -> None:
    dialer = MemoryDialer()
    dialer.write_error = BrokenPipeError(32, "Broken pipe")
    dialer.answers = ([words, b""] if words else [b""],)
    async with pools(dialer) as upstream:
        with pytest.raises(UpstreamFailure) as caught:
            await upstream.send(request())
        failure = caught.value
        assert (failure.phase, failure.kind, failure.answered) == (phase, "reset", bool(words))
        assert counts(upstream) == PoolStatistics(opened=1, closed=1)


async def test_time_runs_out_while_sending(autojump_clock: MockClock) -> None:
    dialer = MemoryDialer()
    dialer.window = 1000
    async with pools(dialer) as upstream:
        start = trio.current_time()
        with pytest.raises(UpstreamFailure) as caught:
            await upstream.send(request(body=b"x" * 100_000, timeout_s=30))
        assert (caught.value.phase, caught.value.kind) == ("send", "timeout")
        assert trio.current_time() - start == pytest.approx(30, abs=0.02)


async def test_time_runs_out_for_an_upload_that_is_answered_but_never_ends(
    autojump_clock: MockClock,
) -> None:
    dialer = MemoryDialer([head_of_stream()])
    dialer.window = 1000
    async with pools(dialer) as upstream:
        with pytest.raises(UpstreamFailure) as caught:
            await upstream.send(request(body=b"x" * 100_000, timeout_s=30))
        assert (caught.value.phase, caught.value.kind) == ("send", "timeout")
        assert caught.value.answered
        assert counts(upstream) == PoolStatistics(opened=1, closed=1)


async def test_waiting_for_the_clients_bytes_is_no_time_of_the_upstreams(
    autojump_clock: MockClock,
) -> None:
    async with pools(dialer := MemoryDialer()) as upstream, trio.open_nursery() as nursery:

        async def answer_slowly() -> None:
            await trio.sleep(100 + 20)
            dialer.links[0].deliver(head_of("application/json"))
            await trio.sleep(5)
            dialer.links[0].deliver(chunk(b"ok"), b"0\r\n\r\n")

        nursery.start_soon(answer_slowly)
        made = request(body=slow_upload(100), timeout_s=30, whole_s=30)
        assert await exchange(upstream, made) == b"ok"


@pytest.mark.parametrize("phase", ["head", "body"])
async def test_what_the_upstream_takes_after_a_slow_client_is_its_own_time(
    autojump_clock: MockClock, phase: str
) -> None:
    async with pools(dialer := MemoryDialer()) as upstream, trio.open_nursery() as nursery:

        async def begin_to_answer() -> None:
            await trio.sleep(110)
            dialer.links[0].deliver(head_of("application/json"))

        if phase == "body":
            nursery.start_soon(begin_to_answer)
        made = request(body=slow_upload(100), timeout_s=30, silence_s=60, whole_s=30)
        with pytest.raises(UpstreamFailure) as caught:
            await exchange(upstream, made)
        assert (caught.value.phase, caught.value.kind) == (phase, "timeout")
        assert trio.current_time() == pytest.approx(130, abs=0.1)


async def test_a_stale_connection_under_a_slow_client_costs_the_request_nothing(
    autojump_clock: MockClock,
) -> None:
    dialer = MemoryDialer([ANSWER], [])
    async with pools(dialer) as upstream, trio.open_nursery() as nursery:
        await exchange(upstream)
        dialer.delay_s = 1.0

        async def go_stale() -> None:
            await trio.sleep(100)
            dialer.answers = ([ANSWER],)
            dialer.links[0].fail()

        nursery.start_soon(go_stale)
        body = slow_upload(99)
        assert await exchange(upstream, request(body=body, timeout_s=30)) == b"ok"
        assert (body.rewound, len(dialer.links)) == (2, 2)
