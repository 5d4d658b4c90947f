"""Requests per minute, paced as Azure enforces them: in windows of one and ten seconds.

A deployment of 600 requests per minute rejects the eleventh within one second
(learn.microsoft.com, "Manage Azure OpenAI quota", 2026), so a limit per minute is kept as three:
per minute, per ten seconds and per second.
"""

from __future__ import annotations

from math import floor
from typing import TYPE_CHECKING, Final

from actors.policy.learning import LearnedLimit, OthersUse
from actors.policy.window import SlidingSum

if TYPE_CHECKING:
    from collections.abc import Iterable

    from actors.policy.window import Amounts

SPANS_S: Final = (60.0, 10.0, 1.0)
SLOTS: Final = (600, 200, 100)
"""Fine enough that a slot's delay is at most 1 % of its span, 0.17 % for the minute."""
SPARE: Final = 0.1
"""Requests per second: who sends no more than one in ten seconds must not cost us one of the few
that fit into each second."""
SLOWER: Final = 0.9
"""Of the pace, after a refusal."""


class Pace:
    """Requests that were sent, and whether the limit, once known, allows another.

    `limit`: requests per minute; unknown until a header tells. Clock: `now` is trio time.
    """

    __slots__ = ("_windows", "limit", "others")

    def __init__(self) -> None:
        self.limit = LearnedLimit(None, slight=0.0)  # a refusal more shows soon, and costs little
        self.others = OthersUse()
        self._windows = _windows()

    def per_minute(self, now: float) -> int:
        """Requests sent during the last minute."""
        return self._windows[0].total(now)

    def count(self, now: float) -> int:
        """Counts one that is sent. Returns how many there were during the last minute, with it."""
        minute, ten, one = self._windows
        minute.add(1, now)
        ten.add(1, now)
        one.add(1, now)
        return minute.latest

    def free(self, now: float, ahead: int = 0) -> bool:
        """Whether one more request may be sent now, after `ahead` others."""
        shares = self._shares(now)
        if shares is None:
            return True
        of_minute, of_ten, of_one = shares
        minute, ten, one = self._windows
        return (
            one.total(now) + ahead < of_one
            and ten.total(now) + ahead < of_ten
            and minute.total(now) + ahead < of_minute
        )

    def earliest(self, now: float, ahead: int = 0) -> float:
        """When one more request may be sent, if `ahead` others are sent before it."""
        shares = self._shares(now)
        if shares is None:
            return now
        times = [
            window.fits(1, share, now, ahead)
            for window, share in zip(self._windows, shares, strict=True)
        ]
        return max(time for time in times if time is not None)

    def _shares(self, now: float) -> tuple[int, int, int] | None:
        """The limit per minute, and what of it fits into ten seconds and into one, less what others
        use; None while no limit is known."""
        limit = self.limit.value(now)
        if limit is None:
            return None
        shares = limit, -(-limit // 6), -(-limit // 60)
        others = self.others.value(now)
        if not others:
            return shares
        left = max(0.0, 1 - others / limit)
        minute, ten, one = shares
        return (
            max(1, floor(minute * left)),
            max(1, floor(ten * left)),
            max(1, floor(one * left + SPARE)),
        )

    def refused(self, now: float) -> None:
        """The upstream has refused although this pace was kept: it is slower from now on, and
        comes back as a reduced limit does."""
        limit = self.limit.value(now)
        if limit is not None:
            self.limit.reduce(floor(SLOWER * limit), now)

    def observe_remaining(self, remaining: int, sent: int, now: float) -> None:
        """What the upstream counts more than we had `sent` by then is others' use. Later ones may
        have overtaken it, so those count that were sent by now, if they are more."""
        limit = self.limit.value(now)
        if limit is not None:
            sent = max(sent, self.per_minute(now))
            self.others.observe(limit - remaining - sent, now)

    def reset(self, requests: int, now: float) -> None:
        """From now on, `requests` were sent during the last minute."""
        self._windows = _windows()
        self._windows[0].add(requests, now)

    def export(self, now: float) -> Amounts:
        return self._windows[0].export(now)

    def restore(self, entries: Iterable[object], now: float) -> None:
        entries = list(entries)
        for window in self._windows:
            window.restore(entries, now)


def _windows() -> tuple[SlidingSum, SlidingSum, SlidingSum]:
    minute, ten, one = (
        SlidingSum(span_s, slots) for span_s, slots in zip(SPANS_S, SLOTS, strict=True)
    )
    return minute, ten, one
