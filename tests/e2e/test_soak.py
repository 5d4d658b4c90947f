"""Traffic of every kind through the whole service over sockets; afterwards all is as before.

Whatever is counted is counted when nothing is under way, and compared with what it was after a
first round, because that round fills what is meant to be kept: connections, caches, estimates.
"""

from __future__ import annotations

import gc
import random
import tracemalloc
from collections import Counter
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest
import trio
from faulty_upstream import (
    FaultyUpstream,
    Script,
    Wire,
    answer,
    chunk,
    event,
    faulty_upstream,
    head_of_stream,
)
from whole_service import Whole, chat, instance, open_descriptors, talk, wait_until, whole_service

from proxy.exchange.record import RecentRequests

CLIENTS = 24
MEMORY_BYTES = 300_000
"""More than rounds differ by (200 KB, however many there are: as connections are kept or not), less
than a record or a task for each request of two rounds would take."""

DONE = chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"


# -- upstreams ---------------------------------------------------------------------------------


def upstream(rng: random.Random, faulty: float) -> Script:
    """Streams what is to be streamed, else answers; a share of the requests meets a fault."""

    async def script(wire: Wire) -> None:
        while True:
            request = await wire.read_request()
            streamed = b'"stream": true' in request.body
            if rng.random() < faulty:
                await rng.choice((fail, limit, cut, hang, garble, disconnect))(wire)
                if rng.random() < 0.5:
                    return
            elif streamed:
                await stream(wire, rng.randrange(1, 30))
            else:
                await wire.send(answer())

    return script


async def always_cut(wire: Wire) -> None:
    """Not by a reset, which might overtake what was sent before it."""
    await wire.read_request()
    await wire.send(head_of_stream() + chunk(event("0")) + chunk(event("1")))
    await wire.close()


async def stream(wire: Wire, events: int) -> None:
    await wire.send(head_of_stream())
    for number in range(events):
        await wire.send(chunk(event("word " * 80)))
        if number % 20 == 0:
            await trio.sleep(0.002)
    await wire.send(DONE)


async def fail(wire: Wire) -> None:
    body = b'{"error": {"code": "InternalServerError", "message": "no"}}'
    await wire.send(answer(body, "500 Internal Server Error"))


async def limit(wire: Wire) -> None:
    body = b'{"error": {"code": "429", "message": "call rate limit"}}'
    await wire.send(answer(body, "429 Too Many Requests", "retry-after-ms: 20\r\n"))


async def cut(wire: Wire) -> None:
    await wire.send(head_of_stream() + chunk(event("0")) + chunk(event("1")))
    await wire.reset()


async def hang(wire: Wire) -> None:
    await wire.wait_closed()


async def garble(wire: Wire) -> None:
    await wire.send(head_of_stream() + chunk(event()) + b"zz\r\n")


async def disconnect(wire: Wire) -> None:
    await wire.close()


# -- clients -----------------------------------------------------------------------------------


async def plain(service: Whole, rng: random.Random) -> str:
    """Several requests on one connection."""
    client = await service.connect()
    statuses = [(await talk(client, chat()))[0] for _ in range(rng.randrange(1, 5))]
    await client.aclose()
    return str(statuses[-1])


async def streaming(service: Whole, rng: random.Random) -> str:
    status, body = await service.ask(chat(stream=True))
    return f"cut {status}" if b"event: error" in body else f"stream {status}"


async def broken_off(service: Whole, rng: random.Random) -> str:
    """Until the breaker opens: then nobody is asked, and nobody waits for that here."""
    request = chat("cut", stream=True).replace(b"\r\n", b"\r\nx-max-wait-ms: 0\r\n", 1)
    status, body = await service.ask(request)
    return "broken off" if b"event: error" in body else f"cut {status}"


async def slow(service: Whole, rng: random.Random) -> str:
    """Reads a little now and then."""
    client = await service.connect(receive_buffer_bytes=4096)
    await client.send_all(chat(stream=True))
    received = b""
    while not received.endswith(b"0\r\n\r\n"):
        data = bytes(await client.receive_some(1500))
        if not data:
            break
        received += data
        await trio.sleep(0.001)
    await client.aclose()
    return "slow"


async def leaving(service: Whole, rng: random.Random) -> str:
    """Before, in, or after the answer's beginning."""
    client = await service.connect()
    await client.send_all(chat(stream=rng.random() < 0.8)[: rng.choice((30, 250, None))])
    with trio.move_on_after(rng.uniform(0, 0.02)):
        await client.receive_some()
    await client.aclose()
    return "left"


async def wrong(service: Whole, rng: random.Random) -> str:
    """Its own mistake."""
    request = rng.choice((chat("no-such-model"), b"GARBAGE\r\n\r\n", chat(stream="maybe")))  # type: ignore[arg-type]
    return f"wrong {(await service.ask(request))[0]}"


async def page(service: Whole, rng: random.Random) -> str:
    """Served by the application."""
    path = rng.choice((b"/healthz", b"/readyz", b"/admin/instances"))
    request = b"GET %b HTTP/1.1\r\nhost: x\r\nx-admin-api-key: admin-key-for-tests\r\n\r\n" % path
    return f"page {(await service.ask(request))[0]}"


KINDS = (plain, plain, streaming, streaming, broken_off, slow, leaving, leaving, wrong, page)


# -- what is counted ---------------------------------------------------------------------------


class Counts(NamedTuple):
    """At rest. `tasks`, `descriptors`: without those of kept upstream connections, of which
    either end may know first that they have ended."""

    tasks: int
    descriptors: int
    clients: int
    upstream_in_use: int
    running: int
    waiting: int
    leases: int
    reserved_tokens: int
    messages: int


def counts(service: Whole, upstreams: list[FaultyUpstream]) -> Counts:
    system = service.service.system.statistics()
    connections = service.service.listening.statistics()
    assert connections is not None
    pools = service.upstream.statistics().values()
    open_there = sum(each.open for each in upstreams)
    open_here = sum(pool.idle + pool.in_use for pool in pools)
    mailboxes = [system.router, system.supervisor, *(each.mailbox for each in system.instances)]
    return Counts(
        tasks=trio.lowlevel.current_statistics().tasks_living - open_there,
        descriptors=open_descriptors() - open_there - open_here,
        clients=connections.open,
        upstream_in_use=sum(pool.in_use for pool in pools),
        running=service.service.exchange.running,
        waiting=system.waiting,
        leases=sum(each.leases for each in system.instances),
        reserved_tokens=sum(each.reserved_tokens for each in system.instances),
        messages=sum(each.waiting_requests + each.waiting_control for each in mailboxes),
    )


def memory_bytes() -> int:
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


class Soak:
    def __init__(self, service: Whole, upstreams: list[FaultyUpstream], seed: int) -> None:
        self.outcomes: Counter[str] = Counter()
        self._service = service
        self._upstreams = upstreams
        self._rng = random.Random(seed)

    async def round(self, requests: int) -> None:
        left = iter(range(requests))
        async with trio.open_nursery() as nursery:
            for _ in range(CLIENTS):
                nursery.start_soon(self._work, left)
        await wait_until(lambda: counts(self._service, self._upstreams).clients == 0)
        await wait_until(lambda: counts(self._service, self._upstreams).messages == 0)
        for upstream in self._upstreams:
            upstream.requests.clear()
        await trio.sleep(0.3)  # the log of requests writes what it has every tenth of a second

    async def _work(self, left: object) -> None:
        for _ in left:  # type: ignore[attr-defined]
            kind = self._rng.choice(KINDS)
            try:
                self.outcomes[await kind(self._service, self._rng)] += 1
            except (EOFError, trio.BrokenResourceError):
                self.outcomes["cut"] += 1
            except ConnectionResetError:
                # By the kernel, now and then, when ports of the loopback are used again quickly.
                self.outcomes["not connected"] += 1

    async def at_rest(self) -> Counts:
        """The least of several counts: a file that is just being written has a descriptor too."""
        seen = []
        for _ in range(10):
            await trio.sleep(0.05)
            seen.append(counts(self._service, self._upstreams))
        return min(seen, key=lambda count: count.descriptors)

    async def wait_same(self, before: Counts) -> None:
        """What is cut or closed is gone within a moment; fails if it stays."""
        with trio.move_on_after(5):
            while counts(self._service, self._upstreams) != before:  # noqa: ASYNC110 - see wait_until
                await trio.sleep(0.05)
        assert counts(self._service, self._upstreams) == before


async def soak(folder: Path, rounds: int, requests: int) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")  # shown when it fails
    rng = random.Random(seed)
    async with (
        faulty_upstream(upstream(rng, faulty=0.25)) as troubled,
        faulty_upstream(upstream(rng, faulty=0.0)) as well,
        faulty_upstream(always_cut) as cutting,
        whole_service(
            folder,
            {
                "troubled": instance(troubled.url, priority=0, timeout_seconds=0.5),
                "well": instance(well.url, priority=1),
                "cutting": instance(cutting.url, supported_models=["cut"]),
            },
            LOG_LEVEL="WARNING",
        ) as service,
    ):
        upstreams = [troubled, well, cutting]
        traffic = Soak(service, upstreams, seed)
        await traffic.round(requests)
        before = await traffic.at_rest()
        tracemalloc.start()
        try:
            await traffic.round(requests)
            used_bytes = memory_bytes()
            for _ in range(rounds):
                await traffic.round(requests)
                await traffic.wait_same(before)
            grown_bytes = memory_bytes() - used_bytes
        finally:
            tracemalloc.stop()
        assert grown_bytes < MEMORY_BYTES, f"{grown_bytes} in {rounds} rounds of {requests}"
        assert troubled.connections < 2 * rounds * requests
        assert well.open <= CLIENTS
        ordinary = {"200", "stream 200", "broken off", "slow", "left", "wrong 404", "page 200"}
        assert ordinary <= traffic.outcomes.keys()
        assert traffic.outcomes["not connected"] <= traffic.outcomes.total() / 1000
        failed = sum(
            n for what, n in traffic.outcomes.items() if what[-3:] in ("500", "502", "504")
        )
        assert failed == 0, traffic.outcomes


@pytest.fixture(autouse=True)
def _few_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is kept of the last requests is bounded too, but by more than a short soak sends."""
    monkeypatch.setattr("proxy.service.RecentRequests", partial(RecentRequests, 100))


async def test_after_traffic_of_every_kind_all_is_as_before(tmp_path: Path) -> None:
    await soak(tmp_path, rounds=2, requests=120)


@pytest.mark.long
async def test_after_much_traffic_all_is_as_before(tmp_path: Path) -> None:
    await soak(tmp_path, rounds=6, requests=400)
