"""What refused requests were told, and how many of them come back.

A refusal names a time. Whoever comes back then finds a place before those who have not asked yet,
and what they are expected to take is ahead of everybody who would have his turn after that time.
How many come back is learned: where nobody does, refusals hold nothing up.
"""

from __future__ import annotations

import heapq
from math import inf
from typing import TYPE_CHECKING, Final, NamedTuple

from actors.policy.headroom import NOBODY, Ahead

if TYPE_CHECKING:
    from actors.messages import Acquire
    from actors.policy.bookings import Limit

GRACE_S: Final = 5.0
"""How long after its time a promise holds: `retry-after` counts in whole seconds, and networks
and clocks add to it."""
EARLY_S: Final = 0.05
"""Clients' timers are not exact."""
LONGEST_S: Final = 120.0
"""The official SDKs give up when they are told to wait longer (`proxy.exchange.refusals`)."""
MOST: Final = 10_000
"""Promises that are remembered; what comes on top is a refusal without one."""
WEIGHT: Final = 0.02
"""Of the latest promise in the share that was taken up: about the last hundred count."""


class _Promise(NamedTuple):
    due: float
    priority: int
    limit: Limit
    tokens: int

    @property
    def place(self) -> tuple[int, int]:
        return int(self.due), self.priority


class Promises:
    """Synchronous; `now` is trio time. Cost: O(log n), and for `ahead` a minute's seconds at the
    most."""

    __slots__ = ("_by_limit", "_by_model", "_count", "_ended", "_ends_at", "share")

    def __init__(self) -> None:
        self.share = 0.0
        """Of the promises that have ended lately: how many were taken up. None, until one was:
        clients that can't be recognised must not be kept out by what they were promised."""
        self._ended = 0
        self._by_model: dict[str, list[_Promise]] = {}
        self._by_limit: dict[Limit, dict[tuple[int, int], Ahead]] = {}
        """By the second in which they are due, and priority."""
        self._count = 0
        self._ends_at = inf
        """No promise ends before."""

    def __len__(self) -> int:
        return self._count

    def give(self, ask: Acquire, limit: Limit, due: float, now: float) -> None:
        """`ask` is refused and told to come back at `due`, when it is expected to fit `limit`."""
        self._forget(now)
        if due - now > LONGEST_S or self._count >= MOST:
            return
        demand = ask.demand
        promise = _Promise(due, ask.priority, limit, demand.input_likely + demand.output)
        heapq.heappush(self._by_model.setdefault(demand.model, []), promise)
        places = self._by_limit.setdefault(limit, {})
        before = places.get(promise.place, NOBODY)
        places[promise.place] = Ahead(before.tokens + promise.tokens, before.requests + 1)
        self._count += 1
        self._ends_at = min(self._ends_at, due + GRACE_S)

    def due(self, model: str, now: float) -> bool:
        """Whether one who was refused for `model` may come back now."""
        self._forget(now)
        promises = self._by_model.get(model)
        return promises is not None and promises[0].due <= now + EARLY_S

    def take_up(self, model: str, now: float) -> bool:
        """One has come back; False if nobody was told to. Who of them it is makes no difference."""
        if not self.due(model, now):
            return False
        self._end(model)
        self._learn(1.0)
        return True

    def ahead(self, limit: Limit, priority: int, until: float, now: float) -> Ahead:
        """What those are expected to take who come back by `until` and have this `priority`, or
        an earlier one."""
        self._forget(now)
        places = self._by_limit.get(limit)
        if places is None:
            return NOBODY
        tokens = requests = 0
        for (second, other), promised in places.items():
            if second <= until and other <= priority:
                tokens += promised.tokens
                requests += promised.requests
        return Ahead(round(self.share * tokens), round(self.share * requests))

    def _forget(self, now: float) -> None:
        """Ends the promises whose time has passed."""
        if now <= self._ends_at:
            return
        for model, promises in list(self._by_model.items()):
            while promises and promises[0].due + GRACE_S < now:
                self._end(model)
                self._learn(0.0)
        first = (promises[0].due for promises in self._by_model.values())
        self._ends_at = min(first, default=inf) + GRACE_S

    def _end(self, model: str) -> None:
        promises = self._by_model[model]
        promise = heapq.heappop(promises)
        if not promises:
            del self._by_model[model]
        self._count -= 1
        places = self._by_limit[promise.limit]
        left = places[promise.place]
        if left.requests > 1:
            places[promise.place] = Ahead(left.tokens - promise.tokens, left.requests - 1)
            return
        del places[promise.place]
        if not places:
            del self._by_limit[promise.limit]

    def _learn(self, taken_up: float) -> None:
        self._ended += 1
        self.share += max(WEIGHT, 1 / (1 + self._ended)) * (taken_up - self.share)
