"""Requests that wait for capacity, take their time, or leave."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio
from exchange_bench import ONE, Bench, bench
from fakes import FakeAnswer, FakeWriter, chat, completion
from harness import instance_config
from trio.testing import wait_all_tasks_blocked

from proxy.exchange.ports import UpstreamRequest


@asynccontextmanager
async def soon_free() -> AsyncIterator[Bench]:
    """An instance that has been full for 55 seconds: in 5 seconds it takes another request."""
    config = instance_config("one", max_tpm=100)
    async with bench(config, one=completion(input_tokens=90, output_tokens=10)) as b:
        await b.send(chat(max_tokens=80))
        await trio.sleep(55)
        yield b


async def test_the_priority_of_a_request_decides_its_place_in_the_line(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with soon_free() as b:
        async with trio.open_nursery() as nursery:
            for identity, priority in ((b"late", b"200"), (b"early", b"1")):
                request = chat(max_tokens=80)
                request.headers += [(b"x-priority", priority), (b"x-request-id", identity)]
                nursery.start_soon(b.send, request)
                await trio.sleep(0.1)
        outcomes = {record.id: record.status for record in b.records[1:]}
        assert outcomes == {"early": 200, "late": 429}


async def test_a_plain_answer_is_bounded_as_a_whole(autojump_clock: trio.testing.MockClock) -> None:
    slow = FakeAnswer(pieces=[(25.0, b"x")] * 10)
    config = instance_config("one", timeout_seconds=60.0, max_tpm=10**6)
    async with bench(config, one=slow) as b:
        started = trio.current_time()
        writer = await b.send(chat())
        assert (writer.status, trio.current_time() - started) == (504, 60.0)
        assert b.upstream.answers[0].closed


async def test_a_client_that_leaves_costs_nobody_anything() -> None:
    entered = trio.Event()

    async def hang(request: UpstreamRequest) -> FakeAnswer:
        entered.set()
        await trio.sleep_forever()

    async with bench(ONE, one=hang) as b:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(b.exchange.handle, chat(), FakeWriter())
            await entered.wait()
            nursery.cancel_scope.cancel()
        await wait_all_tasks_blocked()
        assert b.system.standing("one").error_count == 0
        assert b.records[0].status == 499


async def test_saturation_is_told_with_a_time_that_is_true(
    autojump_clock: trio.testing.MockClock,
) -> None:
    config = instance_config("one", max_tpm=100)
    async with bench(config, one=completion(input_tokens=90, output_tokens=10)) as b:
        assert (await b.send(chat(max_tokens=80))).status == 200
        refused = await b.send(chat(max_tokens=80))
        assert refused.status == 429
        assert refused.error()["code"] == "rate_limit_exceeded"
        wait_ms = int(refused.header(b"retry-after-ms") or 0)
        assert int(refused.header(b"retry-after") or 0) * 1000 >= wait_ms
        assert 49_000 <= wait_ms <= 60_200
        await trio.sleep(wait_ms / 1000)
        assert (await b.send(chat(max_tokens=80))).status == 200


async def test_a_request_waits_for_capacity_that_is_coming(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with soon_free() as b:
        started = trio.current_time()
        assert (await b.send(chat(max_tokens=80))).status == 200
        assert 4.9 <= trio.current_time() - started <= 5.3
