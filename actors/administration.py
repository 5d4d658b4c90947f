"""The front end's side of the supervisor: one method per question, each one message and a reply."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, Never, TypeVar

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
from actors.errors import ChangeRefused
from actors.mailbox import Mailbox, MailboxClosed, Reply

if TYPE_CHECKING:
    from collections.abc import Mapping

    from actors.changes import Difference
    from actors.migration import MigrationPlan
    from actors.models import InstanceConfig, InstanceState

T = TypeVar("T")


class Administration:
    """Every method waits for the supervisor's answer and raises what it was refused with.

    What changes the configuration takes over an edit of its file first: `InvalidEdit` if it
    can't.
    """

    def __init__(self, supervisor: Mailbox[SupervisorRequest, Never]) -> None:
        self._supervisor = supervisor

    async def read(self) -> dict[str, Instance]:
        """All instances by name, in the order of the configuration file."""
        reply: Reply[dict[str, Instance]] = Reply()
        return await self._ask(ReadInstances(reply), reply)

    async def read_one(self, name: str) -> Instance:
        """Errors: `UnknownInstance`."""
        reply: Reply[dict[str, Instance]] = Reply()
        return (await self._ask(ReadInstances(reply, frozenset({name})), reply))[name]

    async def add(self, config: InstanceConfig) -> None:
        """Durable when it returns. Errors: `NameTaken`, `StoreFailed`."""
        reply: Reply[None] = Reply()
        await self._ask(AddInstance(config, reply), reply)

    async def update_config(self, name: str, changes: Mapping[str, Any]) -> tuple[str, ...]:
        """The fields that changed; durable when it returns.

        Errors: `UnknownInstance`, `InvalidChange`, `StoreFailed`.
        """
        reply: Reply[tuple[str, ...]] = Reply()
        return await self._ask(UpdateConfig(name, changes, reply), reply)

    async def update_state(self, name: str, changes: Mapping[str, Any]) -> InstanceState:
        """The state after the change. Errors: `UnknownInstance`, `InvalidChange`."""
        reply: Reply[InstanceState] = Reply()
        return await self._ask(UpdateState(name, changes, reply), reply)

    async def remove(self, name: str) -> None:
        """Durable when it returns; running requests finish. Errors: `UnknownInstance`,
        `StoreFailed`."""
        reply: Reply[None] = Reply()
        await self._ask(RemoveInstance(name, reply), reply)

    async def migrate(self, document: object, *, overwrite: bool) -> MigrationPlan:
        """What was done of the earlier system's `document`; durable when it returns.

        Errors: `InvalidChange`, `StoreFailed`.
        """
        reply: Reply[MigrationPlan] = Reply()
        return await self._ask(Migrate(document, overwrite, reply), reply)

    async def reload(self, *, discard: bool = False) -> Difference:
        """What is different now that the edited configuration file is in force; with `discard`,
        the file is put back to what was in force. Errors: `InvalidEdit`, `StoreFailed`."""
        reply: Reply[Difference] = Reply()
        return await self._ask(ReloadConfig(reply, discard), reply)

    def reload_soon(self) -> None:
        """As `reload`, without waiting: the supervisor logs what comes of it. Never blocks."""
        with suppress(trio.WouldBlock, MailboxClosed):  # there is more urgent work, or an end
            self._supervisor.offer(ReloadConfig(Reply()))

    async def _ask(self, message: SupervisorRequest, reply: Reply[T]) -> T:
        try:
            self._supervisor.offer(message)
        except trio.WouldBlock:
            raise ChangeRefused("too many administrative requests at once; try again") from None
        except MailboxClosed:
            raise ChangeRefused("the service is shutting down") from None
        return await reply.wait()
