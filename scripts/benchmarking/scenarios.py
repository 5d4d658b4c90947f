"""What is measured: each scenario puts one kind of load on one peer and gives figures.

The name of a figure ends in its unit.
"""

from __future__ import annotations

import asyncio
import gc
import math
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from .load import ClosedLoop, OpenLoop, Tally, run_load
from .meter import SystemTime, cpu_s
from .peers import Setting
from .running import PeerFailed, Running, running
from .wire import COUNTED_MODEL, CROWDED_MODEL, MODEL, StreamShape, chat_body, chat_request

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from .peers import Peer
    from .results import Sample

CONNECTIONS = 64
SMALL_BYTES = 400
_RATE_PER_S = 100
_FAST = StreamShape(events=50, pause_s=0)
_FAST_CONNECTIONS = 16
_PACED = StreamShape(events=50, pause_s=0.02)
_PACED_CONNECTIONS = 50
_OPEN = StreamShape(events=60, pause_s=4)  # open for four minutes: nobody looks that long
_OPENED_PER_S = 200
_LARGE_KB_AND_RATE = ((100, 50), (1000, 10))
_COUNTED_KB_AND_RATE = (1000, 4)  # counting takes a tenth of a second of some core's time each
_INSTANCES = (1, 10, 100)
_CROWD = 1000
_PATIENCE_MS = 900_000
_IDLE_S = 1.0
_ANSWERED_WITHIN_S = 60.0


@dataclass(frozen=True, slots=True)
class Plan:
    """How often and how long things are done."""

    repeats: int
    warm_s: float
    measure_s: float
    latency_s: float
    open_streams: int


FULL = Plan(repeats=3, warm_s=2, measure_s=8, latency_s=30, open_streams=2000)
QUICK = Plan(repeats=1, warm_s=0.5, measure_s=2, latency_s=4, open_streams=200)


@dataclass(frozen=True, slots=True)
class Bench:
    """What all measurements of a run share."""

    plan: Plan
    peer_cores: set[int]
    rest_cores: set[int]
    upstream_port: int
    upstream_pid: int

    def running(self, peer: Peer, setting: Setting = Setting()) -> AbstractContextManager[Running]:
        return running(peer, self.upstream_port, self.peer_cores, setting)


def requests(bench: Bench, peer: Peer) -> Sample:
    """Small requests as fast as the peer answers them."""
    return _closed_loop(bench, peer, Setting())


def instances(bench: Bench, peer: Peer) -> Sample:
    """The same with few and many instances: the cost has to stay flat."""
    sample: Sample = {"errors": 0.0, "others_busy_share": 0.0}
    for count in _INSTANCES:
        one = _closed_loop(bench, peer, Setting(instances=count))
        sample["errors"] += one["errors"]
        sample["others_busy_share"] = max(sample["others_busy_share"], one["others_busy_share"])
        sample[f"cpu_with_{count}_us"] = one["cpu_us"]
        sample[f"requests_with_{count}_per_s"] = one["requests_per_s"]
    return sample


def waiting(bench: Bench, peer: Peer) -> Sample:
    """The same alone, and then with a crowd that waits for an instance whose minute is full."""
    crowded = chat_request(
        chat_body(SMALL_BYTES, model=CROWDED_MODEL),
        peer.authorization,
        {"x-max-wait-ms": str(_PATIENCE_MS)},
    )

    async def measure(target: Running) -> Sample:
        alone = await closed_loop_on(bench, peer, target)
        crowd = ClosedLoop(target.port, [crowded], _CROWD, spread_s=_CROWD / _OPENED_PER_S)
        await crowd.start()
        await asyncio.sleep(_CROWD / _OPENED_PER_S + 1)
        beside = await closed_loop_on(bench, peer, target)
        waiting = crowd.waiting()
        crowd.stop()
        if waiting < _CROWD:
            raise PeerFailed(f"{peer.name}: only {waiting} of {_CROWD} requests were waiting")
        return {
            "cpu_alone_us": alone["cpu_us"],
            "cpu_beside_us": beside["cpu_us"],
            "p99_alone_ms": alone["p99_ms"],
            "p99_beside_ms": beside["p99_ms"],
            "others_busy_share": max(alone["others_busy_share"], beside["others_busy_share"]),
            "errors": alone["errors"] + beside["errors"] + crowd.tally.errors,
        }

    with bench.running(peer, Setting(also=CROWDED_MODEL)) as target:
        return run_load(lambda: measure(target))


def _closed_loop(bench: Bench, peer: Peer, setting: Setting) -> Sample:
    with bench.running(peer, setting) as target:
        return run_load(lambda: closed_loop_on(bench, peer, target))


async def closed_loop_on(bench: Bench, peer: Peer, target: Running) -> Sample:
    """As `requests`, at a peer that runs already."""
    request = chat_request(chat_body(SMALL_BYTES), peer.authorization)
    load = ClosedLoop(target.port, [request], CONNECTIONS)
    seen = await _observe(bench, target, load, bench.plan.warm_s, bench.plan.measure_s)
    answers = load.tally.answers
    return {
        "requests_per_s": answers / seen.seconds,
        "upstream_cpu_us": seen.upstream_cpu_s / answers * 1e6,
        "load_cpu_us": seen.load_cpu_s / answers * 1e6,
        "rest_busy_share": seen.rest_busy_share,
        **_cost(target, seen, answers),
        **_latency(load.tally),
    }


def latency(bench: Bench, peer: Peer) -> Sample:
    """Small requests at a fixed rate that keeps no peer busy: what the way through it adds."""
    request = chat_request(chat_body(SMALL_BYTES), peer.authorization)

    async def measure(target: Running) -> Sample:
        load = OpenLoop(target.port, request, _RATE_PER_S)
        seen = await _observe(bench, target, load, bench.plan.warm_s, bench.plan.latency_s)
        return {
            "kept_up_share": seen.answers / seen.seconds / _RATE_PER_S,
            **_cost(target, seen, seen.answers),
            **_latency(load.tally),
        }

    with bench.running(peer) as target:
        return run_load(lambda: measure(target), precise=True)


def fast_streams(bench: Bench, peer: Peer) -> Sample:
    """Streams whose events come as fast as they can."""
    return _streams(bench, peer, _FAST, _FAST_CONNECTIONS)


def paced_streams(bench: Bench, peer: Peer) -> Sample:
    """Streams whose events come one by one, as a model writes them."""
    return _streams(bench, peer, _PACED, _PACED_CONNECTIONS)


def _streams(bench: Bench, peer: Peer, shape: StreamShape, connections: int) -> Sample:
    request = chat_request(chat_body(SMALL_BYTES, shape), peer.authorization)
    length_s = shape.events * shape.pause_s

    async def measure(target: Running) -> Sample:
        load = ClosedLoop(
            target.port, [request], connections, pause_s=shape.pause_s, spread_s=length_s
        )
        warm_s = bench.plan.warm_s + length_s
        seen = await _observe(bench, target, load, warm_s, bench.plan.measure_s)
        tally = load.tally
        return {
            "events_per_s": tally.events / seen.seconds,
            "rest_busy_share": seen.rest_busy_share,
            "first_content_p50_ms": percentile(tally.first_contents_s, 0.5) * 1e3,
            **_cost(target, seen, tally.events),
            **_delay(tally),
        }

    with bench.running(peer) as target:
        return run_load(lambda: measure(target))


def open_streams(bench: Bench, peer: Peer) -> Sample:
    """Many streams at once, each with an event now and then: memory and CPU of the open ones."""
    count = bench.plan.open_streams
    small = chat_request(chat_body(SMALL_BYTES), peer.authorization)
    request = chat_request(chat_body(SMALL_BYTES, _OPEN), peer.authorization)
    spread_s = count / _OPENED_PER_S

    async def measure(target: Running) -> Sample:
        warm = ClosedLoop(target.port, [small], CONNECTIONS)
        before = await _observe(bench, target, warm, 0, bench.plan.warm_s)
        load = ClosedLoop(target.port, [request], count, pause_s=_OPEN.pause_s, spread_s=spread_s)
        warm_s = spread_s + _OPEN.pause_s
        rounds = math.ceil(bench.plan.measure_s / _OPEN.pause_s)  # of one event in each stream
        seen = await _observe(bench, target, load, warm_s, rounds * _OPEN.pause_s)
        if load.answering() < count:
            raise PeerFailed(f"{peer.name}: only {load.answering()} of {count} streams were open")
        grown_bytes = seen.resident_bytes - before.resident_bytes
        return {
            "memory_per_stream_kib": grown_bytes / count / 1024,
            "cpu_share": seen.peer_cpu_s / seen.seconds,
            **_cost(target, seen, load.tally.events),
            **_delay(load.tally),
        }

    with bench.running(peer) as target:
        return run_load(lambda: measure(target))


def large_prompts(bench: Bench, peer: Peer) -> Sample:
    """Large prompts at a fixed rate, and beside them small requests, which must not suffer."""
    with bench.running(peer) as target:
        beside_100_kb, beside_1_mb = (
            run_load(partial(_canary, bench, peer, target, MODEL, kilobytes, per_s), precise=True)
            for kilobytes, per_s in _LARGE_KB_AND_RATE
        )
    errors = beside_100_kb["errors"] + beside_1_mb["errors"]
    return {**beside_100_kb, **beside_1_mb, "errors": errors}


def counted_prompts(bench: Bench, peer: Peer) -> Sample:
    """As `large_prompts`, of 1 MB, but of a model with an input limit between the fewest and the
    most tokens that such a prompt could have: each is counted exactly."""
    kilobytes, per_s = _COUNTED_KB_AND_RATE
    large = chat_request(chat_body(kilobytes * 1000, model=COUNTED_MODEL), peer.authorization)

    async def measure(target: Running) -> Sample:
        await answered(peer, ClosedLoop(target.port, [large], 1), 1)  # builds the vocabulary
        return await _canary(bench, peer, target, COUNTED_MODEL, kilobytes, per_s)

    with bench.running(peer, Setting(also=COUNTED_MODEL)) as target:
        return run_load(lambda: measure(target), precise=True)


async def _canary(
    bench: Bench, peer: Peer, target: Running, model: str, kilobytes: int, per_s: float
) -> Sample:
    """Small requests beside large ones of `model`."""
    small = chat_request(chat_body(SMALL_BYTES), peer.authorization)
    large = chat_request(chat_body(kilobytes * 1000, model=model), peer.authorization)
    prompts = OpenLoop(target.port, large, per_s)
    canary = OpenLoop(target.port, small, _RATE_PER_S)
    await prompts.start()
    started_at = time.perf_counter()
    seen = await _observe(bench, target, canary, bench.plan.warm_s, bench.plan.measure_s)
    prompts.stop()
    due = per_s * (time.perf_counter() - started_at)
    latencies = canary.tally.latencies_s
    return {
        f"canary_p50_beside_{kilobytes}_kb_ms": percentile(latencies, 0.5) * 1e3,
        f"canary_p99_beside_{kilobytes}_kb_ms": percentile(latencies, 0.99) * 1e3,
        "kept_up_share": prompts.tally.answers / due,
        "others_busy_share": seen.others_busy_share,
        "errors": float(canary.tally.errors + prompts.tally.errors),
    }


async def answered(peer: Peer, load: ClosedLoop, count: int) -> None:
    """So many requests of the load have been answered, whatever with. It has ended afterwards.

    Errors: `PeerFailed` when that takes a minute.
    """
    await load.start()
    deadline = time.perf_counter() + _ANSWERED_WITHIN_S
    while load.tally.answers + load.tally.errors < count:
        await asyncio.sleep(0.05)
        if time.perf_counter() > deadline:
            raise PeerFailed(f"{peer.name}: {count} answers took a minute")
    load.stop()
    await asyncio.sleep(0)  # closes the connections


def start(bench: Bench, peer: Peer) -> Sample:
    """From the start of the process to its first answer, and its memory when nothing happens."""
    with bench.running(peer) as target:
        time.sleep(_IDLE_S)
        return {
            "first_answer_s": target.started_s,
            "idle_memory_mb": target.resident_bytes() / 1e6,
            "errors": 0.0,
        }


def percentile(values: list[float], share: float) -> float:
    """The smallest value that at least `share` of all do not exceed; nan of none."""
    if not values:
        return math.nan
    return sorted(values)[max(math.ceil(share * len(values)) - 1, 0)]


@dataclass(frozen=True, slots=True)
class Observed:
    """What a measurement used while the load was counted."""

    seconds: float
    answers: int
    """In that time; an open load gets the rest of its answers after it."""
    peer_cpu_s: float
    upstream_cpu_s: float
    load_cpu_s: float
    rest_busy_share: float
    """Of the cores of load and upstream: near 1, they hold the peer back."""
    others_busy_share: float
    """Of the machine, by processes that are none of ours: they spoil the figures."""
    resident_bytes: int
    """At the end, with the load still on."""


async def _observe(
    bench: Bench, target: Running, load: ClosedLoop | OpenLoop, warm_s: float, measure_s: float
) -> Observed:
    """Starts the load, lets it warm up, and counts. The load has ended afterwards.

    Errors: `PeerFailed` when nothing came back.
    """
    await load.start()
    await asyncio.sleep(warm_s)
    gc.collect()
    gc.disable()  # a collection here would look like a pause of the peer
    load.tally.reset()
    system = SystemTime.now()
    before = _clocks(bench, target)
    await asyncio.sleep(measure_s)
    seconds, peer, upstream, own = (
        after - start for after, start in zip(_clocks(bench, target), before, strict=True)
    )
    others = SystemTime.now().used_s_since(system) - peer - upstream - own
    resident = target.resident_bytes()
    answers = load.tally.answers
    if isinstance(load, OpenLoop):
        await load.settle()
    gc.enable()
    load.stop()
    await asyncio.sleep(0)  # closes the connections
    if not answers and not load.tally.events:
        raise PeerFailed(f"no answer in {measure_s} s")
    return Observed(
        seconds=seconds,
        answers=answers,
        peer_cpu_s=peer,
        upstream_cpu_s=upstream,
        load_cpu_s=own,
        rest_busy_share=(upstream + own) / seconds / len(bench.rest_cores),
        others_busy_share=others / seconds / len(bench.peer_cores | bench.rest_cores),
        resident_bytes=resident,
    )


def _clocks(bench: Bench, target: Running) -> tuple[float, float, float, float]:
    return (
        time.perf_counter(),
        target.cpu_s(),
        cpu_s(bench.upstream_pid),
        time.process_time(),
    )


def _cost(target: Running, seen: Observed, count: int) -> Sample:
    """CPU per answer or event, unless the peer is no process, and how much it can be trusted."""
    figures = {"others_busy_share": seen.others_busy_share}
    if target.pid is not None:
        figures["cpu_us"] = seen.peer_cpu_s / count * 1e6
    return figures


def _latency(tally: Tally) -> Sample:
    figures = {
        f"p{name}_ms": percentile(tally.latencies_s, share) * 1e3
        for name, share in (("50", 0.5), ("99", 0.99), ("99_9", 0.999))
    }
    return figures | {"errors": float(tally.errors)}


def _delay(tally: Tally) -> Sample:
    """How much later an event came than if there were nothing between it and the client."""
    figures: Sample = {"errors": float(tally.errors)}
    if tally.event_delays_s:
        figures["event_delay_p99_ms"] = percentile(tally.event_delays_s, 0.99) * 1e3
    return figures
