"""Upstreams that turned out not to take `stream_options`, and so can't be asked for usage.

Believed for a while only: an upstream may be renewed, and a wrong belief must not last, as the
usage of streams is estimated there instead.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from proxy.exchange.attempt import Surface

BELIEVED_S: Final = 3600.0
"""One request in so long a time is refused and sent again where it is still true."""


class Unaskable:
    """Synchronous; `now` is trio time. Bounded by the instances' addresses and versions."""

    __slots__ = ("_current", "_first_ends", "_until")

    def __init__(self) -> None:
        self._until: dict[Surface, float] = {}
        self._current: frozenset[Surface] = frozenset()
        self._first_ends = inf

    def note(self, surface: Surface, now: float) -> None:
        """A request that was refused here because it asked has just succeeded without asking."""
        self._until[surface] = now + BELIEVED_S
        self._renew(now)

    def at(self, now: float) -> frozenset[Surface]:
        """Who need not be asked. Cost: a comparison, as long as nothing changes."""
        if now >= self._first_ends:
            self._renew(now)
        return self._current

    def _renew(self, now: float) -> None:
        self._until = {surface: until for surface, until in self._until.items() if until > now}
        self._current = frozenset(self._until)
        self._first_ends = min(self._until.values(), default=inf)
