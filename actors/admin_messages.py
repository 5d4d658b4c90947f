"""What the front end asks of the supervisor, which answers one at a time.

All go into its request lane; `ReloadConfig` also comes from itself. See `actors.messages` for the
others.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping

    from actors.changes import Difference
    from actors.mailbox import Reply
    from actors.migration import MigrationPlan
    from actors.models import InstanceConfig, InstanceState


@dataclass(frozen=True, slots=True)
class Instance:
    """One instance as the admin API shows it. The key in `config` is not masked here."""

    config: InstanceConfig
    state: InstanceState


@dataclass(frozen=True, slots=True)
class ReadInstances:
    """Answer: every instance by name, in the order of the configuration file."""

    reply: Reply[dict[str, Instance]]
    names: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class AddInstance:
    """Errors: `NameTaken`, `StoreFailed`. Answered once it is on disk."""

    config: InstanceConfig
    reply: Reply[None]


@dataclass(frozen=True, slots=True)
class UpdateConfig:
    """Merges `changes` into the configuration. Answer: the fields whose value changed.

    Errors: `UnknownInstance`, `InvalidChange`, `StoreFailed`. Answered once it is on disk.
    """

    name: str
    changes: Mapping[str, Any]
    reply: Reply[tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class UpdateState:
    """Merges `changes` into the state. Errors: `UnknownInstance`, `InvalidChange`."""

    name: str
    changes: Mapping[str, Any]
    reply: Reply[InstanceState]


@dataclass(frozen=True, slots=True)
class RemoveInstance:
    """Errors: `UnknownInstance`, `StoreFailed`. Its running requests finish."""

    name: str
    reply: Reply[None]


@dataclass(frozen=True, slots=True)
class Migrate:
    """Takes the instances of the earlier system's `document` over. Answer: what was done.

    All or nothing; answered once it is on disk. Errors: `InvalidChange`, `StoreFailed`.
    """

    document: object
    overwrite: bool
    reply: Reply[MigrationPlan]


@dataclass(frozen=True, slots=True)
class ReloadConfig:
    """Takes over what somebody has written into the configuration file.

    `discard`: puts the file back to what is in force instead. Errors: `InvalidEdit`,
    `StoreFailed`.
    """

    reply: Reply[Difference]
    discard: bool = False


SupervisorRequest: TypeAlias = (
    ReadInstances
    | AddInstance
    | UpdateConfig
    | UpdateState
    | RemoveInstance
    | Migrate
    | ReloadConfig
)
