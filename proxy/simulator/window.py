"""Three ways in which a limiter forgets what it has counted.

A window knows nothing of limits being reached; it counts amounts and says when there is room.
`now` comes in with `advance` alone: everything else speaks of that moment. Times are seconds of
one clock that never runs backwards.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Protocol

_SLACK = 1e-6
"""Far below one token and one microsecond: keeps rounding from refusing at the promised time."""


class Charge:
    """One amount as a window counted it; the window may correct it later."""

    __slots__ = ("amount", "at")

    def __init__(self, at: float, amount: float) -> None:
        self.at = at
        self.amount = amount


class Window(Protocol):
    """What the limiter asks of a way of forgetting. Nothing here blocks."""

    @property
    def used(self) -> float:
        """What counts at the moment of the last `advance`."""
        ...

    def advance(self, now: float, limit: float) -> None:
        """Moves to `now`; `limit` is the amount per window that has held since the last time."""
        ...

    def charge(self, amount: float) -> Charge:
        """Counts `amount` now."""
        ...

    def correct(self, charge: Charge, amount: float) -> None:
        """Makes an earlier charge be `amount`; what is forgotten already stays forgotten."""
        ...

    def fits_at(self, limit: float, amount: float) -> float:
        """The earliest time with room for `amount` if nothing else comes; infinity for never."""
        ...

    def clears_at(self, limit: float) -> float:
        """When all that counts now will be forgotten."""
        ...


class FixedWindow:
    """Counts from one boundary to the next; boundaries lie at `phase_s` + k x `length_s`."""

    __slots__ = ("_index", "_length_s", "_now", "_phase_s", "used")

    def __init__(self, length_s: float, phase_s: float = 0.0) -> None:
        self._length_s = length_s
        self._phase_s = phase_s
        self._index: int | None = None
        self._now = 0.0
        self.used: float = 0

    def _window_of(self, time_s: float) -> int:
        return math.floor((time_s - self._phase_s + _SLACK) / self._length_s)

    def _boundary(self) -> float:
        return self._phase_s + (self._window_of(self._now) + 1) * self._length_s

    def advance(self, now: float, limit: float) -> None:
        del limit
        self._now = now
        index = self._window_of(now)
        if index != self._index:
            self._index = index
            self.used = 0

    def charge(self, amount: float) -> Charge:
        self.used += amount
        return Charge(self._now, amount)

    def correct(self, charge: Charge, amount: float) -> None:
        if self._window_of(charge.at) == self._index:
            self.used += amount - charge.amount
        charge.amount = amount

    def fits_at(self, limit: float, amount: float) -> float:
        if self.used + amount <= limit:
            return self._now
        return self._boundary() if amount <= limit else math.inf

    def clears_at(self, limit: float) -> float:
        del limit
        return self._boundary() if self.used else self._now


class SlidingWindow:
    """Counts the last `length_s`; each charge is forgotten exactly that long after it was made."""

    __slots__ = ("_charges", "_length_s", "_now", "used")

    def __init__(self, length_s: float) -> None:
        self._length_s = length_s
        self._now = 0.0
        self._charges: deque[Charge] = deque()
        self.used: float = 0

    def advance(self, now: float, limit: float) -> None:
        del limit
        self._now = now
        charges = self._charges
        while charges and charges[0].at + self._length_s <= now:
            self.used -= charges.popleft().amount

    def charge(self, amount: float) -> Charge:
        made = Charge(self._now, amount)
        self._charges.append(made)
        self.used += amount
        return made

    def correct(self, charge: Charge, amount: float) -> None:
        if charge.at + self._length_s > self._now:
            self.used += amount - charge.amount
        charge.amount = amount

    def fits_at(self, limit: float, amount: float) -> float:
        """Cost: linear in the charges that have to be forgotten first."""
        if self.used + amount <= limit:
            return self._now
        left = self.used
        for charge in self._charges:
            left -= charge.amount
            if left + amount <= limit:
                return charge.at + self._length_s
        return math.inf

    def clears_at(self, limit: float) -> float:
        del limit
        return self._charges[-1].at + self._length_s if self._charges else self._now


class LeakyBucket:
    """Drains evenly by one limit per `length_s`; holds at most one limit's worth.

    Seen from the other side it is a token bucket that refills at that rate.
    """

    __slots__ = ("_length_s", "_now", "used")

    def __init__(self, length_s: float) -> None:
        self._length_s = length_s
        self._now: float | None = None
        self.used = 0.0

    def advance(self, now: float, limit: float) -> None:
        if self._now is not None:
            drained = (now - self._now) * limit / self._length_s
            self.used = max(0.0, self.used - drained)
        self._now = now

    def charge(self, amount: float) -> Charge:
        self.used += amount
        return Charge(self._now or 0.0, amount)

    def correct(self, charge: Charge, amount: float) -> None:
        self.used = max(0.0, self.used + amount - charge.amount)
        charge.amount = amount

    def fits_at(self, limit: float, amount: float) -> float:
        excess = self.used + amount - limit
        now = self._now or 0.0
        if excess <= _SLACK:
            return now
        if amount > limit or limit <= 0:
            return math.inf
        return now + excess * self._length_s / limit

    def clears_at(self, limit: float) -> float:
        now = self._now or 0.0
        return now + self.used * self._length_s / limit if limit > 0 else now
