"""A running actor system in memory, for tests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import trio

from actors.errors import InvalidEdit
from actors.messages import Demand
from actors.models import InstanceConfig, InstanceState
from actors.system import System, SystemOptions


def instance_config(name: str = "one", **fields: Any) -> InstanceConfig:
    """A valid configuration that serves `gpt-4`."""
    defaults: dict[str, Any] = {
        "api_key": f"key-of-{name}-0123456789",
        "api_base": f"https://{name}.openai.azure.com",
        "supported_models": ["gpt-4"],
        "max_tpm": 1000,
    }
    return InstanceConfig.model_validate({"name": name, **defaults, **fields})


def exact(tokens: int, output: int = 0, model: str = "gpt-4") -> Demand:
    return Demand(model, tokens, tokens, tokens, output)


class MemoryStore:
    """Keeps what was saved last; `failing` makes it refuse.

    `edited`: what somebody else has written meanwhile, or why that can't be used.
    """

    def __init__(self) -> None:
        self.saved: dict[str, Any] = {}
        self.saves = 0
        self.failing: Exception | None = None
        self.edited: Mapping[str, InstanceConfig] | InvalidEdit | None = None

    async def edit(self) -> int | None:
        await trio.lowlevel.checkpoint()
        return None if self.edited is None else id(self.edited)

    async def take_over(self) -> Mapping[str, InstanceConfig]:
        await trio.lowlevel.checkpoint()
        assert self.edited is not None
        if isinstance(self.edited, InvalidEdit):
            raise self.edited
        taken, self.edited = self.edited, None
        return taken

    async def keep_edit(self) -> str | None:
        await trio.lowlevel.checkpoint()
        return "the kept edit"

    async def save(self, content: Mapping[str, Any]) -> None:
        await trio.lowlevel.checkpoint()
        if self.failing is not None:
            raise self.failing
        self.saved = dict(content)
        self.saves += 1
        self.edited = None


class RunningSystem(System):
    """A system whose stores can be looked into."""

    config_store: MemoryStore
    state_store: MemoryStore

    def standing(self, name: str) -> Any:
        return self.supervisor._children[name].standing


@asynccontextmanager
async def running_system(
    *configs: InstanceConfig,
    states: Mapping[str, InstanceState] | None = None,
    options: SystemOptions | None = None,
) -> AsyncIterator[RunningSystem]:
    config_store, state_store = MemoryStore(), MemoryStore()
    system = RunningSystem(
        {config.name: config for config in configs},
        states or {},
        config_store,
        state_store,
        options or SystemOptions(seed=1),
    )
    system.config_store, system.state_store = config_store, state_store
    async with trio.open_nursery() as nursery:
        await nursery.start(system.run)
        yield system
        nursery.cancel_scope.cancel()
