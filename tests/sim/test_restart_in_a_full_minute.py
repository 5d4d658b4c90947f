"""A restart in the middle of a full minute causes no refusals, thanks to the state file."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio
from fakes import FakeWriter, chat
from harness import MemoryStore, RunningSystem, instance_config
from trio.testing import MockClock

from actors.clock import WallClock
from actors.records import read_states, written
from actors.system import SystemOptions
from proxy.exchange.attempts import Means
from proxy.exchange.client_keys import ClientKeys
from proxy.exchange.exchange import Exchange
from proxy.exchange.models import ModelList
from proxy.simulator.deployment import Deployment
from proxy.simulator.limiter import Limits
from proxy.simulator.resource import Resource
from proxy.simulator.upstream import SimulatedUpstream
from proxy.tokens.output import Allowance

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from actors.models import InstanceState

MODEL = "gpt-4o"
NAMES = ("one", "two")
TPM = 20_000
RUNS_S = 75.0


@pytest.fixture
def one_wall_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Epoch time follows the virtual clock, over the restart too."""
    monkeypatch.setattr(WallClock, "start", classmethod(lambda cls: cls(1_800_000_000.0)))


def resources() -> dict[str, Resource]:
    """Without headers nothing but the memory tells how full the minute is."""
    limits = Limits(tpm=TPM, rpm=0, window="sliding", counts_refused="none")
    return {
        f"{name}.openai.azure.com": Resource(
            name,
            [Deployment(name=MODEL, model=MODEL, limits=limits, headers="none")],
            api_keys=[f"key-of-{name}-0123456789"],
            seed=1,
        )
        for name in NAMES
    }


@asynccontextmanager
async def service(
    upstreams: dict[str, Resource], store: MemoryStore, states: dict[str, InstanceState]
) -> AsyncIterator[Exchange]:
    configs = {name: instance_config(name, supported_models=[MODEL], max_tpm=TPM) for name in NAMES}
    system = RunningSystem(configs, states, MemoryStore(), store, SystemOptions(seed=1))
    async with trio.open_nursery() as nursery:
        await nursery.start(system.run)
        yield Exchange(
            means=Means(system.leases, SimulatedUpstream(upstreams), Allowance(), max_wait_s=10.0),
            models=ModelList(system.administration),
            keys=ClientKeys(()),
            max_running=10_000,
            record=lambda record: None,
        )
        nursery.cancel_scope.cancel()


async def overload(exchange: Exchange, lasts_s: float) -> None:
    """Half as much again as the limits, for so long."""
    async with trio.open_nursery() as nursery:
        until = trio.current_time() + lasts_s
        while trio.current_time() < until:
            request = chat(MODEL, max_tokens=500)
            nursery.start_soon(exchange.handle, request, FakeWriter())
            await trio.sleep(60 * 507 / (1.5 * len(NAMES) * TPM))


def refused(upstreams: dict[str, Resource]) -> int:
    return sum(each.statuses[429] for each in upstreams.values())


@pytest.mark.parametrize("remembered", [True, False])
async def test_a_restart_in_a_full_minute(
    autojump_clock: MockClock, one_wall_clock: None, remembered: bool
) -> None:
    upstreams, store = resources(), MemoryStore()
    for each in upstreams.values():
        each.start(trio.current_time())
    async with service(upstreams, store, {}) as exchange:
        await overload(exchange, RUNS_S)
    assert refused(upstreams) == 0
    await trio.sleep(3)
    states, problems = read_states(written(store.saved))
    assert problems == []
    async with service(upstreams, store, states if remembered else {}) as exchange:
        await overload(exchange, RUNS_S)
    if remembered:
        assert refused(upstreams) == 0
    else:
        assert refused(upstreams) > 2, "this would be the burst, until refusals have taught enough"
