"""Every fault of the wire, through the whole service: the rows of `docs/failures.md`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
import trio
from faulty_service import Faulty, Instance, chat_request, faulty_service, http2_chat_request
from faulty_upstream import CHAT, Script, Wire, chunk, event, head_of_stream, serving, stream
from trio.testing import wait_all_tasks_blocked
from wire_faults import ANSWER, DONE, FAULTS, LARGE_BYTES, NOTHING, STREAM, Fault

LIMIT_S = 20
HEALTHY: dict[bool, Script] = {False: serving(), True: serving(stream())}


def cell(number: int) -> tuple[str, bool, bool]:
    """Its name, whether it streams, whether there is a second instance."""
    streams, second = divmod(number, 2)
    kind = "stream" if streams else "plain"
    return f"{kind}-{'with-a-second' if second else 'alone'}", bool(streams), bool(second)


def instances(fault: Fault) -> list[Instance]:
    """For each cell its own: they have nothing in common but the service."""
    made = []
    for number in range(4):
        name, streams, second = cell(number)
        scripts = fault.stream if streams else fault.plain
        if scripts is None:
            continue
        models = {"supported_models": [name]}
        timeout = {"timeout_seconds": fault.timeout_s}
        made.append(Instance(f"{name}-faulty", scripts, models | timeout, https=fault.https))
        if second:
            made.append(Instance(f"{name}-healthy", (HEALTHY[streams],), models))
    return made


async def asked(http: httpx.AsyncClient, model: str, *, streams: bool) -> str:
    """What a client sees of the answer, in the words of the table."""
    body, size = b"", 0
    document = {"model": model, "messages": [{"role": "user", "content": "hi"}], "stream": streams}
    async with http.stream("POST", "/v1/chat/completions", json=document) as answer:
        async for piece in answer.aiter_raw():
            size += len(piece)
            body += piece[: 2 * 1024 * 1024 - len(body)]
    if answer.status_code != 200:
        if 0 <= size - 1024 * 1024 < 64 * 1024:
            return f"{answer.status_code} with the first MiB"
        error = json.loads(body)["error"]
        return f"{answer.status_code} `{error['code']}`"
    return streamed(body) if streams else whole(body, size)


def whole(body: bytes, size: int) -> str:
    assert body == CHAT or size == LARGE_BYTES
    return ANSWER


def streamed(body: bytes) -> str:
    assert body.endswith(b"\n\n")
    *events, last = body[:-2].split(b"\n\n")
    assert not any(b"error" in event for event in events)
    if last + b"\n\n" == DONE:
        return STREAM
    assert b"[DONE]" not in body
    name, data = last.split(b"\n")
    assert name == b"event: error"
    error = json.loads(data.removeprefix(b"data: "))["error"]
    count = sum(b'"role"' not in event for event in events)
    return f"{count} event{'s' if count > 1 else ''}, then `{error['code']}`"


TELLING = (
    "reset before the head",
    "closed after two events",
    "silence in the body, of a stream before its first output",
    "one byte per packet",
    "`content-length` larger than the body",
    "error event after two events",
)
"""Faults in every phase, to be tried through Hypercorn, too; what is done about them is the same
code."""


@pytest.mark.parametrize("fault", FAULTS, ids=[fault.name for fault in FAULTS])
async def test_what_the_client_sees(fault: Fault, tmp_path: Path) -> None:
    await see(fault, tmp_path)


@pytest.mark.parametrize("name", TELLING)
async def test_what_a_client_sees_over_http2(name: str, tmp_path: Path) -> None:
    (fault,) = (fault for fault in FAULTS if fault.name == name)
    await see(fault, tmp_path, http2=True)


async def see(fault: Fault, folder: Path, *, http2: bool = False) -> None:
    seen = [NOTHING] * 4

    async def try_cell(running: Faulty, number: int) -> None:
        name, streams, _ = cell(number)
        for _ in range(fault.served):
            assert await asked(running.http, name, streams=streams) in (ANSWER, STREAM)
        seen[number] = await asked(running.http, name, streams=streams)

    with trio.fail_after(LIMIT_S):
        settings = {"MAX_QUEUE_WAIT_SECONDS": "1"}
        tried = instances(fault)
        async with faulty_service(folder, *tried, settings=settings, http2=http2) as running:
            async with trio.open_nursery() as nursery:
                for number in range(4):
                    if (fault.plain, fault.stream)[number // 2] is not None:
                        nursery.start_soon(try_cell, running, number)
            assert running.reserved() == 0
    assert tuple(seen) == fault.expected


def test_before_the_first_output_a_healthy_second_instance_always_helps() -> None:
    for fault in FAULTS:
        _, plain, _, streamed = fault.expected
        assert plain in (ANSWER, NOTHING), fault.name
        assert streamed in (STREAM, NOTHING) or " event" in streamed, fault.name


@pytest.mark.parametrize("request_", [chat_request, http2_chat_request])
async def test_a_client_that_does_not_read_holds_up_its_own_upstream_and_nobody_else(
    request_: Callable[..., bytes], tmp_path: Path
) -> None:
    sent = 0

    async def endless(wire: Wire) -> None:
        nonlocal sent
        await wire.read_request()
        await wire.send(head_of_stream())
        while sent < LARGE_BYTES:
            await wire.send(chunk(event("x" * 10_000)) * 10)
            sent += 100_000

    instance = Instance("one", (endless, serving()))
    with trio.fail_after(LIMIT_S):
        async with faulty_service(tmp_path, instance) as running:
            async with await running.connect() as idle:
                await idle.send_all(request_(stream=True))
                seen = -1
                while seen != sent:  # until nobody can send any more
                    seen = sent
                    await wait_all_tasks_blocked(0.03)
                # The kernel's buffers on the way, and a few pieces of 64 KiB.
                assert 0 < sent < 0.5 * LARGE_BYTES
                assert await asked(running.http, "gpt-4o", streams=False) == ANSWER
            await running.upstreams["one"].wait_open(1)  # the connection that served the other
            await wait_all_tasks_blocked(0.01)
            assert running.reserved() == 0
