"""What others may read of an instance without asking it: can it take this request, and if not, why.

One judgement serves both sides: the router uses it to choose, and the instance, which has the
last word, to grant.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, NamedTuple, Protocol, TypeAlias

if TYPE_CHECKING:
    from actors.messages import Demand

ObstacleReason: TypeAlias = Literal[
    "retired",  # deleted; finishing what it has
    "disabled",  # switched off in the configuration
    "quarantined",  # its task kept crashing, or an operator set it to error
    "bad_credential",  # 401 or 403 lately
    "model_missing",  # 404 for this model lately
    "rate_limited",  # the upstream asked to be left alone
    "breaker_open",  # it failed lately
    "input_too_long",  # beyond max_input_tokens
    "too_large",  # the reservation exceeds what the limit ever admits
    "no_headroom",  # not enough of the limit is free now
    "claimed",  # there is room, and somebody who waits is first in line for it
    "count_first",  # depends on the exact number of input tokens
]


class Obstacle(NamedTuple):
    """Why an instance can't take a request now.

    `until`: trio time at which this obstacle is known to be gone; None when time alone does not
    remove it. `limit`: the bound that was exceeded, in tokens. `by`: when it is gone at the
    latest, if it may go at any moment before.
    """

    reason: ObstacleReason
    until: float | None = None
    limit: int | None = None
    by: float | None = None


class Ahead(NamedTuple):
    """What others are to get of a limit before a demand has its turn."""

    tokens: int
    requests: int


NOBODY: Final = Ahead(0, 0)


class Headroom(Protocol):
    """A read-only view of an instance's standing. Nothing here blocks or changes an answer."""

    def assess(self, demand: Demand, now: float, ahead: Ahead = NOBODY) -> Obstacle | None:
        """None if the request can be admitted now, and `ahead` before it. `now`: trio time."""
        ...

    def limit_of(self, model: str, now: float) -> str:
        """The limit that `model` counts against: its own name, or an empty string for the one
        that all models share whose own limit is not known."""
        ...

    def utilization(self, now: float) -> float:
        """Charge as a share of the limit, 0.0 to about 1.0."""
        ...
