"""Operations that some instances turned out not to have, as their address or version is too old;
of those that make what is kept, also such in which an instance has failed.

Such an instance is asked last for that operation, for a while: to ask it first every time would
cost each request an attempt, and all of them together the budget of retries. What else it has is
asked of it as before.
"""

from __future__ import annotations

from typing import Final

MISSING_S: Final = 60.0
"""As long as a missing deployment keeps requests away."""
_NONE: Final[frozenset[str]] = frozenset()


class MissingOperations:
    """Synchronous; `now` is trio time. Bounded by the table of operations and the instances."""

    __slots__ = ("_until",)

    def __init__(self) -> None:
        self._until: dict[str, dict[str, float]] = {}

    def note(self, operation: str, instance: str, now: float) -> None:
        """`instance` has just turned out not to have it."""
        self._until.setdefault(operation, {})[instance] = now + MISSING_S

    def at(self, operation: str, now: float) -> frozenset[str]:
        """The instances to ask last. Cost: a dictionary look-up as long as nothing was noted."""
        known = self._until.get(operation)
        if known is None:
            return _NONE
        current = {instance: until for instance, until in known.items() if until > now}
        if current:
            self._until[operation] = current
        else:
            del self._until[operation]
        return frozenset(current)
