"""What keeps an instance from serving, in the words of the log, and how it changes over time.

| facet      | of       | at rest          | otherwise                           |
|------------|----------|------------------|-------------------------------------|
| operator   |          | `healthy`        | `disabled`                          |
| task       |          | `healthy`        | `quarantined`                       |
| credential |          | `healthy`        | `credential_refused`, with an end   |
| limit      | a model  | `healthy`        | `rate_limited`, with an end         |
| model      | a model  | `healthy`        | `model_missing`, with an end        |
| breaker    |          | `breaker_closed` | `breaker_open`, `breaker_half_open` |
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping

    from actors.policy.standing import Standing

Facet: TypeAlias = Literal["operator", "task", "credential", "limit", "model", "breaker"]
Place: TypeAlias = tuple[Facet, str]
"""A facet, and the model that it is about; "" when it is about the instance."""


class Condition(NamedTuple):
    """`until`: trio time at which it ends, None if no time ends it."""

    state: str
    until: float | None


class Change(NamedTuple):
    """From state `before` to state `after`. `until`: trio time at which that ends, if known."""

    model: str
    before: str
    after: str
    until: float | None


_REST: Final[dict[Facet, str]] = {
    "operator": "healthy",
    "task": "healthy",
    "credential": "healthy",
    "limit": "healthy",
    "model": "healthy",
    "breaker": "breaker_closed",
}


def conditions(standing: Standing, now: float) -> dict[Place, Condition]:
    """Every facet that is not at rest. `now`: trio time. Cost: under 1 µs when all are."""
    found: dict[Place, Condition] = {}
    benches, breaker = standing.benches, standing.breaker
    if not standing.config.enabled:
        found["operator", ""] = Condition("disabled", None)
    if standing.quarantine is not None:
        found["task", ""] = Condition("quarantined", None)
    if benches.credential > now:
        found["credential", ""] = Condition("credential_refused", benches.credential)
    for model, until in benches.limits.items():
        if until > now:
            found["limit", model] = Condition("rate_limited", until)
    for model, until in benches.models.items():
        if until > now:
            found["model", model] = Condition("model_missing", until)
    if breaker.state != "closed":
        until_s = breaker.next_admission(now) if breaker.state == "open" else None
        found["breaker", ""] = Condition(f"breaker_{breaker.state}", until_s)
    return found


def changes(
    before: Mapping[Place, Condition], after: Mapping[Place, Condition], now: float
) -> list[Change]:
    """What has happened between two moments, the later being `now`, ends first.

    A bench that was prolonged is no change; one that had ended and was set again is one.
    """
    found = []
    for place, condition in before.items():
        if place not in after:
            facet, model = place
            found.append(Change(model, condition.state, _REST[facet], None))
    for place, condition in after.items():
        facet, model = place
        earlier = before.get(place)
        if earlier is None or (facet != "breaker" and _has_ended(earlier, now)):
            found.append(Change(model, _REST[facet], condition.state, condition.until))
        elif earlier.state != condition.state:
            found.append(Change(model, earlier.state, condition.state, condition.until))
    return found


def _has_ended(condition: Condition, now: float) -> bool:
    return condition.until is not None and condition.until <= now
