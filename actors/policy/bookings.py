"""What those who wait are expected to take, and where: so much is ahead of whoever comes later.

A request that joins the line is booked at the limit that it is expected to find room in first.
It may be served elsewhere in the end; then somebody else finds the room that was booked for it.
So a booking is a forecast: it decides who may join the line and what the others are told, never
who is served. By how much forecasts have been too early lately is learned, and added.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from actors.policy.headroom import NOBODY, Ahead

if TYPE_CHECKING:
    from actors.messages import LeaseId, Rank

Limit: TypeAlias = "tuple[str, str]"
"""An instance, and which of its limits: see `Headroom.limit_of`."""


TELLING_S: Final = 0.5
"""Shorter waits are over too soon to show how good a forecast is."""
WEIGHT: Final = 0.02
"""Of the latest wait in the stretch: about the last hundred count."""
SLACK: Final = 0.08
MOST_SLACK_S: Final = 0.8
"""Forecasts are off by some tenths of a second either way; who waits in vain has lost more than one
who is told at once to come back a little later."""
MOST: Final = 1.5
"""A wait that was longer has another reason than a count that is a little off."""
TOLD_APART: Final = 8
"""Ranks at one limit that are told apart. Clients choose priorities, and each one that is told
apart makes every forecast dearer."""


def coarse(priority: int) -> int:
    """Where a priority counts that is one too many: at the power of two below it. So nobody is
    forgotten who is ahead, and there are twenty of these at most."""
    return 1 << priority.bit_length() >> 1


class Booking(NamedTuple):
    """`until`: when its turn is expected."""

    limit: Limit
    rank: Rank
    tokens: int
    since: float
    until: float


class Bookings:
    """Synchronous; `now` is trio time. Cost: constant, but for `ahead`: the ranks that wait for one
    limit, fifty at the most."""

    __slots__ = ("_ahead", "_booked", "stretch")

    def __init__(self) -> None:
        self._booked: dict[LeaseId, Booking] = {}
        self._ahead: dict[Limit, dict[Rank, Ahead]] = {}
        self.stretch = 1.0
        """How long waits were lately, as a multiple of what had been expected; at least 1."""

    def book(self, lease_id: LeaseId, booking: Booking) -> None:
        """Nothing is booked for this one yet."""
        assert lease_id not in self._booked
        ranks = self._ahead.setdefault(booking.limit, {})
        if len(ranks) >= TOLD_APART and booking.rank not in ranks:
            priority, fresh = booking.rank
            booking = booking._replace(rank=(coarse(priority), fresh))
        self._booked[lease_id] = booking
        before = ranks.get(booking.rank, NOBODY)
        ranks[booking.rank] = Ahead(before.tokens + booking.tokens, before.requests + 1)

    def ended(self, lease_id: LeaseId, now: float) -> None:
        """Its wait is over: it was served, or its patience is at an end."""
        booking = self._booked.get(lease_id)
        if booking is None:
            return
        expected_s = booking.until - booking.since
        if expected_s >= TELLING_S:
            stretch = self.stretch * (now - booking.since) / expected_s
            self.stretch += WEIGHT * (min(stretch, MOST) - self.stretch)
            self.stretch = max(1.0, self.stretch)
        self.release(lease_id)

    def stretched(self, until: float, now: float) -> float:
        """When the turn will come that nothing seems to keep from coming at `until`."""
        wait_s = until - now
        return now + self.stretch * wait_s + min(MOST_SLACK_S, SLACK * wait_s)

    def release(self, lease_id: LeaseId) -> None:
        """It waits no longer. Does nothing if nothing is booked for it."""
        booking = self._booked.pop(lease_id, None)
        if booking is None:
            return
        limit, rank, tokens, *_ = booking
        ranks = self._ahead[limit]
        left = ranks[rank]
        if left.requests > 1:
            ranks[rank] = Ahead(left.tokens - tokens, left.requests - 1)
            return
        del ranks[rank]
        if not ranks:
            del self._ahead[limit]

    def ahead(self, limit: Limit, rank: Rank) -> Ahead:
        """Of one who comes now and has this rank."""
        ranks = self._ahead.get(limit)
        if ranks is None:
            return NOBODY
        tokens = requests = 0
        for other, booked in ranks.items():
            if other <= rank:
                tokens += booked.tokens
                requests += booked.requests
        return Ahead(tokens, requests)

    def clear(self) -> None:
        self._booked.clear()
        self._ahead.clear()
