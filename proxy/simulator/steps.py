"""A value that changes at known times and holds in between."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Steps:
    """`first` until the first change; each change is (time in seconds, new value), ascending."""

    first: float
    changes: tuple[tuple[float, float], ...] = ()

    def __post_init__(self) -> None:
        times = [at_s for at_s, _ in self.changes]
        if times != sorted(times):
            raise ValueError("the changes must be in the order of their times")

    def at(self, time_s: float) -> float:
        """The value that holds at `time_s`. Cost: linear in the changes, nothing without any."""
        value = self.first
        for at_s, changed in self.changes:
            if time_s < at_s:
                break
            value = changed
        return value


def breakpoints(since_s: float, until_s: float, *steps: Steps) -> list[float]:
    """Both ends and every change strictly between them, ascending."""
    inner = {at_s for each in steps for at_s, _ in each.changes if since_s < at_s < until_s}
    return [since_s, *sorted(inner), until_s]
