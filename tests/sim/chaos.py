"""The whole core under everything that can go wrong at once, on a virtual clock.

Storms of faults over the instances, actors killed with a message in hand, clients that leave, an
operator who changes the configuration all the time; at the end everything is well again. One
instance, the haven, is well all the time and has room for all.

Everything random follows from one seed, the order in which trio runs its tasks included.
"""

from __future__ import annotations

import random
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import trio
from captured_log import captured_log
from clients import Clients
from harness import RunningSystem, instance_config, running_system
from keepsakes import Keepsakes
from operator_changes import (
    CHANGES,
    CHANGES_OF_THE_HAVEN,
    CONFIG_CHANGES,
    HAVEN,
    HEALTHY,
    STATES,
    own_model,
)
from trio.testing import MockClock, wait_all_tasks_blocked
from weather import CALM, Weather, a_storm
from world import CHAT, EMBEDDINGS, Crash, hurt, named, trace_router

from actors.errors import ChangeRefused
from actors.instance import InstanceActor
from actors.messages import NO_MODEL, Evidence, LeaseId, Observe, Settle
from actors.models import InstanceConfig
from actors.policy.benches import MAX_BENCH_S
from actors.policy.breaker import MAX_OPEN_S
from actors.policy.selection import Strategy
from actors.supervisor import Supervisor
from actors.system import SystemOptions
from proxy.bound.bound import Bound
from proxy.bound.owners import Owners
from proxy.exchange.attempts import Means
from proxy.exchange.client_keys import ClientKeys
from proxy.exchange.exchange import Exchange
from proxy.exchange.models import ModelList
from proxy.exchange.record import RequestRecord
from proxy.simulator.deployment import Deployment
from proxy.simulator.limiter import Limits
from proxy.simulator.resource import Resource
from proxy.simulator.upstream import SimulatedUpstream
from proxy.tokens.output import Allowance

if TYPE_CHECKING:
    from collections.abc import Iterator

TROUBLED: Final = ("ann", "bob", "cid", "dot")
SPARE: Final = ("eve", "fay")
"""Not configured at the start."""
PLENTY: Final = 10_000_000
LIMITS: Final = (20_000, 200_000, PLENTY)
"""Tokens per minute, of which a run needs about 60 000."""
RETRIES: Final = 5
"""As many as there may be other instances before the haven."""
REMEMBERED: Final = 3
"""Ids whose owners are remembered: so few that some have to be searched for."""
RECOVERY_S: Final = MAX_BENCH_S + MAX_OPEN_S
"""By then every bench and every open time is over, whatever an upstream has asked for."""
HAVEN_KILLED_S: Final = 11.0
"""Between two kills of the haven: more often would quarantine it, and it would be none."""
POISON: Final = LeaseId(-1)


@dataclass(frozen=True)
class Chaos:
    """How much of it. `kept`: share of the requests about what instances keep; `crashing`: of the
    messages. `killed_s`, `changed_s`, `storm_s`: mean time between kills, changes of the
    configuration, and changes of the weather of an instance."""

    minutes: float = 2.0
    per_min: float = 240.0
    strategy: Strategy = "priority"
    leaving: float = 0.1
    at_fault: float = 0.05
    kept: float = 0.1
    crashing: float = 0.002
    killed_s: float = 6.0
    changed_s: float = 4.0
    storm_s: float = 20.0


class Run:
    """One run. What happened is in the fields; `run` has to be called in `trio.run`."""

    def __init__(self, seed: int, chaos: Chaos) -> None:
        self.chaos = chaos
        self.trace: list[tuple[Any, ...]] = []
        """(time, actor, message type, lease or instance) of every message handled, in order, and
        (time, request, status, attempts) of every request at its end."""
        self.records: list[RequestRecord] = []
        self.wrongs: list[str] = []
        """What must never happen; should be nothing."""
        self.kills = 0
        self.changes: dict[str, int] = {}
        self.lines: list[str] = []
        self.struck: dict[str, int] = {}
        self._seed = seed
        self._rngs = {
            what: random.Random(f"{seed}/{what}")
            for what in ("traffic", "weather", "storms", "crashes", "kills", "changes", "kept")
        }
        self.kept = Keepsakes(CHAT, self._rngs["kept"])
        self._clients = Clients(chaos, self._rngs["traffic"], self.kept)
        self.clients = self._clients.sent
        self._haven_killed_at = -HAVEN_KILLED_S

    async def run(self) -> None:
        weather = Weather(SimulatedUpstream(self._resources()), self._rngs["weather"])
        configs = [self._config(name, 2 * place) for place, name in enumerate((*TROUBLED, HAVEN))]
        options = SystemOptions(
            strategy=self.chaos.strategy,
            seed=self._seed,
            supervisor_type=self._supervisor_type(),
        )
        with captured_log() as self.lines:
            async with running_system(*configs, options=options) as system:
                exchange = self._exchange(system, weather)
                await self._storm(system, exchange, weather)
                await self._recover(system, exchange, weather)
                await wait_all_tasks_blocked()
                self._take_stock(system, weather)
        self.struck = weather.struck
        self._look_for_keys()

    # -- the parts -------------------------------------------------------------------------

    def _resources(self) -> dict[str, Resource]:
        """Each at two addresses; an instance may move from one to the other."""
        rng, resources = self._rngs["weather"], {}
        for name in (HAVEN, *TROUBLED, *SPARE):
            tpm = PLENTY if name == HAVEN else rng.choice(LIMITS)
            headers = rng.choice(("none", "full", "remaining", "unknown"))
            for host in (name, f"{name}-2"):
                deployments = [
                    Deployment(
                        name=model,
                        model=EMBEDDINGS if model == EMBEDDINGS else CHAT,
                        limits=Limits(tpm=tpm, rpm=0),
                        chunk_tokens=20,
                        headers=headers,  # type: ignore[arg-type]
                    )
                    for model in (CHAT, EMBEDDINGS, own_model(name))
                ]
                keys = [f"key-of-{name}-0123456789", f"second-key-of-{name}"]
                resource = Resource(host, deployments, api_keys=keys, seed=self._seed)
                resources[f"{host}.openai.azure.com"] = resource
        return resources

    def _config(self, name: str, priority: int) -> InstanceConfig:
        rng = self._rngs["changes"]
        return instance_config(
            name,
            priority=priority,
            max_tpm=PLENTY if name == HAVEN else rng.choice(LIMITS),
            supported_models=(CHAT, EMBEDDINGS, own_model(name)),
            api_version="2025-04-01-preview",
            timeout_seconds=rng.choice((5.0, 20.0)),
            retry_count=RETRIES,
        )

    def _exchange(self, system: RunningSystem, weather: Weather) -> Exchange:
        trace_router(system, self.trace)
        means = Means(system.leases, weather, Allowance(), max_wait_s=10.0)
        self._bound = Bound(means, Owners(REMEMBERED), system.supervisor.configs)
        return Exchange(
            means=means,
            models=ModelList(system.administration),
            keys=ClientKeys(()),
            max_running=10_000,
            record=self._record,
            bound=self._bound,
        )

    def _record(self, record: RequestRecord) -> None:
        self.records.append(record)
        self.trace.append((trio.current_time(), record.id, record.status, record.attempts))

    def _supervisor_type(self) -> type[Supervisor]:
        run = self

        class Actor(InstanceActor):
            def handle(self, message: Any, now: float) -> None:
                name = self.standing.config.name
                run.trace.append((now, name, *named(message)))
                poisoned = isinstance(message, Observe) and message.lease_id == POISON
                crash = poisoned or run._crashes(name, now)
                before = crash and run._rngs["crashes"].random() < 0.5
                if before:
                    raise Crash
                with run._watched(self, message, now):
                    super().handle(message, now)
                if crash:
                    raise Crash

        class KilledSupervisor(Supervisor):
            actor_type = Actor

        return KilledSupervisor

    def _crashes(self, name: str, now: float) -> bool:
        if self._rngs["crashes"].random() >= self.chaos.crashing:
            return False
        return name != HAVEN or self._spare_the_haven(now)

    def _spare_the_haven(self, now: float) -> bool:
        """Whether it is long enough ago that it was killed."""
        if now < self._haven_killed_at + HAVEN_KILLED_S:
            return False
        self._haven_killed_at = now
        return True

    @contextmanager
    def _watched(self, actor: InstanceActor, message: Any, now: float) -> Iterator[None]:
        """What a client's own mistake must not do to an instance, nor the answer to a question for
        something that is kept."""
        if not isinstance(message, Settle):
            yield
            return
        standing, outcome = actor.standing, message.outcome
        aside = outcome.status is not None and standing._demands.get(message.lease_id) == NO_MODEL
        before, state = hurt(standing), standing.breaker.state
        yield
        if outcome.kind == "client_error" and hurt(standing) != before:
            self.wrongs.append(f"{now}: a client's mistake hurt {standing.config.name}")
        if aside and standing.breaker.state == "open" != state:
            self.wrongs.append(f"{now}: an answer about a file shut {standing.config.name} off")

    # -- the storm -------------------------------------------------------------------------

    async def _storm(self, system: RunningSystem, exchange: Exchange, weather: Weather) -> None:
        async with trio.open_nursery() as nursery:
            for name in (*TROUBLED, *SPARE):
                nursery.start_soon(self._change_weather, weather, name)
            nursery.start_soon(self._kill, system)
            nursery.start_soon(self._operate, system)
            nursery.start_soon(self._reset_some, system)
            await self._clients.send(exchange, self.chaos.minutes * 60)
            nursery.cancel_scope.cancel()
        weather.storms.clear()

    async def _change_weather(self, weather: Weather, name: str) -> None:
        rng = self._rngs["storms"]
        while True:
            weather.storms[name] = rng.choice((CALM, a_storm(rng), a_storm(rng)))
            await trio.sleep(rng.expovariate(1 / self.chaos.storm_s))

    async def _kill(self, system: RunningSystem) -> None:
        rng = self._rngs["kills"]
        while True:
            await trio.sleep(rng.expovariate(1 / self.chaos.killed_s))
            child = rng.choice(list(system.supervisor._children.values()))
            if child.name != HAVEN or self._spare_the_haven(trio.current_time()):
                self.kills += 1
                child.mailbox.tell(Observe(POISON, Evidence()))

    async def _operate(self, system: RunningSystem) -> None:
        rng, administration = self._rngs["changes"], system.administration
        while True:
            await trio.sleep(rng.expovariate(1 / self.chaos.changed_s))
            names = list(await administration.read())
            name = rng.choice(names)
            kind = rng.choice(CHANGES_OF_THE_HAVEN if name == HAVEN else CHANGES)
            self.changes[kind] = self.changes.get(kind, 0) + 1
            with suppress(ChangeRefused):  # its actor crashed with the change in hand
                match kind:
                    case "add":
                        absent = {*TROUBLED, *SPARE} - set(names)
                        if absent:
                            name = rng.choice(sorted(absent))
                            await administration.add(self._config(name, rng.randrange(10)))
                    case "remove":
                        await administration.remove(name)
                    case "state":
                        await administration.update_state(name, rng.choice(STATES)(system))
                    case _:
                        change = CONFIG_CHANGES[kind](rng, name)
                        await administration.update_config(name, change)

    async def _reset_some(self, system: RunningSystem) -> None:
        """An operator who looks after what was quarantined, which has no end of its own, and
        declares others well that are not."""
        rng = self._rngs["changes"]
        while True:
            await trio.sleep(10)
            for name in await system.administration.read():
                if system.standing(name).quarantine is not None or rng.random() < 0.4:
                    with suppress(ChangeRefused):
                        await system.administration.update_state(name, HEALTHY)

    # -- the recovery ----------------------------------------------------------------------

    async def _recover(self, system: RunningSystem, exchange: Exchange, weather: Weather) -> None:
        """All is well now. Every instance has to serve again, at the latest after `RECOVERY_S`."""
        administration = system.administration
        for name in await administration.read():
            mended = {
                "enabled": True,
                "api_base": f"https://{name}.openai.azure.com",
                "max_tpm": 20_000,
                "timeout_seconds": 20.0,
            }
            await self._until_done(administration.update_config, name, mended)
            if system.standing(name).quarantine is not None:
                await self._until_done(administration.update_state, name, HEALTHY)
        now = trio.current_time()
        for name in await administration.read():
            standing = system.standing(name)
            benches = standing.benches
            ends = [benches.credential, *benches.limits.values(), *benches.models.values()]
            if max(ends) > now + MAX_BENCH_S or standing.breaker._until > now + MAX_OPEN_S:
                self.wrongs.append(f"{name} is held back for too long: {ends}")
        await self._pass(RECOVERY_S)
        for name in await administration.read():
            for _ in range(2):  # the first may be a probe
                client = await self._clients.ask(exchange, own_model(name))
                if client.writer.status != 200:
                    self.wrongs.append(f"{name} does not serve again: {client.writer.body!r}")
            state = system.standing(name).state(trio.current_time(), system.clock)
            if (state.status, state.health_status) != ("healthy", "healthy"):
                self.wrongs.append(f"{name} is not well: {state}")
        for entry in (await administration.read()).values():
            self.lines.append(entry.state.model_dump_json())

    async def _until_done(self, change: Any, *arguments: Any) -> None:
        """Actors may crash on its message still."""
        while True:
            try:
                await change(*arguments)
                return
            except ChangeRefused:
                await trio.lowlevel.checkpoint()

    async def _pass(self, seconds: float) -> None:
        """In one jump, so that what happens every second happens once."""
        clock = trio.lowlevel.current_clock()
        assert isinstance(clock, MockClock)
        clock.jump(seconds)
        await trio.lowlevel.checkpoint()
        await wait_all_tasks_blocked()

    def _take_stock(self, system: RunningSystem, weather: Weather) -> None:
        left = {
            "requests in the line": len(system.router._line),
            "requests said to wait": system.router.address.waiting,
            "answers open": weather.open,
            "instances retiring": len(system.supervisor._retiring),
            "errors of the haven": system.standing(HAVEN).error_count,
            "lists": self._bound._lists.borrowed_tokens,
            "searches": len(self._bound._whereabouts._searches._running),
            "searches begun": self._bound._whereabouts._searches._limiter.borrowed_tokens,
        }
        for name in system.supervisor._children:
            standing = system.standing(name)
            left |= {
                f"leases of {name}": len(standing.account.leases),
                f"reserved tokens of {name}": standing.account.reserved_tokens,
                f"demands of {name}": len(standing._demands),
                f"probes of {name}": len(standing.breaker._leases),
                f"messages for {name}": len(system.supervisor._children[name].mailbox),
            }
            left |= {
                f"open entries of {model} of {name}": len(quota._open)
                for model, quota in standing.capacity.quotas.items()
            }
        self.wrongs += [f"left over: {count} {what}" for what, count in left.items() if count]

    def _look_for_keys(self) -> None:
        keys = [
            key
            for name in (HAVEN, *TROUBLED, *SPARE)
            for key in (f"key-of-{name}", f"second-key-of-{name}")
        ]
        answers = [f"{c.writer.headers} {c.writer.body!r}" for c in self.clients.values()]
        texts = [*self.lines, *answers]
        for key in keys:
            self.wrongs += [f"{key} is shown: {text}" for text in texts if key in text]


def run_chaos(seed: int, chaos: Chaos) -> Run:
    """A whole run, in a trio of its own."""
    # Hypothesis makes trio's order of tasks a matter of this generator; here it starts anew.
    trio._core._run._r.seed(seed)  # type: ignore[attr-defined]
    run = Run(seed, chaos)
    trio.run(run.run, clock=MockClock(autojump_threshold=0))
    return run
