"""How many retries are allowed where they could do harm: a share of recent requests, so that
failover can't multiply the load of an outage (Google, "Site Reliability Engineering", chapter 22,
retry budgets)."""

from __future__ import annotations

from typing import Final

from actors.policy.window import SlidingSum

SHARE: Final = 0.2
"""At the worst the instances see a fifth more than the clients sent."""
FLOOR: Final = 10
"""Retries within a span that are always allowed: a quiet service must absorb failures too."""
SPAN_S: Final = 10.0


class RetryBudget:
    """Counts over the last `SPAN_S` seconds. Synchronous; `now` is trio time."""

    __slots__ = ("_requests", "_retries")

    def __init__(self) -> None:
        self._requests = SlidingSum(SPAN_S, 20)
        self._retries = SlidingSum(SPAN_S, 20)

    def request(self, now: float) -> None:
        """A request has come. Cost: below 1 µs."""
        self._requests.add(1, now)

    def take(self, now: float) -> bool:
        """Whether one more retry is allowed; if so it is counted."""
        allowed = max(FLOOR, SHARE * self._requests.total(now))
        if self._retries.total(now) + 1 > allowed:
            return False
        self._retries.add(1, now)
        return True
