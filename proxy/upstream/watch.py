"""One task that closes every connection whose time is up.

A cancel scope around each wait would cost some 10 microseconds per request, as much as parsing
the answer. Instead each connection says when it wants to be closed unless something happens
before, and one task looks when the earliest of those times has come: about once per timeout,
because a deadline that has moved on is found out only then.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, Protocol

import trio

if TYPE_CHECKING:
    from typing import Never

RESOLUTION_S: Final = 0.01
"""Looks are at least this far apart, so that many deadlines close together cost little."""


class Watched(Protocol):
    deadline: float
    """On trio's clock; `math.inf` for never."""

    def expire(self) -> None:
        """The deadline has passed. Must make the watch forget this object. Never blocks."""
        ...


class Watch:
    """The deadlines of all connections of one or several pools.

    `run` must be running for as long as any of them is in use.
    """

    __slots__ = ("_scope", "_wake_at", "_watched", "running")

    def __init__(self) -> None:
        self.running = False
        self._watched: set[Watched] = set()
        self._wake_at = math.inf
        self._scope: trio.CancelScope | None = None

    def add(self, watched: Watched) -> None:
        self._watched.add(watched)

    def discard(self, watched: Watched) -> None:
        self._watched.discard(watched)

    def set_deadline(self, watched: Watched, deadline: float) -> None:
        """From now on `watched` expires at `deadline`. To put it off or off the list altogether,
        setting the attribute is enough."""
        watched.deadline = deadline
        if deadline < self._wake_at:
            self._wake_at = deadline
            if self._scope is not None:
                self._scope.deadline = deadline

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> Never:
        """Expires what is due, until cancelled; then nothing that is open expires any more."""
        assert not self.running, "one task per watch"
        self.running = True
        task_status.started()
        try:
            while True:
                with trio.CancelScope(deadline=self._wake_at) as self._scope:
                    await trio.sleep_forever()
                self._look(trio.current_time())
        finally:
            self.running = False
            self._scope = None

    def _look(self, now: float) -> None:
        for watched in [each for each in self._watched if each.deadline <= now]:
            watched.expire()
        earliest = min((each.deadline for each in self._watched), default=math.inf)
        self._wake_at = max(earliest, now + RESOLUTION_S)
