"""Whatever an exchange is doing when it is cancelled: no connection, place or task is left over,
and what can be kept is kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing
from cancelling import cancel_at_each_step
from faulty_upstream import answer, chunk, head_of_stream
from harness import instance_config
from memory_link import ANSWER, MemoryDialer, MemoryLink

from proxy.exchange.ports import UploadBody, UpstreamRequest
from proxy.upstream.instances import InstancePools
from proxy.upstream.pool import PoolLimits
from proxy.upstream.watch import Watch

if TYPE_CHECKING:
    from collections.abc import Iterable

CONFIG = instance_config("one", api_base="http://one.example")
BYTE_BY_BYTE = [answer()[n : n + 1] for n in range(len(answer()))]
STREAM = [head_of_stream(), chunk(b"a"), chunk(b"b"), b"0\r\n\r\n"]


class Pieces:
    length: int | None = None

    def rewind(self) -> None:
        self.left = [b"abc", b"def"]

    async def read_chunk(self) -> bytes:
        await trio.lowlevel.checkpoint()
        return self.left.pop(0) if self.left else b""


class SlowDialer(MemoryDialer):
    """Dialling takes steps, and so does sending: `window` bytes, then 10 at a time."""

    def __init__(self, answers: Iterable[list[bytes]], window: float) -> None:
        super().__init__(*answers)
        self.window = window

    async def dial(self, origin: object) -> MemoryLink:
        for _ in range(3):
            await trio.lowlevel.checkpoint()
        return await super().dial(origin)  # type: ignore[arg-type]


@pytest.mark.parametrize("body", [b"{}", Pieces()], ids=["bytes", "upload"])
@pytest.mark.parametrize("window", [float("inf"), 20], ids=["wide", "narrow"])
@pytest.mark.parametrize(
    "pieces", [[ANSWER], [*BYTE_BY_BYTE[:60], answer()[60:]], STREAM], ids=["one", "many", "stream"]
)
@pytest.mark.parametrize("kept", [False, True], ids=["new", "stale"])
async def test_cancelled_anywhere(
    body: bytes | UploadBody, window: float, pieces: list[bytes], kept: bool
) -> None:
    dialer = SlowDialer([pieces], window)
    watch = Watch()
    async with trio.open_nursery() as nursery:
        await nursery.start(watch.run)
        nursery.start_soon(_network, dialer)
        upstream = InstancePools(dialer, watch, PoolLimits(connections=1), {})

        async def exchange() -> None:
            made = UpstreamRequest(
                CONFIG, "POST", f"{CONFIG.api_base}/v1/x", [], body, timeout_s=60, silence_s=60
            )
            response = await upstream.send(made)
            try:
                while await response.read_chunk():
                    pass
            finally:
                await response.aclose()

        async def stale_then_new() -> None:
            await exchange()
            for link in dialer.links:
                link.on_write = MemoryLink.end
            await exchange()

        async def check() -> None:
            counted = upstream.statistics().get("one")
            if counted is not None:
                assert counted.in_use == 0
                assert counted.opened == counted.closed + counted.idle
                assert dialer.open_links == counted.idle
            assert len(nursery.child_tasks) == 2
            await upstream.forget("one")
            assert dialer.open_links == 0

        steps = await cancel_at_each_step(stale_then_new if kept else exchange, check)
        assert steps > 5
        nursery.cancel_scope.cancel()


async def _network(dialer: MemoryDialer) -> None:
    while True:
        await trio.testing.wait_all_tasks_blocked()
        for link in dialer.links:
            link.widen(link.window + 10)
        await trio.lowlevel.checkpoint()


async def test_a_cancelled_reader_of_a_complete_answer_keeps_the_connection() -> None:
    dialer = MemoryDialer([ANSWER])
    watch = Watch()
    async with trio.open_nursery() as nursery:
        await nursery.start(watch.run)
        upstream = InstancePools(dialer, watch, environ={})
        made = UpstreamRequest(CONFIG, "POST", f"{CONFIG.api_base}/v1/x", [], b"", 60, 60)
        with trio.CancelScope() as scope:
            response = await upstream.send(made)
            scope.cancel()
            try:
                await trio.lowlevel.checkpoint()
            finally:
                await response.aclose()
        assert upstream.statistics()["one"].idle == 1
        nursery.cancel_scope.cancel()
