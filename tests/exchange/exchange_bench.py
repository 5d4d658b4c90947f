"""An exchange over real actors and upstreams that answer as they are told."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fakes import FakeRequest, FakeUpstream, FakeWriter
from harness import RunningSystem, instance_config, running_system
from trio.testing import wait_all_tasks_blocked

from proxy.exchange.attempts import Means
from proxy.exchange.client_keys import ClientKeys
from proxy.exchange.exchange import Exchange
from proxy.exchange.models import ModelList
from proxy.exchange.record import RequestRecord
from proxy.tokens.output import Allowance


class Bench:
    """An exchange over real actors and a fake upstream."""

    def __init__(
        self, system: RunningSystem, upstream: FakeUpstream, keys: tuple[str, ...]
    ) -> None:
        self.system = system
        self.upstream = upstream
        self.records: list[RequestRecord] = []
        self.means = Means(system.leases, upstream, Allowance(), max_wait_s=10.0)
        self.exchange = Exchange(
            means=self.means,
            models=ModelList(system.administration),
            keys=ClientKeys(keys),
            max_running=100,
            record=self.records.append,
        )

    async def send(self, request: FakeRequest, writer: FakeWriter | None = None) -> FakeWriter:
        writer = writer or FakeWriter()
        await self.exchange.handle(request, writer)
        await wait_all_tasks_blocked()
        return writer


@asynccontextmanager
async def bench(*configs: Any, keys: tuple[str, ...] = (), **answers: Any) -> AsyncIterator[Bench]:
    async with running_system(*configs) as system:
        yield Bench(system, FakeUpstream(**answers), keys)
        for config in configs:
            if config.name in system.supervisor._children:
                assert system.standing(config.name).account.leases == {}


ONE = instance_config("one", priority=1, max_tpm=100_000)
TWO = instance_config("two", priority=2, max_tpm=100_000)
