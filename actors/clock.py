"""The two clocks and the one place where they meet.

Everything that waits or measures uses `trio.current_time()`, which a test can make virtual and
whose origin is arbitrary. What people or files see (state fields, logs) is epoch seconds.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeGuard, cast

import trio

if TYPE_CHECKING:
    from collections.abc import Callable


LATEST_EPOCH: Final = 1e11
"""Some three thousand years: no time that a file names can lie beyond it."""


def is_epoch(value: object) -> TypeGuard[float]:
    """Whether `value`, from a file, is a number of seconds that arithmetic can be done with."""
    return type(value) in (int, float) and 0 <= cast("float", value) <= LATEST_EPOCH


def wall_now() -> float:
    """Epoch seconds, for records that outlive the process. Never used to measure a duration."""
    return time.time()  # noqa: TID251 - the one place


@dataclass(frozen=True, slots=True)
class WallClock:
    """Translates between the trio clock and epoch seconds, with an offset fixed at creation.

    One offset for the life of the process keeps recorded times in the order in which things
    happened, whatever happens to the system's clock meanwhile.
    """

    offset_s: float

    @classmethod
    def start(cls, wall: Callable[[], float] = wall_now) -> WallClock:
        """Fixes the offset. Must be called inside `trio.run`."""
        return cls(wall() - trio.current_time())

    def epoch(self, at: float) -> float:
        """Epoch seconds of the trio time `at`."""
        return at + self.offset_s

    def trio_time(self, epoch: float) -> float:
        """Trio time of `epoch` seconds; may lie before the start of this process."""
        return epoch - self.offset_s
