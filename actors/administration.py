"""The front end's side of the supervisor: one method per question, each one message and a reply."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Never, TypeVar

import trio

from actors.errors import ChangeRefused
from actors.mailbox import Mailbox, MailboxClosed, Reply
from actors.messages import (
    AddInstance,
    Instance,
    ReadInstances,
    RemoveInstance,
    SupervisorRequest,
    UpdateConfig,
    UpdateState,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from actors.models import InstanceConfig, InstanceState

T = TypeVar("T")


class Administration:
    """Every method waits for the supervisor's answer and raises what it was refused with."""

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

    async def _ask(self, message: SupervisorRequest, reply: Reply[T]) -> T:
        try:
            self._supervisor.offer(message)
        except trio.WouldBlock:
            raise ChangeRefused("too many administrative requests at once; try again") from None
        except MailboxClosed:
            raise ChangeRefused("the service is shutting down") from None
        return await reply.wait()
