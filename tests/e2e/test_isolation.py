"""Nobody's trouble is anybody else's: one instance's, one client's."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import trio
from faulty_upstream import Wire, chunk, event, faulty_upstream, head_of_stream, serving, then_hang
from whole_service import chat, instance, open_descriptors, wait_until, whole_service

HANGING = 60
LATENCY_S = 5.0
"""Thousands of times what a request takes; one that waits for a hanging one takes a minute."""


async def test_an_instance_that_hangs_takes_nothing_from_another(tmp_path: Path) -> None:
    async with (
        faulty_upstream(then_hang()) as hanging,
        faulty_upstream(serving()) as well,
        whole_service(
            tmp_path,
            {
                "hanging": instance(hanging.url, supported_models=["other"], priority=0),
                "well": instance(well.url, priority=1),
            },
        ) as service,
        trio.open_nursery() as clients,
    ):
        for _ in range(HANGING):
            clients.start_soon(service.ask, chat("other"))
        await hanging.wait_open(HANGING)
        for _ in range(30):
            with trio.fail_after(LATENCY_S):
                status, _ = await service.ask(chat())
            assert status == 200
        assert well.connections == 1, "kept and used again, whatever the other instance does"
        assert hanging.open == HANGING
        one, two = service.service.system.statistics().instances
        assert (one.leases, two.leases) == (HANGING, 0)
        clients.cancel_scope.cancel()


async def test_failover_from_an_instance_that_hangs_uses_the_others_own_connections(
    tmp_path: Path,
) -> None:
    """The same when every request comes to the hanging one first."""
    async with (
        faulty_upstream(then_hang()) as hanging,
        faulty_upstream(serving()) as well,
        whole_service(
            tmp_path,
            {
                "hanging": instance(hanging.url, priority=0, timeout_seconds=0.2),
                "well": instance(well.url, priority=1),
            },
        ) as service,
    ):
        statuses: list[int] = []

        async def ask() -> None:
            statuses.append((await service.ask(chat()))[0])

        async with trio.open_nursery() as nursery:
            for _ in range(HANGING):
                nursery.start_soon(ask)
        assert statuses == [200] * HANGING
        await hanging.wait_open(0)


# -- slow clients ------------------------------------------------------------------------------

BUFFERS_BYTES = 16 * 1024 * 1024
"""Four kernel buffers at their largest (Linux: 4 MiB to send, 6 MiB to receive) hold less."""
MEMORY_BYTES = 1024 * 1024
"""One stream's share of this process: a read of 64 KiB, and copies of it on their way."""


class Flood:
    """An upstream's stream without an end. `sent_bytes`: taken from it so far."""

    def __init__(self) -> None:
        self.sent_bytes = 0
        self.ended = trio.Event()

    async def __call__(self, wire: Wire) -> None:
        await wire.read_request()
        await wire.send(head_of_stream())
        piece = chunk(event("x" * 2000)) * 10
        try:
            while True:
                await wire.send(piece)
                self.sent_bytes += len(piece)
        finally:
            self.ended.set()

    async def wait_blocked(self) -> None:
        """Returns once nothing has been taken for a while; fails if that does not happen."""
        before = -1
        while before != self.sent_bytes:
            before = self.sent_bytes
            assert self.sent_bytes < BUFFERS_BYTES
            await trio.sleep(0.3)


async def test_a_client_that_does_not_read_stops_its_own_upstream_and_nobody_else(
    tmp_path: Path,
) -> None:
    flood, kept = Flood(), serving()

    async def script(wire: Wire) -> None:
        await (flood(wire) if wire.number == 0 else kept(wire))

    async with (
        faulty_upstream(script) as upstream,
        whole_service(tmp_path, {"one": instance(upstream.url)}) as service,
    ):
        descriptors = open_descriptors()
        client = await service.connect(receive_buffer_bytes=64 * 1024)
        await client.send_all(chat(stream=True))
        await wait_until(lambda: flood.sent_bytes > 0)
        tracemalloc.start()
        try:
            before, _ = tracemalloc.get_traced_memory()
            with trio.fail_after(20):
                await flood.wait_blocked()
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak - before < MEMORY_BYTES
        for _ in range(20):
            with trio.fail_after(LATENCY_S):
                assert (await service.ask(chat()))[0] == 200
        taken = flood.sent_bytes
        await trio.sleep(0.1)
        assert flood.sent_bytes == taken, "it waits still"

        read = 0
        while flood.sent_bytes < taken + BUFFERS_BYTES // 4:
            read += len(await client.receive_some())
        assert read > BUFFERS_BYTES // 8, "once the client reads, the upstream goes on"

        await client.aclose()
        with trio.fail_after(5):
            await flood.ended.wait()
        await wait_until(lambda: service.service.system.statistics().instances[0].leases == 0)
        await wait_until(lambda: service.service.exchange.running == 0)
        await wait_until(lambda: open_descriptors() <= descriptors + 2)
