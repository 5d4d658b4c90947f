"""One run of a traffic against a configuration: the real exchange and actors, simulated resources.

On a virtual clock an hour takes seconds. The same code measures a service behind sockets: then the
clock is the real one, and the client is another.
"""

from __future__ import annotations

import logging
import math
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

import trio
from trio.testing import MockClock

from actors.system import System, SystemOptions
from proxy.exchange.attempts import Means
from proxy.exchange.client_keys import ClientKeys
from proxy.exchange.exchange import Exchange
from proxy.exchange.models import ModelList
from proxy.planning import prompts
from proxy.planning.findings import Answered, Findings
from proxy.planning.memory import MemoryClient
from proxy.planning.resources import Simulated, simulated
from proxy.simulator.resource import SIMULATED_EPOCH
from proxy.simulator.upstream import SimulatedUpstream
from proxy.tokens.output import Allowance
from proxy.tokens.vocabulary import encoding_for

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from actors.clock import WallClock
    from actors.models import InstanceConfig
    from actors.policy.selection import Strategy
    from proxy.planning.arrivals import Ask
    from proxy.planning.memory import Reply
    from proxy.planning.traffic import Traffic
    from proxy.tokens.prompt import EstimateKind

_log = logging.getLogger("proxy.planning.instances")
"""What rehearsed instances go through is in the findings; on the screen it would look real."""
_log.setLevel(logging.ERROR)

MOST_RUNNING: Final = 100_000
_AGAIN: Final = "-again"


@dataclass(frozen=True)
class Scenario:
    """`max_wait_s`: how long a request may wait for capacity."""

    configs: tuple[InstanceConfig, ...]
    traffic: Traffic
    strategy: Strategy = "priority"
    max_wait_s: float = 10.0
    max_waiting: int = 10_000

    def resources(self, seed: int, wall: WallClock | None = SIMULATED_EPOCH) -> list[Simulated]:
        """Those of the enabled instances. `wall`: None on the real clock."""
        specs, models = self.traffic.spec.resources, self.traffic.models
        return [
            simulated(config, number, specs.of(config.name), models, seed, wall)
            for number, config in enumerate(self.configs)
            if config.enabled
        ]


class Client(Protocol):
    async def ask(self, ask: Ask, number: int, request_id: str, retries: int) -> Reply: ...


def rehearse(
    scenario: Scenario, seed: int, on_second: Callable[[int], None] | None = None
) -> Findings:
    """Runs all of it on a virtual clock. The same for the same seed. Blocks; not inside trio.

    `on_second` hears of every simulated second.
    """
    for model in scenario.traffic.models:
        encoding_for(model)
    # What is due at one moment trio shuffles, by a generator that has no public seed.
    trio._core._run._r.seed(seed)
    clock = MockClock(autojump_threshold=0)
    return trio.run(_in_memory, scenario, seed, on_second, clock=clock)


async def _in_memory(
    scenario: Scenario, seed: int, on_second: Callable[[int], None] | None
) -> Findings:
    resources = scenario.resources(seed)
    rehearsal = Rehearsal(scenario.traffic, resources, seed, on_second)
    options = SystemOptions(scenario.strategy, scenario.max_waiting, seed=seed)
    configs = {each.config.name: each.config for each in resources}
    system = System(configs, {}, _NoFiles(), _NoFiles(), options, _log)
    upstream = SimulatedUpstream({each.host: each.resource for each in resources})
    exchange = Exchange(
        means=Means(
            system.leases, upstream, Allowance(), scenario.max_wait_s, count=_count_at_once
        ),
        models=ModelList(system.administration),
        keys=ClientKeys(()),
        max_running=MOST_RUNNING,
        record=lambda record: rehearsal.note(
            record.id, record.started_at, record.status, record.wait_s
        ),
    )
    async with trio.open_nursery() as nursery:
        await nursery.start(system.run)
        findings = await rehearsal.run(
            MemoryClient(exchange), lambda: system.router.address.waiting
        )
        nursery.cancel_scope.cancel()
    return findings


class Rehearsal:
    """Sends the traffic and writes down what comes of it. Clock: trio's, virtual or not."""

    def __init__(
        self,
        traffic: Traffic,
        resources: list[Simulated],
        seed: int,
        on_second: Callable[[int], None] | None = None,
    ) -> None:
        """Must be made inside `trio.run`: the resources begin now."""
        self._traffic = traffic
        self._seed = seed
        self._on_second = on_second
        self._rng = random.Random(f"{seed}/clients")  # noqa: S311 - a simulation, repeatable
        self._offered_tokens = 0
        now = trio.current_time()
        for each in resources:
            each.resource.start(now)
        self._findings = Findings(
            names=tuple(each.config.name for each in resources),
            max_tpm=tuple(each.config.max_tpm for each in resources),
            limiters=tuple(
                tuple(map(each.resource.limiter, each.resource.deployments)) for each in resources
            ),
            began_at=now,
            duration_s=traffic.duration_s,
        )

    def note(self, request_id: str, asked_at: float, status: int, wait_s: float) -> None:
        """Takes an answer: to whom, who asked at the trio time `asked_at`. Never blocks."""
        at_s = asked_at - self._findings.began_at
        returning = request_id.endswith(_AGAIN)
        self._findings.answers.append(Answered(at_s, status, wait_s, returning))

    async def run(self, client: Client, waiting: Callable[[], int]) -> Findings:
        """Returns when the last request is answered. `waiting`: requests in line now."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._sample, waiting)
            for number, ask in enumerate(self._traffic.asks(self._seed)):
                await trio.sleep_until(self._findings.began_at + ask.at_s)
                self._offered_tokens += ask.tokens
                nursery.start_soon(self._ask, client, ask, number)
        return self._findings

    async def _ask(self, client: Client, ask: Ask, number: int) -> None:
        reply = await client.ask(ask, number, str(number), 0)
        if reply.status != 429 or reply.retry_after_s is None:
            return
        back_at = trio.current_time() + reply.retry_after_s
        in_time = back_at < self._findings.began_at + self._findings.duration_s
        if in_time and self._rng.random() < self._traffic.spec.returning_share:
            await trio.sleep_until(back_at)
            await client.ask(ask, number, str(number) + _AGAIN, 1)

    async def _sample(self, waiting: Callable[[], int]) -> None:
        for second in range(math.ceil(self._findings.duration_s) + 1):
            await trio.sleep_until(self._findings.began_at + second)
            offered, self._offered_tokens = self._offered_tokens, 0
            self._findings.sample(offered, waiting())
            if self._on_second is not None:
                self._on_second(second)


async def _count_at_once(
    kind: EstimateKind, body: Mapping[str, Any], model: str, *, body_bytes: int = 0
) -> int:
    """A thread would run on real time: while it counts, the virtual clock moves on."""
    del body_bytes
    return prompts.count(kind, body, model)


class _NoFiles:
    """Nothing outlives a rehearsal, and nobody edits its configuration."""

    async def save(self, content: Mapping[str, Any]) -> None:
        await trio.lowlevel.checkpoint()

    async def edit(self) -> None:
        await trio.lowlevel.checkpoint()

    async def take_over(self) -> Mapping[str, InstanceConfig]:
        raise AssertionError("there was no edit")

    async def keep_edit(self) -> None:
        await trio.lowlevel.checkpoint()
