"""Requests per minute, paced as Azure enforces them: in windows of one and ten seconds.

A deployment of 600 requests per minute rejects the eleventh within one second
(learn.microsoft.com, "Manage Azure OpenAI quota", 2026), so a limit per minute is kept as three:
per minute, per ten seconds and per second.
"""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING, Final

from actors.policy.learning import LearnedLimit
from actors.policy.window import SlidingSum

if TYPE_CHECKING:
    from collections.abc import Iterable

SPANS_S: Final = (60.0, 10.0, 1.0)
SLOTS: Final = (600, 200, 100)
"""Fine enough that a slot's delay is at most 1 % of its span, 0.17 % for the minute."""


class Pace:
    """Requests that were sent, and whether the limit, once known, allows another.

    `limit`: requests per minute; unknown until a header tells. Clock: `now` is trio time.
    """

    __slots__ = ("_windows", "limit")

    def __init__(self) -> None:
        self.limit = LearnedLimit(None)
        self._windows = tuple(
            SlidingSum(span_s, slots) for span_s, slots in zip(SPANS_S, SLOTS, strict=True)
        )

    def per_minute(self, now: float) -> int:
        """Requests sent during the last minute."""
        return self._windows[0].total(now)

    def count(self, now: float, requests: int = 1) -> None:
        for window in self._windows:
            window.add(requests, now)

    def free(self, now: float, ahead: int = 0) -> bool:
        """Whether one more request may be sent now, after `ahead` others."""
        limit = self.limit.value(now)
        return limit is None or all(
            window.total(now) + ahead < share
            for window, share in zip(self._windows, _shares(limit), strict=True)
        )

    def earliest(self, now: float, ahead: int = 0) -> float:
        """When one more request may be sent, if `ahead` others are sent before it."""
        limit = self.limit.value(now)
        if limit is None:
            return now
        times = [
            window.fits(1, share, now, ahead)
            for window, share in zip(self._windows, _shares(limit), strict=True)
        ]
        return max(time for time in times if time is not None)

    def observe_remaining(self, remaining: int, now: float) -> None:
        """The upstream counts more requests than we sent: others', which count like ours."""
        limit = self.limit.value(now)
        if limit is not None:
            missing = limit - remaining - self.per_minute(now)
            if missing > 0:
                self._windows[0].add(missing, now)

    def reset(self, requests: int, now: float) -> None:
        """From now on, `requests` were sent during the last minute."""
        self._windows = tuple(
            SlidingSum(span_s, slots) for span_s, slots in zip(SPANS_S, SLOTS, strict=True)
        )
        self._windows[0].add(requests, now)

    def export(self, now: float) -> list[tuple[float, int]]:
        return self._windows[0].export(now)

    def restore(self, entries: Iterable[object], now: float) -> None:
        entries = list(entries)
        for window in self._windows:
            window.restore(entries, now)


def _shares(limit: int) -> tuple[int, int, int]:
    """The limit per minute, and what of it fits into ten seconds and into one."""
    return limit, ceil(limit / 6), ceil(limit / 60)
