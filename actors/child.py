"""What the supervisor keeps of each instance, whatever becomes of its task."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, assert_never

from actors.errors import InstanceCrashed
from actors.mailbox import Mailbox
from actors.messages import (
    Acquire,
    AmendState,
    InstanceControl,
    InstanceRef,
    InstanceRequest,
    Observe,
    Reconfigure,
    Retire,
    Settle,
)

if TYPE_CHECKING:
    from actors.models import InstanceConfig
    from actors.policy.standing import Standing
    from actors.state_log import StateLog

INSTANCE_MAILBOX: Final = 4096
"""Undecided requests per instance; each is decided in microseconds, so this is half a second."""


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
    state_log: StateLog
    mailbox: Mailbox[InstanceRequest, InstanceControl] = field(
        default_factory=lambda: Mailbox(INSTANCE_MAILBOX)
    )
    crashes: deque[float] = field(default_factory=deque)

    @property
    def name(self) -> str:
        return self.config.name

    def ref(self) -> InstanceRef:
        return InstanceRef(self.config, self.mailbox, self.standing)

    def count_crash(self, error: Exception, intensity: RestartIntensity, now: float) -> str | None:
        """Quarantines the instance if it crashes too often, and says why."""
        self.crashes.append(now)
        while self.crashes[0] < now - intensity.period_s:
            self.crashes.popleft()
        if len(self.crashes) <= intensity.restarts:
            return None
        self.crashes.clear()
        reason = (
            f"quarantined: its task failed more than {intensity.restarts} times in "
            f"{intensity.period_s:g} s, last with {type(error).__name__}"
        )
        self.standing.set_quarantine(reason, now)
        return reason

    def close(self, now: float) -> None:
        """Does the settlements still posted and refuses the rest, without a task."""
        for message in self.mailbox.close():
            match message:
                case Settle(lease_id, outcome, used_tokens, evidence, complete):
                    self.standing.settle(lease_id, outcome, used_tokens, now, evidence, complete)
                case Observe() | Retire():
                    pass
                case Acquire() | Reconfigure() | AmendState():
                    message.reply.fail(InstanceCrashed(f"instance {self.name} has stopped"))
                case _:
                    assert_never(message)
