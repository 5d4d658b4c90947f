"""What would become of a request, and why: the router's decision without its consequences."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from actors.messages import Acquire, Explanation, InstanceRef, Judgement
from actors.policy.headroom import Obstacle
from actors.policy.refusal import earliest, opens_by, refusal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class Outlook(NamedTuple):
    """`waiting`: requests in the line, which is `full` or not. `retry_at`: what a request would be
    told that is refused because all instances are full."""

    waiting: int
    full: bool
    retry_at: float | None


def explanation(
    instances: Sequence[InstanceRef],
    order: Sequence[InstanceRef],
    met: Mapping[str, Obstacle | None],
    ask: Acquire,
    outlook: Outlook,
    now: float,
) -> Explanation:
    """Judges every instance. `order`: the candidates as `ask` would have them tried this time;
    `met`: what it meets there."""
    judgements = [
        _judgement(ref, met[ref.config.name], place, now) for place, ref in enumerate(order)
    ]
    judgements += [
        _judgement(ref, _no_candidate(ref, ask), None, now)
        for ref in instances
        if ref.config.name not in met
    ]
    answer, retry_at = _answer(met, ask, outlook, now)
    return Explanation(answer, retry_at, tuple(judgements), outlook.waiting)


def _no_candidate(ref: InstanceRef, ask: Acquire) -> str:
    if not ref.config.enabled:
        return "disabled"
    bound_elsewhere = ask.only is not None and ref.config.name not in ask.only
    return "bound_elsewhere" if bound_elsewhere else "model_not_served"


def _answer(
    met: Mapping[str, Obstacle | None], ask: Acquire, outlook: Outlook, now: float
) -> tuple[str, float | None]:
    """What the first instance that settles the matter makes of it, and when that may change."""
    obstacles = []
    for name, obstacle in met.items():
        if obstacle is None:
            return name, now
        if obstacle.reason == "count_first":
            return "count_first", now
        obstacles.append(obstacle)
    hopes = [obstacle for obstacle in obstacles if opens_by(obstacle, ask.wait_until)]
    if hopes and now < ask.wait_until:
        if not ask.demand.exact:
            return "count_first", now
        return ("saturated", outlook.retry_at) if outlook.full else ("wait", earliest(hopes))
    refused = refusal(obstacles)
    return refused.reason, outlook.retry_at if refused.reason == "saturated" else refused.retry_at


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
