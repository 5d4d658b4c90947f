"""Requests to a running system, and instance actors that fail on purpose."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import trio
from harness import RunningSystem, exact, running_system
from trio.testing import wait_all_tasks_blocked

from actors.instance import InstanceActor
from actors.lease import Lease
from actors.messages import CountFirst, Demand, Outcome, Refused
from actors.supervisor import Supervisor

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection

    from actors.models import InstanceConfig
    from actors.system import SystemOptions

OK = Outcome("success", status=200, reached=True)
DOWN = Outcome("instance_error", reason="connect: refused", reached=False)

Answer = Lease | Refused | CountFirst


async def ask(
    system: RunningSystem,
    demand: Demand | int,
    *,
    patience_s: float = 0.0,
    excluded: Collection[str] = (),
    avoided: Collection[str] = (),
    priority: int = 100,
    again: bool = False,
) -> Answer:
    """`demand`: or so many tokens of `gpt-4`."""
    if isinstance(demand, int):
        demand = exact(demand)
    wait_until = trio.current_time() + patience_s
    return await system.leases.acquire(
        demand,
        wait_until,
        frozenset(excluded),
        priority=priority,
        avoided=frozenset(avoided),
        again=again,
    )


async def lease(system: RunningSystem, demand: Demand | int, **options: Any) -> Lease:
    answer = await ask(system, demand, **options)
    assert isinstance(answer, Lease), answer
    return answer


async def refused(system: RunningSystem, demand: Demand | int, **options: Any) -> Refused:
    answer = await ask(system, demand, **options)
    assert isinstance(answer, Refused), answer
    return answer


async def settled(lease: Lease, outcome: Outcome = OK, used_tokens: int | None = None) -> None:
    """Returns when the instance has taken note."""
    lease.settle(outcome, used_tokens)
    await wait_all_tasks_blocked()


async def take_down(system: RunningSystem, name: str) -> float:
    """Opens the breaker of an instance; the time at which it admits a probe."""
    others = set(system.supervisor._children) - {name}
    for _ in range(5):
        await settled(await lease(system, 1, excluded=others), DOWN)
    until = system.standing(name).breaker.next_admission(trio.current_time())
    assert until > trio.current_time()
    return until


@dataclass
class Asked:
    """A request in a task of its own. `at`: when the answer came."""

    scope: trio.CancelScope
    answer: Answer | None = None
    at: float | None = None

    @property
    def instance(self) -> str:
        assert isinstance(self.answer, Lease), self.answer
        return self.answer.config.name


@dataclass
class Crowd:
    """Many requests at once; `answered` in the order of their answers."""

    system: RunningSystem
    nursery: trio.Nursery
    answered: list[Asked] = field(default_factory=list)

    def start(self, demand: Demand | int, **options: Any) -> Asked:
        asked = Asked(trio.CancelScope())
        self.nursery.start_soon(self._ask, asked, demand, options)
        return asked

    async def join(self, demand: Demand | int, **options: Any) -> Asked:
        """Returns when all that can happen now has happened."""
        asked = self.start(demand, **options)
        await wait_all_tasks_blocked()
        return asked

    def disperse(self) -> None:
        """Those who have no answer yet go without."""
        self.nursery.cancel_scope.cancel()

    async def _ask(self, asked: Asked, demand: Demand | int, options: Any) -> None:
        with asked.scope:
            asked.answer = await ask(self.system, demand, **options)
            asked.at = trio.current_time()
            self.answered.append(asked)


@asynccontextmanager
async def crowded(
    *configs: InstanceConfig, taken: int = 0, options: SystemOptions | None = None
) -> AsyncIterator[tuple[RunningSystem, Crowd]]:
    """A system, of which so many tokens are leased already, and a crowd that is about to ask it.
    Whoever has asked has been answered after the block."""
    async with (
        running_system(*configs, options=options) as system,
        trio.open_nursery() as nursery,
    ):
        if taken:
            await lease(system, taken)
        yield system, Crowd(system, nursery)


class Crash(Exception):
    """On purpose."""


def crashing(on: Callable[[object], bool], *, afterwards: bool = False) -> type[Supervisor]:
    """A supervisor whose instance actors crash with a message in hand that `on` chooses.

    `afterwards`: only once they have handled it.
    """

    class CrashingActor(InstanceActor):
        def handle(self, message: Any, now: float) -> None:
            chosen = on(message)
            if chosen and not afterwards:
                raise Crash
            super().handle(message, now)
            if chosen:
                raise Crash

    class CrashingSupervisor(Supervisor):
        actor_type = CrashingActor

    return CrashingSupervisor


def times(count: int, kind: type) -> Callable[[object], bool]:
    """Chooses the first `count` messages of this kind."""
    left = count

    def chosen(message: object) -> bool:
        nonlocal left
        if not isinstance(message, kind) or not left:
            return False
        left -= 1
        return True

    return chosen
