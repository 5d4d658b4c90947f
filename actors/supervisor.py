"""The supervisor: owns the configuration, the instances' lives, and both files.

Restart policy, in OTP's terms: instances are permanent children, one_for_one, with a restart
intensity; one that exceeds it is quarantined rather than escalated, because one broken instance
is no reason to stop the others. Router and supervisor have no restart: if one of them fails the
process ends and is started anew, from files that are always whole.

Standing and mailbox of an instance belong to its `Child` record here, so that a restarted task
finds its counters, leases and unread messages.
"""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Never, Protocol, assert_never

import trio

from actors.admin_messages import (
    AddInstance,
    Instance,
    Migrate,
    ReadInstances,
    ReloadConfig,
    RemoveInstance,
    SupervisorRequest,
    UpdateConfig,
    UpdateState,
)
from actors.changes import Difference, difference, merged_config, merged_state
from actors.child import Child, RestartIntensity
from actors.errors import (
    ChangeRefused,
    InstanceCrashed,
    InvalidEdit,
    NameTaken,
    UnknownInstance,
)
from actors.instance import InstanceActor
from actors.mailbox import Mailbox, MailboxClosed, Reply
from actors.messages import AmendState, Reconfigure, Retire, RosterChanged
from actors.migration import plan_migration
from actors.policy.standing import Standing
from actors.state_file import StateFile
from actors.state_log import StateLog, look_at
from actors.statistics import instance_statistics

if TYPE_CHECKING:
    import logging
    import random
    from collections.abc import Callable, Mapping

    from actors.clock import WallClock
    from actors.migration import MigrationPlan
    from actors.models import InstanceConfig, InstanceState
    from actors.router import RouterAddress
    from actors.state_file import StateStorage
    from actors.statistics import InstanceStatistics

_STOPPING: Final = "the service is shutting down"
SAVE_INTERVAL_S: Final = 1.0
"""State changes within this time are written together."""
SAVE_AT_EXIT_S: Final = 5.0
"""The last write of the state may take this long; a disk slower than that loses a second's news."""


class ConfigStorage(Protocol):
    """See `actors.store.ConfigStore`."""

    async def save(self, configs: Mapping[str, InstanceConfig]) -> None: ...

    async def edit(self) -> object | None: ...

    async def take_over(self) -> Mapping[str, InstanceConfig]: ...

    async def keep_edit(self) -> str | None: ...


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
        on_change: Callable[[Difference], None] = lambda _change: None,
    ) -> None:
        """`on_change` is told what is different once it is in force; must not block or raise."""
        self.mailbox = mailbox
        self._on_change = on_change
        self._router = router
        self._config_store = config_store
        self._state_file = StateFile(state_store, clock, log)
        self._clock = clock
        self._rng = rng
        self._log = log
        self._intensity = intensity
        self._children: dict[str, Child] = {}
        self._retiring: list[Child] = []

    def can_serve(self) -> bool:
        """Whether some instance can serve requests. Never blocks."""
        now = trio.current_time()
        return any(child.standing.can_serve(now) for child in self._children.values())

    def configured_models(self) -> frozenset[str]:
        """The models that some configuration names. Never blocks."""
        return frozenset(name for config in self.configs().values() for name in config.models())

    def statistics(self) -> tuple[InstanceStatistics, ...]:
        """Every instance, at this moment. Never blocks."""
        now = trio.current_time()
        return tuple(instance_statistics(child, now) for child in self._children.values())

    # -- life ------------------------------------------------------------------------------

    def adopt(
        self, configs: Mapping[str, InstanceConfig], states: Mapping[str, InstanceState]
    ) -> None:
        """Takes over what the files said, before `run`; the router knows of it before any request.

        Must be called inside `trio.run`.
        """
        self._children = {
            name: self._child(config, states.get(name)) for name, config in configs.items()
        }
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
                nursery.start_soon(self._look_after_files, name="supervisor[files]")
                nursery.start_soon(look_at, self._state_logs, name="supervisor[states]")
                await self._serve(nursery)
        finally:
            for child in [*self._children.values(), *self._retiring]:
                child.close(trio.current_time())
            self._fail_unanswered()
            with trio.CancelScope(deadline=trio.current_time() + SAVE_AT_EXIT_S, shield=True):
                await self._save_states()

    async def _serve(self, nursery: trio.Nursery) -> None:
        while True:
            await self.mailbox.wait_nonempty()
            await self._answer(self.mailbox.receive_nowait(), nursery)

    async def _answer(self, message: SupervisorRequest, nursery: trio.Nursery) -> None:
        try:
            if isinstance(message, AddInstance | UpdateConfig | RemoveInstance | Migrate):
                await self._take_over_edit(nursery)
            match message:
                case ReadInstances(reply, names):
                    reply.set(self._read(names))
                case AddInstance(config, reply):
                    await self._add(config, nursery)
                    reply.set(None)
                case UpdateConfig(name, changes, reply):
                    reply.set(await self._update_config(name, changes, nursery))
                case UpdateState(name, changes, reply):
                    reply.set(await self._update_state(name, changes))
                case RemoveInstance(name, reply):
                    await self._remove(name, nursery)
                    reply.set(None)
                case Migrate(document, overwrite, reply):
                    reply.set(await self._migrate(document, overwrite, nursery))
                case ReloadConfig(reply, discard):
                    reply.set(await self._reload(discard, nursery))
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

    def _child(self, config: InstanceConfig, state: InstanceState | None) -> Child:
        standing = Standing(config, self._rng)
        if state is not None:
            standing.restore(state, trio.current_time(), self._clock)
        return Child(config, standing, StateLog(standing, self._clock, self._log))

    def _actor(self, child: Child) -> InstanceActor:
        return self.actor_type(
            child.standing, child.mailbox, self._router, self._clock, child.state_log
        )

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
                now = trio.current_time()
                child.state_log.notice(now, child.count_crash(error, self._intensity, now))
                await trio.lowlevel.checkpoint()
        child.close(trio.current_time())
        self._retiring.remove(child)

    def _state_logs(self) -> list[StateLog]:
        return [child.state_log for child in self._children.values()]

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
        await self._change({**self.configs(), config.name: config}, nursery)

    async def _update_config(
        self, name: str, changes: Mapping[str, Any], nursery: trio.Nursery
    ) -> tuple[str, ...]:
        config, changed = merged_config(self._existing(name).config, changes)
        if changed:
            await self._change({**self.configs(), name: config}, nursery)
        return changed

    async def _update_state(self, name: str, changes: Mapping[str, Any]) -> InstanceState:
        child = self._existing(name)
        current = child.standing.state(trio.current_time(), self._clock)
        valid = merged_state(current, changes)
        reply: Reply[InstanceState] = Reply()
        child.mailbox.tell(AmendState(valid, reply))
        return await reply.wait()

    async def _remove(self, name: str, nursery: trio.Nursery) -> None:
        self._existing(name)
        left = {other: config for other, config in self.configs().items() if other != name}
        await self._change(left, nursery)

    async def _migrate(
        self, document: object, overwrite: bool, nursery: trio.Nursery
    ) -> MigrationPlan:
        configs = self.configs()
        plan = await trio.to_thread.run_sync(
            partial(plan_migration, document, configs, overwrite=overwrite)
        )
        if plan.configs:
            await self._change({**configs, **plan.configs}, nursery, plan.states)
            await self._save_states()
        return plan

    # -- the configuration -----------------------------------------------------------------

    def configs(self) -> dict[str, InstanceConfig]:
        """Every configuration by name. Never blocks."""
        return {name: child.config for name, child in self._children.items()}

    async def _change(
        self,
        configs: Mapping[str, InstanceConfig],
        nursery: trio.Nursery,
        states: Mapping[str, InstanceState] = MappingProxyType({}),
    ) -> None:
        """`configs` are on disk and in force. Errors: `StoreFailed`, and nothing has changed."""
        await self._config_store.save(configs)
        await self._put_in_force(configs, nursery, states)

    async def _put_in_force(
        self,
        configs: Mapping[str, InstanceConfig],
        nursery: trio.Nursery,
        states: Mapping[str, InstanceState] = MappingProxyType({}),
    ) -> Difference:
        """Starts, retires and reconfigures instances until they are those of `configs`, in its
        order. `states`: what those that are new have to remember."""
        change = difference(self.configs(), configs)
        for name in change.removed:
            child = self._children.pop(name)
            self._retiring.append(child)
            child.mailbox.tell(Retire())
        replies = [
            self._reconfigure(self._children[name], configs[name]) for name in change.changed
        ]
        for name in change.added:
            child = self._children[name] = self._child(configs[name], states.get(name))
            nursery.start_soon(self._guard, child, name=f"instance[{name}]")
        self._children = {name: self._children[name] for name in configs}
        for reply in replies:
            # The router judges by the instance's own standing: only now is the next request's
            # judgement a new one.
            await reply.wait()
        if change:
            self._publish_roster()
            self._on_change(change)
        return change

    def _reconfigure(self, child: Child, config: InstanceConfig) -> Reply[None]:
        reply: Reply[None] = Reply()
        child.config = config
        child.mailbox.tell(Reconfigure(config, reply))
        return reply

    async def _reload(self, discard: bool, nursery: trio.Nursery) -> Difference:
        if discard and await self._config_store.edit() is not None:
            kept = await self._config_store.keep_edit()
            await self._config_store.save(self.configs())
            self._log.warning(
                "the edit of the configuration file was discarded%s",
                f"; it is kept as {kept}" if kept else "",
            )
            return Difference()
        try:
            return await self._take_over_edit(nursery)
        except InvalidEdit as error:
            self._log.error("configuration not reloaded, nothing has changed: %s", error)
            raise

    async def _take_over_edit(self, nursery: trio.Nursery) -> Difference:
        """What somebody has written into the file, if anything, is in force.

        Errors: `InvalidEdit`, and nothing has changed.
        """
        if await self._config_store.edit() is None:
            return Difference()
        change = await self._put_in_force(await self._config_store.take_over(), nursery)
        if change:
            self._log.info("configuration reloaded: %s", change)
        return change

    # -- the files -------------------------------------------------------------------------

    async def _look_after_files(self) -> None:
        """Saves the state, and asks for a reload of an edited configuration: once for each edit,
        and not before it has been as it is for a second, so that no half-written file is read."""
        before: object | None = None
        reported: object | None = None
        while True:
            await trio.sleep(SAVE_INTERVAL_S)
            await self._save_states()
            edit = await self._config_store.edit()
            if edit is not None and edit == before != reported:
                reported = edit
                with suppress(trio.WouldBlock, MailboxClosed):
                    self.mailbox.offer(ReloadConfig(Reply()))
            before = edit

    async def _save_states(self) -> None:
        await self._state_file.save(self._children.values())

    def _fail_unanswered(self) -> None:
        for message in self.mailbox.close():
            message.reply.fail(ChangeRefused(_STOPPING))
