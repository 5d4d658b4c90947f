"""Clients that leave, at every moment of a request, through the whole service."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import trio
from faulty_service import Faulty, Instance, chat_request, faulty_service, http2_chat_request
from faulty_upstream import Script, Wire, answer, chunk, event, head_of_stream, serving, then_hang
from trio.testing import wait_all_tasks_blocked

BOTH_WAYS = pytest.mark.parametrize("request_", [chat_request, http2_chat_request])
"""Through the engine, and through Hypercorn."""
LIMIT_S = 10
SOON_S = 1.0


async def until(condition: Callable[[], object]) -> None:
    while not condition():
        await wait_all_tasks_blocked(0.001)


async def freed(running: Faulty) -> None:
    """Returns when no lease is open and no request is in progress."""
    await until(lambda: not (running.reserved() or running.service.exchange.running))


async def counts_against_nobody(running: Faulty, name: str) -> None:
    state = await running.state(name)
    assert (state["error_count"], state["status"]) == (0, "healthy")
    assert running.service.system.statistics().waiting == 0


CHAT = {"model": "gpt-4o", "messages": []}
STARTED = head_of_stream() + chunk(event())


@BOTH_WAYS
@pytest.mark.parametrize(
    ("script", "stream", "sees"),
    [
        (then_hang(), False, b""),
        (then_hang(), True, b""),
        (then_hang(head_of_stream()), True, b""),
        (then_hang(answer()[:-10]), False, b""),
        (then_hang(STARTED), True, b"Hello"),
    ],
    ids=["before the head", "of a stream too", "before the first output", "in the body", "after"],
)
async def test_a_client_that_leaves_ends_its_upstream_call(
    script: Script, stream: bool, sees: bytes, request_: Callable[..., bytes], tmp_path: Path
) -> None:
    with trio.fail_after(LIMIT_S):
        async with faulty_service(tmp_path, Instance("one", (script, serving()))) as running:
            upstream = running.upstreams["one"]
            client = await running.connect()
            await client.send_all(request_(stream=stream))
            await upstream.wait_open(1)
            received = b""
            while sees not in received:
                received += await client.receive_some()
            await until(lambda: upstream.requests)
            assert running.reserved() == 1
            with trio.fail_after(SOON_S):
                await client.aclose()
                await upstream.wait_open(0)
                await freed(running)
            await counts_against_nobody(running, "one")
            assert (await running.http.post("/v1/chat/completions", json=CHAT)).status_code == 200


async def test_a_client_that_leaves_while_its_connection_is_made(tmp_path: Path) -> None:
    """The upstream accepts and never shakes hands."""

    async def silent(wire: Wire) -> None:
        await wire.wait_closed()

    with trio.fail_after(LIMIT_S):
        async with faulty_service(tmp_path, Instance("one", (silent,))) as running:
            upstream = running.upstreams["one"]
            secure = upstream.url.replace("http://", "https://")
            await running.service.system.administration.update_config("one", {"api_base": secure})
            client = await running.connect()
            await client.send_all(chat_request())
            await upstream.wait_open(1)
            with trio.fail_after(SOON_S):
                await client.aclose()
                await upstream.wait_open(0)
                await freed(running)
            await counts_against_nobody(running, "one")
            assert upstream.requests == []


@BOTH_WAYS
async def test_a_client_that_leaves_while_it_waits_for_a_lease(
    request_: Callable[..., bytes], tmp_path: Path
) -> None:
    instance = Instance("one", (serving(),), {"max_tpm": 100})
    with trio.fail_after(LIMIT_S):
        settings = {"MAX_QUEUE_WAIT_SECONDS": "120"}
        async with faulty_service(tmp_path, instance, settings=settings) as running:
            full = await running.http.post("/v1/chat/completions", json=CHAT | {"max_tokens": 80})
            assert full.status_code == 200
            client = await running.connect()
            await client.send_all(request_(max_tokens=80))
            statistics = running.service.system.statistics
            await until(lambda: statistics().waiting)
            with trio.fail_after(SOON_S):
                await client.aclose()
                await freed(running)
                await until(lambda: not statistics().waiting)
            await counts_against_nobody(running, "one")
            assert len(running.upstreams["one"].requests) == 1


async def test_a_removed_or_moved_instance_keeps_no_connection(tmp_path: Path) -> None:
    instances = [
        Instance(name, (serving(),), {"supported_models": [name]}) for name in ("gone", "moved")
    ]
    with trio.fail_after(LIMIT_S):
        async with faulty_service(tmp_path, *instances) as running:
            for name, upstream in running.upstreams.items():
                served = await running.http.post(
                    "/v1/chat/completions", json=CHAT | {"model": name}
                )
                assert served.status_code == 200
                assert upstream.open == 1
            administration = running.service.system.administration
            with trio.fail_after(SOON_S):
                await administration.update_config("moved", {"priority": 7})
                assert running.upstreams["moved"].open == 1
                elsewhere = running.upstreams["gone"].url
                await administration.update_config("moved", {"api_base": elsewhere})
                await running.upstreams["moved"].wait_open(0)
                await administration.remove("gone")
                await running.upstreams["gone"].wait_open(0)
