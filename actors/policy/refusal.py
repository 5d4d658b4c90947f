"""Why nothing fits decides the answer: to wait, or one refusal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from actors.messages import Refused

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from actors.policy.headroom import Obstacle, ObstacleReason

LIMIT_REASONS: Final[frozenset[ObstacleReason]] = frozenset(
    {"no_headroom", "rate_limited", "claimed"}
)
"""Obstacles that mean "full now" rather than "broken now"."""
PASSING_REASONS: Final = LIMIT_REASONS | {"breaker_open"}
"""Obstacles that end by themselves within seconds; the others end when people act, or after a
minute at the best."""


def opens_by(obstacle: Obstacle, deadline: float) -> bool:
    """Whether it is worth waiting until `deadline` for this obstacle to go.

    One that passes but names no time (a breaker that awaits the outcome of a probe) may go at
    any moment.
    """
    return obstacle.reason in PASSING_REASONS and (
        obstacle.until is None or obstacle.until <= deadline
    )


def refusal(obstacles: Collection[Obstacle], *, excluded: bool = False) -> Refused:
    """The one answer to a request that met these obstacles, one per candidate, none of them
    `count_first`.

    `excluded`: there are candidates, and the requester has failed on all of them. In order of
    what helps the client most: come back at the earliest time at which a limit allows it; come
    back when something broken may be mended; send less; and only then: nobody serves this.
    """
    if excluded:
        return Refused("unavailable")
    if not obstacles:
        return Refused("unknown_model")
    reasons = {obstacle.reason for obstacle in obstacles}
    assert "count_first" not in reasons, "counting comes before refusing"
    if reasons & LIMIT_REASONS:
        return Refused("saturated", earliest(o for o in obstacles if o.reason in LIMIT_REASONS))
    if reasons == {"input_too_long"}:
        return Refused("input_too_long", limit=max(o.limit or 0 for o in obstacles))
    if reasons <= {"input_too_long", "too_large"}:
        largest = max(o.limit or 0 for o in obstacles if o.reason == "too_large")
        return Refused("too_large", limit=largest)
    return Refused("unavailable", earliest(obstacles))


def earliest(obstacles: Iterable[Obstacle]) -> float | None:
    """The first time that one of them names; None if none does."""
    return min((o.until for o in obstacles if o.until is not None), default=None)
