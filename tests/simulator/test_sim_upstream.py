"""The in-memory upstream on a virtual clock: timing, failures, cancellation, settlement."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from simulator_calls import HELLO, deployment, resource, sse_events
from trio.testing import MockClock

from actors.models import InstanceConfig
from proxy.exchange.ports import Upstream, UpstreamFailure, UpstreamRequest, UpstreamResponse
from proxy.simulator.deployment import Latency
from proxy.simulator.faults import Fault
from proxy.simulator.limiter import Limits
from proxy.simulator.upstream import SimulatedUpstream

if TYPE_CHECKING:
    from proxy.simulator.resource import Resource

HOST = "sim.openai.azure.com"
STEADY = Latency(first_token_s=1.0, per_token_s=0.5, jitter_s=0.0)
ACTUAL = Limits(tpm=10_000, rpm=0, window="sliding", charging="actual")


def request(*, timeout_s: float = 60, silence_s: float = 60, **body: Any) -> UpstreamRequest:
    return UpstreamRequest(
        config=InstanceConfig(name="sim", api_key="simulated-key", api_base=f"https://{HOST}"),
        method="POST",
        url=f"https://{HOST}/openai/deployments/gpt-4o/chat/completions?api-version=2024-10-21",
        headers=[(b"api-key", b"simulated-key"), (b"content-type", b"application/json")],
        body=json.dumps({**HELLO, "max_tokens": 4, **body}).encode(),
        timeout_s=timeout_s,
        silence_s=silence_s,
    )


def upstream(sim: Resource) -> Upstream:
    return SimulatedUpstream({HOST: sim})


def steady(**changes: Any) -> Resource:
    return resource(deployment(latency=STEADY, answer_tokens=(50, 50), limits=ACTUAL), **changes)


async def read_all(response: UpstreamResponse) -> bytes:
    body = b""
    while chunk := await response.read_chunk():
        body += chunk
    assert await response.read_chunk() == b""
    await response.aclose()
    return body


async def test_a_plain_answer_comes_when_it_is_generated(autojump_clock: MockClock) -> None:
    sim = steady(gateway_s=0.25)
    response = await upstream(sim).send(request())
    assert trio.current_time() == pytest.approx(0.25 + 1 + 4 * 0.5)
    assert response.status == 200
    assert (b"x-ms-deployment-name", b"gpt-4o") in response.headers
    content = await read_all(response)
    assert (b"content-length", b"%d" % len(content)) in response.headers
    body = json.loads(content)
    assert body["created"] == 1_800_000_000
    assert sim.limiter("gpt-4o").tally().served_tokens == body["usage"]["total_tokens"] == 12


async def test_a_stream_comes_token_by_token(autojump_clock: MockClock) -> None:
    response = await upstream(steady()).send(request(stream=True))
    assert trio.current_time() == 0
    times = []
    stream = b""
    while chunk := await response.read_chunk():
        times.append(trio.current_time())
        stream += chunk
    # Filter and role at once, the first token after a second and its own half, then the rest.
    assert times == pytest.approx([0, 0, 1.5, 2.0, 2.5, 3.0, 3.0, 3.0])
    assert sse_events(stream)[-1] == (None, "[DONE]")


@pytest.mark.parametrize("stream", [False, True])
async def test_every_answer_generated_counts(autojump_clock: MockClock, stream: bool) -> None:
    sim = steady()
    await read_all(await upstream(sim).send(request(n=3, stream=stream)))
    assert sim.limiter("gpt-4o").tally().served_tokens == 8 + 3 * 4
    assert trio.current_time() == pytest.approx(3)


async def test_jitter_spreads_the_times_but_not_the_mean(autojump_clock: MockClock) -> None:
    latency = Latency(first_token_s=1.0, per_token_s=0.02, jitter_s=0.01)
    to = upstream(resource(deployment(latency=latency, answer_tokens=(100, 100))))
    taken = []
    for _ in range(50):
        begun = trio.current_time()
        await read_all(await to.send(request(max_tokens=100)))
        taken.append(trio.current_time() - begun)
    assert len(set(taken)) == 50
    assert sum(taken) / 50 == pytest.approx(3.0, abs=0.1)


async def test_generation_does_not_wait_for_a_slow_reader(autojump_clock: MockClock) -> None:
    response = await upstream(steady()).send(request(stream=True))
    await trio.sleep(10)
    await read_all(response)
    assert trio.current_time() == pytest.approx(10)


async def test_other_operations_do_not_hold_each_other_up(autojump_clock: MockClock) -> None:
    to = upstream(steady())

    async def call() -> None:
        await read_all(await to.send(request()))

    async with trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(call)
    assert trio.current_time() == pytest.approx(3)


async def failure(to: Upstream, sent: UpstreamRequest) -> UpstreamFailure:
    with pytest.raises(UpstreamFailure) as caught:
        await read_all(await to.send(sent))
    return caught.value


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("fault", "phase", "kind", "at"),
    [
        (Fault(kind="refuse"), "connect", "refused", 0),
        (Fault(kind="hang"), "head", "timeout", 30),
        (Fault(kind="cut", after_events=2), "body", "reset", None),
        (Fault(kind="hang_in_body", after_events=2), "body", "timeout", None),
    ],
)
async def test_failures_have_their_phase_and_kind(
    autojump_clock: MockClock, fault: Fault, phase: str, kind: str, at: float | None, stream: bool
) -> None:
    sim = steady()
    sim.faults.inject(fault)
    sent = request(stream=stream, timeout_s=30, silence_s=7)
    failed = await failure(upstream(sim), sent)
    assert (failed.phase, failed.kind) == (phase, kind)
    assert failed.answered == (phase == "body")
    begun = 0 if stream else 3
    expected = at if at is not None else begun + (7 if kind == "timeout" else 0)
    assert trio.current_time() == pytest.approx(expected)


async def test_a_slow_head_and_a_slow_token_time_out(autojump_clock: MockClock) -> None:
    to = upstream(steady())
    late_head = await failure(to, request(timeout_s=2.9))
    assert (late_head.phase, late_head.kind) == ("head", "timeout")
    assert trio.current_time() == pytest.approx(2.9)
    late_token = await failure(to, request(stream=True, silence_s=1.4))
    assert (late_token.phase, late_token.kind) == ("body", "timeout")
    assert trio.current_time() == pytest.approx(2.9 + 1.4)
    await read_all(await to.send(request(timeout_s=3.0)))


async def test_a_whole_body_has_its_time_and_a_stream_has_not(autojump_clock: MockClock) -> None:
    sim = steady()
    sim.faults.inject(Fault(kind="trickle", every_s=2.0, piece_bytes=1000))
    sent = request(silence_s=5)
    sent.whole_s = 6.5
    late = await failure(upstream(sim), sent)
    assert (late.phase, late.kind) == ("body", "timeout")
    assert trio.current_time() == pytest.approx(6.5)
    sent = request(stream=True, silence_s=5)
    sent.whole_s = 6.5
    assert (await read_all(await upstream(sim).send(sent))).endswith(b"[DONE]\n\n")


async def test_an_unknown_host(autojump_clock: MockClock) -> None:
    failed = await failure(SimulatedUpstream({}), request())
    assert (failed.phase, failed.kind, failed.answered) == ("connect", "dns", False)


@pytest.mark.parametrize(
    ("stream", "at", "generated"),
    [(False, 0.5, 0), (False, 1.5, 2), (True, 0.5, 0), (True, 2.25, 2), (True, 9, 4)],
)
async def test_a_cancelled_call_stops_there_and_counts_as_far_as_it_came(
    autojump_clock: MockClock, stream: bool, at: float, generated: int
) -> None:
    sim = steady()
    with trio.move_on_after(at):
        response = await upstream(sim).send(request(stream=stream))
        try:
            while await response.read_chunk():
                pass
            await trio.sleep_forever()
        finally:
            await response.aclose()
    tally = sim.limiter("gpt-4o").tally()
    assert (tally.settled, tally.served_tokens) == (1, 8 + generated)


async def test_closing_without_reading_settles_too(autojump_clock: MockClock) -> None:
    sim = steady()
    to = upstream(sim)
    response = await to.send(request(stream=True))
    await response.aclose()
    await response.aclose()
    assert await response.read_chunk() == b""
    assert sim.limiter("gpt-4o").tally().served_tokens == 8
    await to.forget("sim")


async def test_aclose_works_in_a_cancelled_scope(autojump_clock: MockClock) -> None:
    sim = steady()
    response = await upstream(sim).send(request(stream=True))
    with trio.CancelScope() as scope:
        scope.cancel()
        await response.aclose()
    assert sim.limiter("gpt-4o").tally().settled == 1


async def test_the_charge_of_a_cancelled_call_stays_where_the_estimate_stands(
    autojump_clock: MockClock,
) -> None:
    sim = resource(deployment(latency=STEADY, limits=Limits(tpm=1000, rpm=0)))
    with trio.move_on_after(0.1):
        await upstream(sim).send(request(max_tokens=500))
    assert sim.limiter("gpt-4o").standing(0.1).tokens.remaining == 1000 - 508


class Upload:
    """A body in pieces; `pause_s` before each."""

    def __init__(self, *pieces: bytes, pause_s: float = 0.0) -> None:
        self.length = None
        self._pieces = pieces
        self._left: list[bytes] = []
        self._pause_s = pause_s

    def rewind(self) -> None:
        self._left = list(self._pieces)

    async def read_chunk(self) -> bytes:
        await trio.sleep(self._pause_s)
        return self._left.pop(0) if self._left else b""


async def test_uploads_are_read_from_the_start_for_each_attempt(
    autojump_clock: MockClock,
) -> None:
    to = upstream(steady())
    sent = request()
    assert isinstance(sent.body, bytes)
    sent.body = Upload(sent.body[:9], sent.body[9:])
    for _ in range(2):
        assert (await to.send(sent)).status == 200
    sent.body = Upload(b"x", pause_s=50)
    failed = await failure(to, sent)
    assert (failed.phase, failed.kind) == ("send", "timeout")


async def test_hints_come_true_on_the_clock(autojump_clock: MockClock) -> None:
    sim = resource(deployment(limits=Limits(tpm=500, rpm=0, phase_s=17)))
    to = upstream(sim)
    await read_all(await to.send(request(max_tokens=400)))
    refused = await to.send(request(max_tokens=400))
    assert refused.status == 429
    hint_ms = int(dict(refused.headers)[b"retry-after-ms"])
    assert hint_ms == 17_000
    await trio.sleep(hint_ms / 1000)
    assert (await to.send(request(max_tokens=400))).status == 200


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32))
def test_an_hour_of_calls_and_cancellations_is_accounted_for_and_repeatable(seed: int) -> None:
    def hour() -> tuple[list[int], dict[int, int], int]:
        sim = resource(
            deployment(limits=Limits(tpm=6_000, rpm=60, pacing_s=10.0), chunk_tokens=40),
            seed=seed,
        )
        outcomes: list[int] = []
        trio.run(_traffic, sim, seed, outcomes, clock=MockClock(autojump_threshold=0))
        tally = sim.limiter("gpt-4o").tally()
        assert tally.settled == tally.admitted
        assert tally.admitted + tally.refused == 60
        assert sum(sim.statuses.values()) == 60
        return outcomes, dict(sim.statuses), tally.served_tokens

    assert hour() == hour()


async def _traffic(sim: Resource, seed: int, outcomes: list[int]) -> None:
    to = upstream(sim)

    async def one(number: int) -> None:
        await trio.sleep((number * 37 + seed) % 3600)
        with trio.move_on_after(1 + (number * 7 + seed) % 5):
            sent = request(stream=number % 2 == 0, max_tokens=50 + number * 10)
            response = await to.send(sent)
            try:
                await read_all(response)
                outcomes.append(response.status)
            finally:
                await response.aclose()

    async with trio.open_nursery() as nursery:
        for number in range(60):
            nursery.start_soon(one, number)
