"""The waiting line: requests that no instance can admit now and one will in time.

By rank, and oldest first within one; bounded in number. Age is the order of the lease ids, so
an ask that comes back from an instance finds its old place. One list per lane: a model, and the
instances that alone will do, if there are such. For whatever keeps the oldest ask of a lane
waiting mostly keeps the rest of that lane waiting too.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left, insort
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Container, Iterator

    from actors.messages import Acquire, LeaseId, Rank

Place: TypeAlias = "tuple[Rank, LeaseId]"
Lane: TypeAlias = "str | tuple[str, frozenset[str]]"
"""The model, and the instances to which an ask is confined, if it is."""
NEVER: Final = float("inf")
LOOK_AHEAD: Final = 4
"""How many of one lane are looked at in one go although those before them have to wait: they
may fit where the others can't. More would find little, and looking at one that has to wait costs
up to 60 µs for each full instance."""
SPARE_DEADLINES: Final = 64
"""Deadlines of asks that have left are swept out when they outnumber the others by this."""


class WaitingLine:
    """Asks by rank and age. Synchronous; `now` is trio time in seconds.

    Cost: O(log n) per call, and moving a few kilobytes of pointers for thousands that wait.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._asks: dict[LeaseId, Acquire] = {}
        self._queues: dict[Lane, list[Place]] = {}
        self._deadlines: list[tuple[float, LeaseId]] = []

    def __len__(self) -> int:
        return len(self._asks)

    def full(self) -> bool:
        return len(self._asks) >= self.limit

    def join(self, ask: Acquire) -> None:
        """Takes the place that its rank and age give `ask`. The caller has checked `full`."""
        self._asks[ask.lease_id] = ask
        insort(self._queues.setdefault(lane(ask), []), (ask.rank, ask.lease_id))
        heapq.heappush(self._deadlines, (ask.wait_until, ask.lease_id))

    def leave(self, lease_id: LeaseId) -> bool:
        """Forgets an ask that was served, refused or withdrawn; False if it does not wait."""
        ask = self._asks.pop(lease_id, None)
        if ask is None:
            return False
        queue = self._queues[lane(ask)]
        del queue[bisect_left(queue, (ask.rank, lease_id))]
        if not queue:
            del self._queues[lane(ask)]
        if len(self._deadlines) > 2 * len(self._asks) + SPARE_DEADLINES:
            self._deadlines = [entry for entry in self._deadlines if entry[1] in self._asks]
            heapq.heapify(self._deadlines)
        return True

    def oldest_first(self, blocked: Container[Lane]) -> Iterator[Acquire]:
        """Those who wait, by rank and age. The caller may let the one that it was given leave.

        Left out: lanes that the caller has put into `blocked` by then, and what stands behind
        `LOOK_AHEAD` asks of its lane that stayed.
        """
        # Places are unique: two entries are never compared by their lanes.
        turns = [(queue[0], key, 0) for key, queue in self._queues.items()]
        heapq.heapify(turns)
        while turns:
            (_, lease_id), key, place = heapq.heappop(turns)
            yield self._asks[lease_id]
            if lease_id in self._asks:
                place += 1
            queue = self._queues.get(key, [])
            if key not in blocked and place < min(len(queue), LOOK_AHEAD):
                heapq.heappush(turns, (queue[place], key, place))

    def expired(self, now: float) -> Iterator[Acquire]:
        """Takes out every ask whose patience has ended."""
        while self.next_deadline() <= now:
            _, lease_id = heapq.heappop(self._deadlines)
            ask = self._asks[lease_id]
            self.leave(lease_id)
            yield ask

    def next_deadline(self) -> float:
        """When the next patience ends; infinity if nobody waits."""
        deadlines = self._deadlines
        while deadlines and deadlines[0][1] not in self._asks:
            heapq.heappop(deadlines)
        return deadlines[0][0] if deadlines else NEVER

    def clear(self) -> list[Acquire]:
        """Empties the line and hands out who was in it."""
        asks = list(self._asks.values())
        self._asks.clear()
        self._queues.clear()
        self._deadlines.clear()
        return asks


def lane(ask: Acquire) -> Lane:
    """Whose fate `ask` mostly shares."""
    model = ask.demand.model
    return model if ask.only is None else (model, ask.only)
