"""Starts the actors in order and stops them in reverse: supervisor and instances outlast the
router, and both outlast the requests that hold leases."""

from __future__ import annotations

import logging
import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import trio
from tricycle import open_service_nursery

from actors.administration import Administration
from actors.child import RestartIntensity
from actors.clock import WallClock
from actors.lease import Leases
from actors.mailbox import Mailbox
from actors.policy.selection import Selector
from actors.router import Router, RouterAddress
from actors.statistics import SystemStatistics
from actors.supervisor import ConfigStorage, Supervisor

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from actors.changes import Difference
    from actors.models import InstanceConfig, InstanceState
    from actors.policy.selection import Strategy
    from actors.state_file import StateStorage


@dataclass(frozen=True)
class SystemOptions:
    """`max_waiting`: requests that may wait for capacity at once. `seed`: of every random choice;

    None takes one from the operating system.
    """

    strategy: Strategy = "priority"
    max_waiting: int = 10_000
    router_mailbox: int = 16_384
    seed: int | None = None
    intensity: RestartIntensity = field(default_factory=RestartIntensity)
    supervisor_type: type[Supervisor] = Supervisor


class System:
    """The running actors, and the two ways in: `leases` for requests, `administration` for people.

    Must be created inside `trio.run`; `run` must be started before either is used.
    """

    def __init__(
        self,
        configs: Mapping[str, InstanceConfig],
        states: Mapping[str, InstanceState],
        config_store: ConfigStorage,
        state_store: StateStorage,
        options: SystemOptions,
        log: logging.Logger | None = None,
        on_change: Callable[[Difference], None] = lambda _change: None,
    ) -> None:
        """`on_change`: see `Supervisor`."""
        rng = random.Random(options.seed)  # noqa: S311 - spreads load, guards nothing
        self.clock = WallClock.start()
        self._address = RouterAddress(Mailbox(options.router_mailbox))
        self.router = Router(self._address, Selector(options.strategy, rng), options.max_waiting)
        self.supervisor = options.supervisor_type(
            mailbox=Mailbox(256),
            router=self._address,
            config_store=config_store,
            state_store=state_store,
            clock=self.clock,
            rng=rng,
            log=log or logging.getLogger("actors"),
            intensity=options.intensity,
            on_change=on_change,
        )
        self.supervisor.adopt(configs, states)
        self.leases = Leases(self._address)
        self.administration = Administration(self.supervisor.mailbox)

    def statistics(self) -> SystemStatistics:
        """Never blocks."""
        return SystemStatistics(
            instances=self.supervisor.statistics(),
            router=self._address.mailbox.statistics(),
            supervisor=self.supervisor.mailbox.statistics(),
            waiting=self._address.waiting,
        )

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Runs until cancelled. On the way out: router, then instances, then the state file."""
        async with open_service_nursery() as services:
            services.start_soon(self.supervisor.run, name="supervisor")
            try:
                task_status.started()
                await self.router.run()
            finally:
                self.router.close()
                services.cancel_scope.cancel()
