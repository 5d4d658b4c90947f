"""Watches one file: what changed in it, and what is wrong with it.

The service replaces the file, an editor may write into it: either way it is looked at by its name,
anew each time, and judged by what it says.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from . import records
from .difference import difference
from .pair import Fingerprint, fingerprint

if TYPE_CHECKING:
    from collections.abc import Callable

    from .records import Kind, Records

_SECOND_LOOK_S = 0.5
"""An editor that writes into the file, or puts another in its place, has finished by then."""
_PROBLEMS_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Event:
    """Something to report. `kind`: watching, changed, rewritten, missing, unreadable, invalid,
    recovered or stale; an `alert` is something to look into."""

    kind: str
    text: str
    alert: bool = False
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Sight:
    """What one look showed. `trouble`: (kind, reason) if there are no records to be had."""

    mark: Fingerprint | None
    modified_at: float = 0.0
    """Epoch seconds."""
    records: Records = field(default_factory=dict)
    trouble: tuple[str, str] | None = None


class Watcher:
    """Of one file. `alert_after_s`: 0 never calls it stale; `service_is_up` is asked before."""

    def __init__(
        self, path: str, kind: Kind, alert_after_s: float, service_is_up: Callable[[], bool]
    ) -> None:
        self.path = path
        self._kind = kind
        self._alert_after_s = alert_after_s
        self._service_is_up = service_is_up
        self._last: Sight | None = None
        self._known: Records | None = None
        self._stale = False

    @property
    def in_trouble(self) -> bool:
        """Whether the last look gave reason for an alert."""
        return self._stale or (self._last is not None and self._last.trouble is not None)

    def look(self, now: float) -> list[Event]:
        """What is new since the last look. `now`: epoch seconds. Blocks on the disk."""
        last = self._last
        sight = self._last = self._seen()
        if sight.trouble is None:
            events = self._compared(last, sight)
            self._known = sight.records
        else:
            events = [] if last and last.trouble == sight.trouble else [_alert(*sight.trouble)]
        return events + self._staleness(sight, now)

    def _seen(self) -> Sight:
        sight = _sight(self.path, self._kind)
        if sight.trouble and not (self._last and self._last.trouble == sight.trouble):
            time.sleep(_SECOND_LOOK_S)
            sight = _sight(self.path, self._kind)
        return sight

    def _compared(self, last: Sight | None, sight: Sight) -> list[Event]:
        if last is None:
            count = len(sight.records)
            text = f"watching; {count} instance{'' if count == 1 else 's'}"
            return [Event("watching", text, facts={"instances": count})]
        found = difference(self._known or {}, sight.records)
        facts = {"added": found.added, "removed": found.removed, "changed": found.changed}
        if last.trouble is not None:
            news = "" if self._known is None else f"; {found}"
            return [Event("recovered", f"is well again{news}", facts=facts)]
        if found:
            return [Event("changed", str(found), facts=facts)]
        if last.mark != sight.mark:
            return [Event("rewritten", "was written again; the records are the same")]
        return []

    def _staleness(self, sight: Sight, now: float) -> list[Event]:
        if sight.trouble is not None or not self._alert_after_s:
            self._stale = False
            return []
        age_s = now - sight.modified_at
        was, self._stale = self._stale, age_s >= self._alert_after_s and self._service_is_up()
        if not self._stale or was:
            return []
        text = f"has not changed for {age_s:.0f} s, although the service is up"
        return [Event("stale", text, alert=True, facts={"unchanged_s": round(age_s)})]


def _alert(kind: str, reason: str) -> Event:
    return Event(kind, reason, alert=True, facts={"reason": reason})


def _sight(path: str, kind: Kind) -> Sight:
    try:
        mark = fingerprint(path)
        with open(path, "rb") as file:
            modified_at = os.fstat(file.fileno()).st_mtime
            content = file.read()
    except FileNotFoundError:
        return Sight(None, trouble=("missing", "does not exist"))
    except OSError as error:
        return Sight(None, trouble=("unreadable", f"can't be read: {error.strerror}"))
    found = records.read(content, kind)
    trouble = ("invalid", _joined(found.problems)) if found.problems else None
    return Sight(mark, modified_at, records.completed(found.records, kind), trouble)


def _joined(problems: tuple[str, ...]) -> str:
    others = len(problems) - _PROBLEMS_SHOWN
    more = [f"and {others} more"] if others > 0 else []
    return "; ".join([*problems[:_PROBLEMS_SHOWN], *more])
