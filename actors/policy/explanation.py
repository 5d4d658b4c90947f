"""What would become of a request, and why: the router's decision without its consequences."""

from __future__ import annotations

from typing import TYPE_CHECKING

from actors.messages import Explanation, InstanceRef, Judgement
from actors.policy.headroom import Obstacle
from actors.policy.refusal import earliest, opens_by, refusal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from actors.messages import Demand


def explanation(
    instances: Sequence[InstanceRef],
    order: Sequence[InstanceRef],
    claims: Mapping[str, float | None],
    demand: Demand,
    *,
    wait_until: float,
    waiting: int,
    now: float,
) -> Explanation:
    """Judges every instance. `order`: the candidates as the strategy puts them this time.
    `claims`: instances for which somebody who waits is first in line, and until when."""
    met = {ref.config.name: _obstacle(ref, claims, demand, now) for ref in order}
    judgements = [
        _judgement(ref, met[ref.config.name], place, now) for place, ref in enumerate(order)
    ]
    for ref in instances:
        if ref.config.name not in met:
            reason = "disabled" if not ref.config.enabled else "model_not_served"
            judgements.append(_judgement(ref, reason, None, now))
    answer, retry_at = _answer(met, wait_until, now)
    return Explanation(answer, retry_at, tuple(judgements), waiting)


def _obstacle(
    ref: InstanceRef, claims: Mapping[str, float | None], demand: Demand, now: float
) -> Obstacle | None:
    obstacle = ref.headroom.assess(demand, now)
    if obstacle is None and ref.config.name in claims:
        return Obstacle("claimed", claims[ref.config.name])
    return obstacle


def _answer(
    met: Mapping[str, Obstacle | None], wait_until: float, now: float
) -> tuple[str, float | None]:
    """What the first instance that settles the matter makes of it, and when that may change."""
    obstacles = []
    for name, obstacle in met.items():
        if obstacle is None:
            return name, now
        if obstacle.reason == "count_first":
            return "count_first", now
        obstacles.append(obstacle)
    soonest = earliest(obstacles)
    if any(opens_by(obstacle, wait_until) for obstacle in obstacles):
        return "wait", soonest
    return refusal(obstacles).reason, soonest


def _judgement(
    ref: InstanceRef, found: Obstacle | str | None, place: int | None, now: float
) -> Judgement:
    config = ref.config
    obstacle = found if isinstance(found, Obstacle) else None
    return Judgement(
        config.name,
        obstacle.reason if obstacle else found if isinstance(found, str) else None,
        obstacle.until if obstacle else None,
        obstacle.limit if obstacle else None,
        place,
        config.priority,
        config.weight,
        ref.headroom.utilization(now),
    )
