"""Minutes of traffic through the whole core on a virtual clock: exchange, actors and simulated
resources, with clients that leave and instance actors that crash.

Everything random follows from one seed, the order in which trio runs its tasks included.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

import trio
from fakes import FakeRequest, FakeWriter
from harness import RunningSystem, instance_config, running_system
from trio.testing import MockClock, wait_all_tasks_blocked

from actors.errors import ChangeRefused
from actors.instance import InstanceActor
from actors.messages import Acquire, Declined, Grant, LeaseId, Settle
from actors.supervisor import Supervisor
from actors.system import SystemOptions
from proxy.exchange.attempts import Means
from proxy.exchange.client_keys import ClientKeys
from proxy.exchange.exchange import Exchange
from proxy.exchange.models import ModelList
from proxy.exchange.record import RequestRecord
from proxy.simulator.deployment import Deployment
from proxy.simulator.faults import Fault
from proxy.simulator.limiter import Limits
from proxy.simulator.resource import Resource
from proxy.simulator.upstream import SimulatedUpstream
from proxy.tokens.output import Allowance

TPM: Final = {"large": 60_000, "middle": 30_000, "small": 10_000}
CHAT, EMBEDDINGS = "gpt-4o", "text-embedding-3-small"
MODELS: Final = (CHAT, EMBEDDINGS)
TEXT: Final = "It was the best of times, it was the worst of times. " * 35
MINUTE_S: Final = 60.0


@dataclass(frozen=True)
class Traffic:
    """`per_min`: arrivals, one in ten of them a burst of ten requests at once. Shares: of clients
    who leave early, of messages that crash an instance actor, of upstream calls that meet a fault
    of each kind."""

    minutes: float = 10.0
    per_min: float = 55.0
    leaving: float = 0.15
    crashing: float = 0.01
    failing: float = 0.01


class Crash(Exception):
    """On purpose."""


@dataclass
class Reservation:
    """`given_back_at`: when the instance learned that it never reached the upstream."""

    at: float
    tokens: int
    given_back_at: float = float("inf")


@dataclass
class Client:
    """`left`: went away before the end of its answer."""

    stream: bool
    writer: FakeWriter = field(default_factory=FakeWriter)
    left: bool = False
    answered: bool = False


class World:
    """One run. What happened is in the fields; `run` has to be called in `trio.run`."""

    def __init__(self, seed: int, traffic: Traffic) -> None:
        self.traffic = traffic
        self.trace: list[tuple[float, str, str, int | str | None]] = []
        """(time, actor, message type, lease or instance) of every message handled, in order."""
        self.reservations: dict[str, dict[LeaseId, Reservation]] = {name: {} for name in TPM}
        self.clients: dict[str, Client] = {}
        self.records: list[RequestRecord] = []
        self.crashes = 0
        self.statuses: Counter[int] = Counter()
        self.upstream_statuses: Counter[int] = Counter()
        self.left_over: list[str] = []
        """What was still reserved, open or waiting once all was over; should be nothing."""
        self._seed = seed
        self._rng = random.Random(f"{seed}/traffic")
        self._crash_rng = random.Random(f"{seed}/crashes")

    async def run(self) -> None:
        resources = self._resources()
        configs = [
            instance_config(
                name,
                priority=priority,
                max_tpm=tpm,
                supported_models=MODELS,
                api_key=f"key-of-{name}",
                retry_count=3,
            )
            for priority, (name, tpm) in enumerate(TPM.items())
        ]
        options = SystemOptions(seed=self._seed, supervisor_type=self._supervisor_type())
        async with running_system(*configs, options=options) as system:
            trace_router(system, self.trace)
            exchange = Exchange(
                means=Means(
                    system.leases, SimulatedUpstream(resources), Allowance(), max_wait_s=10.0
                ),
                models=ModelList(system.administration),
                keys=ClientKeys(()),
                max_running=10_000,
                record=self.records.append,
            )
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._operate, system)
                await self._send_traffic(exchange)
                nursery.cancel_scope.cancel()
            await wait_all_tasks_blocked()
            self._take_stock(system)
        self.statuses.update(record.status for record in self.records)
        for resource in resources.values():
            self.upstream_statuses.update(resource.statuses)

    def _resources(self) -> dict[str, Resource]:
        resources = {}
        for name, tpm in TPM.items():
            deployments = [
                Deployment(
                    name=model,
                    model=model,
                    limits=Limits(tpm=tpm, rpm=0, window="sliding"),
                    chunk_tokens=20,
                    headers="none",  # so that the configured limits are the ones that hold
                )
                for model in MODELS
            ]
            key = f"key-of-{name}"
            resource = Resource(name, deployments, api_keys=[key], seed=self._seed)
            for kind in ("refuse", "status", "cut", "error_in_stream", "hang_in_body"):
                resource.faults.inject(Fault(kind=kind, probability=self.traffic.failing))  # type: ignore[arg-type]
            resources[f"{name}.openai.azure.com"] = resource
        return resources

    # -- actors ----------------------------------------------------------------------------

    def _supervisor_type(self) -> type[Supervisor]:
        world = self

        class Actor(InstanceActor):
            def handle(self, message: Any, now: float) -> None:
                name = self.standing.config.name
                world.trace.append((now, name, *named(message)))
                crashing, draw = world.traffic.crashing, world._crash_rng.random()
                world.crashes += draw < crashing
                if isinstance(message, Settle):
                    world._note_settlement(name, message, now)
                if draw < crashing / 2:
                    raise Crash
                super().handle(message, now)
                if isinstance(message, Acquire):
                    world._note_grant(name, message, now)
                if draw < crashing:
                    raise Crash

        class CrashingSupervisor(Supervisor):
            actor_type = Actor

        return CrashingSupervisor

    def _note_grant(self, name: str, ask: Acquire, now: float) -> None:
        granted = ask.reply.value()
        if isinstance(granted, Grant):
            assert ask.lease_id not in self.reservations[name]
            self.reservations[name][ask.lease_id] = Reservation(now, granted.tokens)

    def _note_settlement(self, name: str, settle: Settle, now: float) -> None:
        """Also of a message that crashes its actor: the settlement is done all the same."""
        reservation = self.reservations[name].get(settle.lease_id)
        if reservation is not None and settle.outcome.reached is False:
            reservation.given_back_at = min(now, reservation.given_back_at)

    async def _operate(self, system: RunningSystem) -> None:
        """An operator who looks after quarantined instances."""
        while True:
            await trio.sleep(5)
            for name, instance in (await system.administration.read()).items():
                if (instance.state.last_error or "").startswith("quarantined"):
                    healthy = {"status": "healthy", "last_error": None}
                    with suppress(ChangeRefused):  # its actor crashed again: next time
                        await system.administration.update_state(name, healthy)

    def _take_stock(self, system: RunningSystem) -> None:
        if system.router.address.waiting or len(system.router._line):
            self.left_over.append("requests in the waiting line")
        for name in TPM:
            standing = system.standing(name)
            for what, left in (
                ("leases", standing.account.leases),
                ("reserved tokens", standing.account.reserved_tokens),
                ("demands", standing._demands),
                ("probes", standing.breaker._leases),
            ):
                if left:
                    self.left_over.append(f"{what} of {name}: {left}")

    # -- clients ---------------------------------------------------------------------------

    async def _send_traffic(self, exchange: Exchange) -> None:
        async with trio.open_nursery() as clients:
            ends_at = trio.current_time() + self.traffic.minutes * MINUTE_S
            while True:
                await trio.sleep(self._rng.expovariate(self.traffic.per_min / MINUTE_S))
                if trio.current_time() >= ends_at:
                    return
                for _ in range(10 if self._rng.random() < 0.1 else 1):
                    clients.start_soon(self._client, exchange, clients)

    async def _client(self, exchange: Exchange, others: trio.Nursery) -> None:
        rng, name = self._rng, f"request-{len(self.clients)}"
        path, fields = self._request()
        client = self.clients[name] = Client(stream=bool(fields.get("stream")))
        request = FakeRequest(
            path,
            [json.dumps(fields).encode()],
            headers=[(b"content-type", b"application/json"), (b"x-request-id", name.encode())],
        )
        with trio.CancelScope() as scope:
            if rng.random() < self.traffic.leaving:
                others.start_soon(leave, scope, rng)
            await exchange.handle(request, client.writer)
            client.answered = True
        client.left = scope.cancelled_caught

    def _request(self) -> tuple[str, dict[str, Any]]:
        rng = self._rng
        text = TEXT[: min(len(TEXT), 20 + int(rng.expovariate(1 / 600)))]
        if rng.random() < 0.2:
            return "/v1/embeddings", {"model": EMBEDDINGS, "input": text}
        fields: dict[str, Any] = {
            "model": CHAT,
            "messages": [{"role": "user", "content": text}],
            "stream": rng.random() < 0.5,
        }
        if rng.random() < 0.8:
            fields["max_tokens"] = 1 + min(8000, int(rng.expovariate(1 / 1500)))
        if rng.random() < 0.3:
            fields["stream_options"] = {"include_usage": True}
            fields["stream"] = True
        return "/v1/chat/completions", fields


async def leave(scope: trio.CancelScope, rng: random.Random) -> None:
    """After a few seconds, or a few steps of the scheduler: that hits what takes no time."""
    if rng.random() < 0.5:
        await trio.sleep(rng.expovariate(1 / 3))
    else:
        for _ in range(rng.randint(1, 12)):
            await trio.lowlevel.checkpoint()
    scope.cancel()


def trace_router(system: RunningSystem, trace: list[Any]) -> None:
    """Puts (time, "router", message type, lease or instance) of each message that it handles into
    `trace`."""
    handle = system.router.handle

    def traced(message: Any, now: float) -> None:
        trace.append((now, "router", *named(message)))
        handle(message, now)

    system.router.handle = traced  # type: ignore[method-assign]


def named(message: object) -> tuple[str, int | str | None]:
    if isinstance(message, Declined):
        message, kind = message.ask, "Declined"
    else:
        kind = type(message).__name__
    return kind, getattr(message, "lease_id", getattr(message, "instance", None))


def run_world(seed: int, traffic: Traffic) -> World:
    """A whole run, in a trio of its own."""
    # Hypothesis makes trio's order of tasks a matter of this generator; here it starts anew.
    trio._core._run._r.seed(seed)  # type: ignore[attr-defined]
    world = World(seed, traffic)
    trio.run(world.run, clock=MockClock(autojump_threshold=0))
    return world


def hurt(standing: Any) -> tuple[Any, ...]:
    """What an instance is blamed for."""
    benches = standing.benches
    return (
        standing.error_count,
        standing.last_error,
        standing.quarantine,
        benches.credential,
        dict(benches.limits),
        dict(benches.models),
        standing.breaker.state == "open",
    )
