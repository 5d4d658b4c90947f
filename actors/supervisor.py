"""The supervisor: owns the configuration, the instances' lives, and both files.

Restart policy, in OTP's terms: instances are permanent children, one_for_one, with a restart
intensity; one that exceeds it is quarantined rather than escalated, because one broken instance
is no reason to stop the others. Router and supervisor have no restart: if one of them fails the
process ends and is started anew, from files that are always whole.

Standing and mailbox of an instance belong to its `Child` record here, so that a restarted task
finds its counters, leases and unread messages.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Never, Protocol, assert_never

import trio

from actors.changes import merged_config, merged_state
from actors.errors import ChangeRefused, InstanceCrashed, NameTaken, UnknownInstance
from actors.instance import InstanceActor
from actors.mailbox import Mailbox, Reply
from actors.messages import (
    Acquire,
    AddInstance,
    AmendState,
    Instance,
    InstanceControl,
    InstanceRef,
    InstanceRequest,
    Observe,
    ReadInstances,
    Reconfigure,
    RemoveInstance,
    Retire,
    RosterChanged,
    Settle,
    SupervisorRequest,
    UpdateConfig,
    UpdateState,
)
from actors.policy.standing import Standing

if TYPE_CHECKING:
    import logging
    import random
    from collections.abc import Mapping

    from actors.clock import WallClock
    from actors.models import InstanceConfig, InstanceState
    from actors.router import RouterAddress

INSTANCE_MAILBOX: Final = 4096
"""Undecided requests per instance; each is decided in microseconds, so this is half a second."""
_STOPPING: Final = "the service is shutting down"
SAVE_INTERVAL_S: Final = 1.0
"""State changes within this time are written together."""
SAVE_AT_EXIT_S: Final = 5.0
"""The last write of the state may take this long; a disk slower than that loses a second's news."""


class ConfigStorage(Protocol):
    async def save(self, configs: Mapping[str, InstanceConfig]) -> None: ...


class StateStorage(Protocol):
    async def save(self, records: Mapping[str, Mapping[str, Any]]) -> None: ...


@dataclass(frozen=True, slots=True)
class RestartIntensity:
    """At most `restarts` in `period_s`; the next crash within it quarantines the instance."""

    restarts: int = 3
    period_s: float = 30.0


@dataclass(slots=True)
class Child:
    """All that outlives an instance's task. `config` is what is on disk; the actor follows it."""

    config: InstanceConfig
    standing: Standing
    mailbox: Mailbox[InstanceRequest, InstanceControl]
    crashes: deque[float] = field(default_factory=deque)

    @property
    def name(self) -> str:
        return self.config.name

    def ref(self) -> InstanceRef:
        return InstanceRef(self.config, self.mailbox, self.standing)


class Supervisor:
    """Serves the administration's requests one at a time; a change is on disk when answered."""

    actor_type: type[InstanceActor] = InstanceActor

    def __init__(
        self,
        *,
        mailbox: Mailbox[SupervisorRequest, Never],
        router: RouterAddress,
        config_store: ConfigStorage,
        state_store: StateStorage,
        clock: WallClock,
        rng: random.Random,
        log: logging.Logger,
        intensity: RestartIntensity = RestartIntensity(),
    ) -> None:
        self.mailbox = mailbox
        self._router = router
        self._config_store = config_store
        self._state_store = state_store
        self._clock = clock
        self._rng = rng
        self._log = log
        self._intensity = intensity
        self._children: dict[str, Child] = {}
        self._retiring: list[Child] = []
        self._saved: tuple[object, ...] = ()

    def can_serve(self) -> bool:
        """Whether some instance can serve requests. Never blocks."""
        now = trio.current_time()
        return any(child.standing.can_serve(now) for child in self._children.values())

    # -- life ------------------------------------------------------------------------------

    def adopt(
        self, configs: Mapping[str, InstanceConfig], states: Mapping[str, InstanceState]
    ) -> None:
        """Takes over what the files said, before `run`; the router knows of it before any request.

        Must be called inside `trio.run`.
        """
        now = trio.current_time()
        for name, config in configs.items():
            child = self._child(config)
            if name in states:
                child.standing.restore(states[name], now, self._clock)
            self._children[name] = child
        self._publish_roster()

    async def run(self) -> None:
        """Runs instances until cancelled; then settles what was posted and saves the state.

        The instances' nursery is inside, so cancelling this ends them too; whoever holds leases
        must have finished before that, or their last settlements are handled here without a task.
        """
        try:
            async with trio.open_nursery() as nursery:
                for child in self._children.values():
                    nursery.start_soon(self._guard, child, name=f"instance[{child.name}]")
                nursery.start_soon(self._save_states, name="supervisor[save states]")
                await self._serve(nursery)
        finally:
            for child in [*self._children.values(), *self._retiring]:
                self._close(child)
            self._fail_unanswered()
            with trio.CancelScope(deadline=trio.current_time() + SAVE_AT_EXIT_S, shield=True):
                await self._save_now()

    async def _serve(self, nursery: trio.Nursery) -> None:
        while True:
            await self.mailbox.wait_nonempty()
            await self._answer(self.mailbox.receive_nowait(), nursery)

    async def _answer(self, message: SupervisorRequest, nursery: trio.Nursery) -> None:
        try:
            match message:
                case ReadInstances(reply, names):
                    reply.set(self._read(names))
                case AddInstance(config, reply):
                    await self._add(config, nursery)
                    reply.set(None)
                case UpdateConfig(name, changes, reply):
                    reply.set(await self._update_config(name, changes))
                case UpdateState(name, changes, reply):
                    reply.set(await self._update_state(name, changes))
                case RemoveInstance(name, reply):
                    await self._remove(name)
                    reply.set(None)
                case _:
                    assert_never(message)
        except ChangeRefused as refused:
            message.reply.fail(refused)
        except InstanceCrashed as crashed:
            message.reply.fail(ChangeRefused(f"{crashed}; its task was restarted, try again"))
        except trio.Cancelled:
            message.reply.fail(ChangeRefused(_STOPPING))
            raise

    # -- children --------------------------------------------------------------------------

    def _child(self, config: InstanceConfig) -> Child:
        return Child(config, Standing(config, self._rng), Mailbox(INSTANCE_MAILBOX))

    def _actor(self, child: Child) -> InstanceActor:
        return self.actor_type(child.standing, child.mailbox, self._router, self._clock)

    async def _guard(self, child: Child) -> None:
        """Runs an instance's actor until it has retired; a crashed one is replaced by a new one.

        A quarantined instance keeps an actor too: settlements and the operator reach it there.
        """
        retired = False
        while not retired:
            actor = self._actor(child)
            try:
                await actor.run()
                retired = True
            except Exception as error:  # noqa: BLE001 - costs this child only, whatever it is
                self._log.exception(
                    "instance %s: its task failed", child.name, extra={"instance": child.name}
                )
                actor.recover(error)
                self._count_crash(child, error)
                await trio.lowlevel.checkpoint()
        self._close(child)
        self._retiring.remove(child)

    def _count_crash(self, child: Child, error: Exception) -> None:
        """Quarantines a child that crashes too often."""
        now = trio.current_time()
        child.crashes.append(now)
        while child.crashes[0] < now - self._intensity.period_s:
            child.crashes.popleft()
        if len(child.crashes) > self._intensity.restarts:
            child.crashes.clear()
            reason = (
                f"quarantined: its task failed more than {self._intensity.restarts} times in "
                f"{self._intensity.period_s:g} s, last with {type(error).__name__}"
            )
            child.standing.set_quarantine(reason, now)
            self._log.error("instance %s: %s", child.name, reason, extra={"instance": child.name})

    def _close(self, child: Child) -> None:
        """Does the settlements still posted and refuses the rest, without a task."""
        now = trio.current_time()
        for message in child.mailbox.close():
            match message:
                case Settle(lease_id, outcome, used_tokens, evidence):
                    child.standing.settle(lease_id, outcome, used_tokens, now, evidence)
                case Retire() | Observe():
                    pass
                case Acquire() | Reconfigure() | AmendState():
                    message.reply.fail(InstanceCrashed(f"instance {child.name} has stopped"))
                case _:
                    assert_never(message)

    def _publish_roster(self) -> None:
        self._router.mailbox.tell(
            RosterChanged(tuple(child.ref() for child in self._children.values()))
        )

    # -- requests --------------------------------------------------------------------------

    def _existing(self, name: str) -> Child:
        child = self._children.get(name)
        if child is None:
            raise UnknownInstance(name)
        return child

    def _read(self, names: frozenset[str] | None) -> dict[str, Instance]:
        now = trio.current_time()
        if names is not None:
            for name in names:
                self._existing(name)
        return {
            name: Instance(child.config, child.standing.state(now, self._clock))
            for name, child in self._children.items()
            if names is None or name in names
        }

    async def _add(self, config: InstanceConfig, nursery: trio.Nursery) -> None:
        if config.name in self._children:
            raise NameTaken(config.name)
        await self._config_store.save({**self._configs(), config.name: config})
        child = self._children[config.name] = self._child(config)
        nursery.start_soon(self._guard, child, name=f"instance[{config.name}]")
        self._publish_roster()

    async def _update_config(self, name: str, changes: Mapping[str, Any]) -> tuple[str, ...]:
        child = self._existing(name)
        config, changed = merged_config(child.config, changes)
        if changed:
            await self._config_store.save({**self._configs(), name: config})
            child.config = config
            reply: Reply[None] = Reply()
            child.mailbox.tell(Reconfigure(config, reply))
            # The router judges by the instance's own standing: only now is the next request's
            # judgement a new one.
            await reply.wait()
            self._publish_roster()
        return changed

    async def _update_state(self, name: str, changes: Mapping[str, Any]) -> InstanceState:
        child = self._existing(name)
        current = child.standing.state(trio.current_time(), self._clock)
        valid = merged_state(current, changes)
        reply: Reply[InstanceState] = Reply()
        child.mailbox.tell(AmendState(valid, reply))
        return await reply.wait()

    async def _remove(self, name: str) -> None:
        child = self._existing(name)
        await self._config_store.save(
            {other: config for other, config in self._configs().items() if other != name}
        )
        del self._children[name]
        self._retiring.append(child)
        child.mailbox.tell(Retire())
        self._publish_roster()

    def _configs(self) -> dict[str, InstanceConfig]:
        return {name: child.config for name, child in self._children.items()}

    # -- the state file --------------------------------------------------------------------

    async def _save_states(self) -> None:
        while True:
            await trio.sleep(SAVE_INTERVAL_S)
            await self._save_now()

    async def _save_now(self) -> None:
        """Writes the state file if anything in it has changed. A failure is logged, not raised:

        the next second tries again, and serving matters more than remembering.
        """
        revisions = tuple(
            (name, id(child), child.standing.revision) for name, child in self._children.items()
        )
        if revisions == self._saved:
            return
        now = trio.current_time()
        records = {
            name: child.standing.record(now, self._clock) for name, child in self._children.items()
        }
        try:
            await self._state_store.save(records)
        except ChangeRefused as error:
            self._log.error("state not saved: %s", error)
        else:
            self._saved = revisions

    def _fail_unanswered(self) -> None:
        for message in self.mailbox.close():
            message.reply.fail(ChangeRefused(_STOPPING))
