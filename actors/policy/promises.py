"""What refused requests were told, and how many of them come back.

A refusal names a time. Whoever comes back then finds a place before those who have not asked yet,
and what they are expected to take is ahead of everybody who would have his turn after that time.
How many come back is learned: where nobody does, refusals hold nothing up.
"""

from __future__ import annotations

import heapq
from math import inf
from typing import TYPE_CHECKING, Final, NamedTuple

from actors.policy.bookings import TOLD_APART, coarse
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


SLOTS: Final = 128
"""Of a second each: more than a promise can be ahead and overdue, so no two share one."""


class _Promise(NamedTuple):
    """`priority`: where it counts, which may be coarse."""

    due: float
    priority: int
    limit: Limit
    tokens: int


class _Places:
    """What is promised at one limit to one priority, by the second in which it is due."""

    __slots__ = ("count", "requests", "tokens")

    def __init__(self) -> None:
        self.count = 0
        self.requests = [0] * SLOTS
        self.tokens = [0] * SLOTS

    def add(self, promise: _Promise, requests: int) -> None:
        """`requests`: 1, or -1 to take it away."""
        slot = int(promise.due) % SLOTS
        self.requests[slot] += requests
        self.tokens[slot] += requests * promise.tokens
        self.count += requests


class Promises:
    """Synchronous; `now` is trio time. Cost: O(log n), and for `ahead` two sums over the seconds
    for each priority that is told apart."""

    __slots__ = ("_by_limit", "_by_model", "_count", "_ended", "_ends_at", "share")

    def __init__(self) -> None:
        self.share = 0.0
        """Of the promises that have ended lately: how many were taken up. None, until one was:
        clients that can't be recognised must not be kept out by what they were promised."""
        self._ended = 0
        self._by_model: dict[str, list[_Promise]] = {}
        self._by_limit: dict[Limit, dict[int, _Places]] = {}
        """By priority."""
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
        demand, priority = ask.demand, ask.priority
        priorities = self._by_limit.setdefault(limit, {})
        if len(priorities) >= TOLD_APART and priority not in priorities:
            priority = coarse(priority)
        promise = _Promise(due, priority, limit, demand.input_likely + demand.output)
        heapq.heappush(self._by_model.setdefault(demand.model, []), promise)
        places = priorities.get(priority) or priorities.setdefault(priority, _Places())
        places.add(promise, 1)
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
        priorities = self._by_limit.get(limit)
        first = int(now - GRACE_S)
        if priorities is None or until < first:
            return NOBODY
        begin, end = first % SLOTS, int(min(until, first + SLOTS - 1)) % SLOTS + 1
        tokens = requests = 0
        for other, places in priorities.items():
            if other <= priority:
                tokens += _sum(places.tokens, begin, end)
                requests += _sum(places.requests, begin, end)
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
        priorities = self._by_limit[promise.limit]
        places = priorities[promise.priority]
        places.add(promise, -1)
        if places.count:
            return
        del priorities[promise.priority]
        if not priorities:
            del self._by_limit[promise.limit]

    def _learn(self, taken_up: float) -> None:
        self._ended += 1
        self.share += max(WEIGHT, 1 / (1 + self._ended)) * (taken_up - self.share)


def _sum(slots: list[int], begin: int, end: int) -> int:
    """Of the slots from `begin` to before `end`; around the ring, if that is not larger."""
    if begin < end:
        return sum(slots[begin:end])
    return sum(slots) - sum(slots[end:begin])
