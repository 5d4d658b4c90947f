"""The pool over links in memory, on the virtual clock."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest
import trio
from exchanging import CONFIG, counts, exchange, pools, read, request
from faulty_upstream import CHAT, answer, chunk, head_of_stream
from harness import instance_config
from memory_link import ANSWER, MemoryDialer, MemoryLink

from actors.changes import Difference
from proxy.exchange.ports import UpstreamFailure
from proxy.upstream.origin import Proxy
from proxy.upstream.pool import PoolLimits, PoolStatistics

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio.testing import MockClock


class Upload:
    """A body in pieces. `gates` and `pauses_s` hold it up: when how many pieces are left."""

    def __init__(self, *pieces: bytes | Exception, length: int | None = None) -> None:
        self.pieces = pieces
        self.length = length
        self.rewound = 0
        self.left: list[bytes | Exception] = []
        self.gates: dict[int, trio.Event] = {}
        self.pauses_s: dict[int, float] = {}

    def rewind(self) -> None:
        self.rewound += 1
        self.left = list(self.pieces)

    async def read_chunk(self) -> bytes:
        await trio.sleep(self.pauses_s.get(len(self.left), 0))
        gate = self.gates.get(len(self.left))
        if gate is not None:
            await gate.wait()
        if not self.left:
            return b""
        piece = self.left.pop(0)
        if isinstance(piece, Exception):
            raise piece
        return piece


def slow_upload(pause_s: float) -> Upload:
    body = Upload(b"abc", b"def", length=6)
    body.pauses_s[1] = pause_s
    return body


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


# Time


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


def head_of(kind: str) -> bytes:
    head = f"HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ntransfer-encoding: chunked\r\n\r\n"
    return head.encode()


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


# Sending more than the network takes at once


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


# Instances


async def test_any_number_of_addresses_of_one_instance() -> None:
    dialer = MemoryDialer([ANSWER])
    async with pools(dialer) as upstream:
        for number in range(600):
            url = f"{CONFIG.api_base}/v1/responses/{number}"
            assert await exchange(upstream, request(url=url)) == b"ok"
        assert counts(upstream) == PoolStatistics(idle=1, opened=1, reused=599)
        targets = [line.split()[1] for line in dialer.links[0].sent.split(b"\n") if b"POST" in line]
        assert targets == [b"/v1/responses/%d" % number for number in range(600)]


async def test_instances_do_not_share_connections() -> None:
    dialer = MemoryDialer([ANSWER])
    twin = instance_config("two", api_base="http://one.example")
    async with pools(dialer) as upstream:
        await exchange(upstream)
        await exchange(upstream, request(twin))
        assert len(dialer.links) == 2
        assert counts(upstream, "one") == counts(upstream, "two")


async def test_a_new_key_keeps_the_connections_and_a_new_address_does_not() -> None:
    dialer = MemoryDialer([head_of_stream()], [ANSWER])
    moved = CONFIG.model_copy(update={"api_base": "http://moved.example:8080"})
    async with pools(dialer) as upstream:
        streaming = await upstream.send(request())
        await exchange(upstream, request(CONFIG.model_copy(update={"api_key": "another"})))
        await exchange(upstream, request(moved))
        assert [link.origin.authority for link in dialer.links] == [
            "one.example", "one.example", "moved.example:8080",
        ]  # fmt: skip
        dialer.links[0].deliver(chunk(b"still here"), b"0\r\n\r\n")
        assert await read(streaming) == b"still here"
        await exchange(upstream, request(moved))
        assert counts(upstream) == PoolStatistics(idle=3, opened=3, reused=1)


async def test_a_forgotten_instance_finishes_what_it_has_begun() -> None:
    dialer = MemoryDialer([head_of_stream()], [ANSWER])
    async with pools(dialer) as upstream:
        streaming = await upstream.send(request())
        await exchange(upstream)
        await upstream.forget("one")
        await upstream.forget("nobody")
        assert [link.closed for link in dialer.links] == [False, True]
        assert upstream.statistics() == {}
        dialer.links[0].deliver(chunk(b"end"), b"0\r\n\r\n")
        assert await read(streaming) == b"end"
        assert dialer.open_links == 0


async def test_of_a_change_only_what_moves_connections_closes_them() -> None:
    dialer = MemoryDialer([ANSWER])
    async with pools(dialer) as upstream:
        for change, closed in [
            (Difference(added=("two",), changed={"one": ("priority", "api_key")}), False),
            (Difference(removed=("two",)), False),
            (Difference(changed={"one": ("priority", "api_base")}), True),
            (Difference(changed={"one": ("proxy_url",)}), True),
            (Difference(removed=("one",)), True),
        ]:
            await exchange(upstream)
            upstream.follow(change)
            assert dialer.links[-1].closed == closed


async def test_the_proxy_comes_from_the_configuration_or_else_the_environment() -> None:
    dialer = MemoryDialer([ANSWER])
    environ = {"http_proxy": "http://user:pw@env.example:3128"}
    async with pools(dialer, environ=environ) as upstream:
        for fields in ({}, {"proxy_url": "http://own.example:1"}, {"proxy_url": ""}):
            config = instance_config("p", api_base="http://p.example", **fields)
            await exchange(upstream, request(config))
        assert [link.origin.proxy and link.origin.proxy.host for link in dialer.links] == [
            "env.example", "own.example", None,
        ]  # fmt: skip
        assert isinstance(dialer.links[0].origin.proxy, Proxy)
        assert dialer.links[0].sent.startswith(
            b"POST http://p.example/v1/chat/completions HTTP/1.1\r\nhost: p.example\r\n"
            b"proxy-authorization: Basic "
        )


async def test_a_proxy_that_can_not_be_used_is_no_way_round_it() -> None:
    environ = {"http_proxy": "socks5://u:secret@x"}
    async with pools(MemoryDialer([ANSWER]), environ=environ) as upstream:
        with pytest.raises(UpstreamFailure, match="scheme") as caught:
            await upstream.send(request(instance_config("s", api_base="http://s.example")))
        assert "secret" not in str(caught.value)


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
