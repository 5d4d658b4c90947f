"""The log's lines about an instance's state: one for each change, and a bounded number of them.

Whoever may have changed something says so (`notice`) with what caused it; the end of a bench,
which no event announces, is found by the supervisor's look at every second.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import trio

from actors.policy.conditions import Change, conditions
from actors.policy.conditions import changes as changes_between

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from actors.clock import WallClock
    from actors.policy.conditions import Condition, Place
    from actors.policy.standing import Standing

LINES_PER_MINUTE: Final = 30
"""Of one instance. More than a breaker or a bench needs that follows an outage; an instance that
comes and goes with every request is told of in sum."""
LOOK_INTERVAL_S: Final = 1.0

_LEVELS: Final = {
    "quarantined": logging.ERROR,
    "credential_refused": logging.ERROR,
    "rate_limited": logging.WARNING,
    "model_missing": logging.WARNING,
    "breaker_open": logging.WARNING,
}
"""What a person has to mend is an error; what mends itself a warning; what is better, a notice."""


class StateLog:
    """What was told of one instance, so that only changes are. Clock: trio time in seconds."""

    def __init__(self, standing: Standing, clock: WallClock, log: logging.Logger) -> None:
        self._standing = standing
        self._clock = clock
        self._log = log
        self._told: dict[Place, Condition] = {}
        self._minute_until = 0.0
        self._lines = 0
        self._untold = 0

    def notice(self, now: float, reason: str | None = None, request_id: str | None = None) -> None:
        """Tells what has changed since the last call. Never blocks.

        `reason` and `request_id`: what has just happened, and in which request. The reason of a
        change that time has brought about is not among them.
        """
        seen = conditions(self._standing, now)
        if seen or self._told:
            for change in changes_between(self._told, seen, now):
                self._tell(change, now, reason, request_id)
            self._told = seen
        if self._untold and now >= self._minute_until:
            self._begin_minute(now)

    def _tell(self, change: Change, now: float, reason: str | None, request_id: str | None) -> None:
        if now >= self._minute_until:
            self._begin_minute(now)
        if self._lines >= LINES_PER_MINUTE:
            self._untold += 1
            return
        self._lines += 1
        name = self._standing.config.name
        self._log.log(
            _LEVELS.get(change.after, logging.INFO),
            "instance %s: %s -> %s",
            name,
            change.before,
            change.after,
            extra=self._fields(change, now, reason, request_id),
        )

    def _fields(
        self, change: Change, now: float, reason: str | None, request_id: str | None
    ) -> dict[str, object]:
        fields = {
            "instance": self._standing.config.name,
            "model": change.model or None,
            "state_before": change.before,
            "state": change.after,
            "status": self._standing.status(now),
            "until": None if change.until is None else _text(self._clock.epoch(change.until)),
            "reason": reason,
            "request_id": request_id,
        }
        return {name: value for name, value in fields.items() if value is not None}

    def _begin_minute(self, now: float) -> None:
        if self._untold:
            name, untold = self._standing.config.name, self._untold
            extra = {"instance": name, "untold": untold}
            self._log.warning(
                "instance %s: %d more changes of its state", name, untold, extra=extra
            )
        self._minute_until = now + 60.0
        self._lines = self._untold = 0


def _text(epoch: float) -> str:
    return datetime.fromtimestamp(epoch, UTC).isoformat(timespec="milliseconds")[:-6] + "Z"


async def look_at(logs: Callable[[], Iterable[StateLog]]) -> None:
    """Tells until cancelled what time has changed, at most `LOOK_INTERVAL_S` late."""
    while True:
        now = trio.current_time()
        for log in logs():
            log.notice(now)
        await trio.sleep(LOOK_INTERVAL_S)
