"""The waiting line: requests that no instance can admit now and one will in time.

First come, first served among the requests for one model: the head of a model's line is offered
capacity first, so a large request is never starved by small ones behind it. Bounded in number.
"""

from __future__ import annotations

import heapq
from collections import deque
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

    from actors.messages import Acquire, LeaseId

NEVER: Final = float("inf")


class WaitingLine:
    """Asks in order of arrival, one queue per model. Synchronous; `now` is trio time.

    An ask whose requester has gone stays in its queue as a husk until it comes to the head, but
    no longer counts.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._queues: dict[str, deque[Acquire]] = {}
        self._waiting: dict[LeaseId, Acquire] = {}
        self._deadlines: list[tuple[float, LeaseId]] = []

    def __len__(self) -> int:
        return len(self._waiting)

    def full(self) -> bool:
        return len(self._waiting) >= self.limit

    def has(self, model: str) -> bool:
        """Whether anyone waits for `model`: then a newcomer queues behind."""
        return model in self._queues

    def join(self, ask: Acquire, *, front: bool = False) -> None:
        """`front`: for an ask that was at the head and was sent back by an instance."""
        queue = self._queues.setdefault(ask.demand.model, deque())
        if front:
            queue.appendleft(ask)
        else:
            queue.append(ask)
        self._waiting[ask.lease_id] = ask
        heapq.heappush(self._deadlines, (ask.wait_until, ask.lease_id))

    def leave(self, lease_id: LeaseId) -> None:
        """Forgets an ask that was served, refused or withdrawn."""
        self._waiting.pop(lease_id, None)

    def models(self) -> list[str]:
        return list(self._queues)

    def head(self, model: str) -> Acquire | None:
        """The oldest ask that still counts; drops husks before it, and an empty queue."""
        queue = self._queues.get(model)
        while queue:
            ask = queue[0]
            if ask.lease_id in self._waiting and not ask.reply.abandoned:
                return ask
            queue.popleft()
        self._queues.pop(model, None)
        return None

    def expired(self, now: float) -> Iterator[Acquire]:
        """Takes out every ask whose patience has ended."""
        while self._deadlines and self._deadlines[0][0] <= now:
            _, lease_id = heapq.heappop(self._deadlines)
            ask = self._waiting.pop(lease_id, None)
            if ask is not None:
                yield ask

    def next_deadline(self) -> float:
        """When the next patience ends; infinity if nobody waits."""
        while self._deadlines and self._deadlines[0][1] not in self._waiting:
            heapq.heappop(self._deadlines)
        return self._deadlines[0][0] if self._deadlines else NEVER

    def clear(self) -> list[Acquire]:
        """Empties the line and hands out who was in it."""
        asks = list(self._waiting.values())
        self._waiting.clear()
        self._queues.clear()
        self._deadlines.clear()
        return asks
