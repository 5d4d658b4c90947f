"""Why nothing fits decides the answer: from the obstacles of all candidates to one refusal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from actors.messages import CountFirst, Refused

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from actors.policy.headroom import Obstacle, ObstacleReason

LIMIT_REASONS: Final[frozenset[ObstacleReason]] = frozenset({"no_headroom", "rate_limited"})
"""Obstacles that mean "full now" rather than "broken now"."""


def refusal(
    obstacles: Sequence[Obstacle | None], *, excluded: bool = False
) -> Refused | CountFirst | None:
    """The one answer to a request that met these obstacles, one per candidate.

    None if some candidate had no obstacle. `excluded`: there are candidates, and the requester
    has failed on all of them. In order of what helps the client most: count exactly if that may
    change anything; come back at the earliest time at which a limit allows it; come back when
    something broken may be mended; send less; and only then: nobody serves this.
    """
    if None in obstacles:
        return None
    if excluded:
        return Refused("unavailable", tried_all=True)
    if not obstacles:
        return Refused("unknown_model")
    met = [obstacle for obstacle in obstacles if obstacle is not None]
    reasons = {obstacle.reason for obstacle in met}
    if "count_first" in reasons:
        return CountFirst()
    if reasons & LIMIT_REASONS:
        return Refused("saturated", _earliest(o for o in met if o.reason in LIMIT_REASONS))
    if reasons == {"input_too_long"}:
        return Refused("input_too_long", limit=max(o.limit or 0 for o in met))
    if reasons <= {"input_too_long", "too_large"}:
        return Refused("too_large", limit=max(o.limit or 0 for o in met if o.reason == "too_large"))
    return Refused("unavailable", _earliest(met))


def _earliest(obstacles: Iterable[Obstacle]) -> float | None:
    return min((o.until for o in obstacles if o.until is not None), default=None)
