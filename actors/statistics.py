"""What can be measured of the running actors, at one moment. Reads everything, changes nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from actors.child import Child
    from actors.mailbox import MailboxStatistics
    from actors.models import Status
    from actors.policy.breaker import BreakerState


@dataclass(frozen=True, slots=True)
class InstanceStatistics:
    """One instance. `available`: takes requests, even if its minute should be full.

    `limit_tokens`, `free_tokens`: of its minute, as configured; `reserved_tokens`: by the open
    `leases`. `used_tokens`, `used_requests`: in the last minute. `utilization`: of its fullest
    limit, 0.0 to about 1.0. `bench_s`: seconds that are left, by reason. `attempts`, `successes`,
    `errors`: since the state file was begun; an operator may set them.
    """

    name: str
    enabled: bool
    available: bool
    status: Status
    breaker: BreakerState
    limit_tokens: int
    free_tokens: int
    reserved_tokens: int
    used_tokens: int
    used_requests: int
    utilization: float
    leases: int
    bench_s: Mapping[str, float]
    attempts: int
    successes: int
    errors: int
    mailbox: MailboxStatistics


@dataclass(frozen=True, slots=True)
class SystemStatistics:
    """`waiting`: requests in the router's line."""

    instances: tuple[InstanceStatistics, ...]
    router: MailboxStatistics
    supervisor: MailboxStatistics
    waiting: int


def instance_statistics(child: Child, now: float) -> InstanceStatistics:
    """`now`: trio time. Cost: about 10 µs."""
    standing = child.standing
    account = standing.account
    benches = {
        "credential": standing.benches.credential,
        "limit": max(standing.benches.limits.values(), default=now),
        "model": max(standing.benches.models.values(), default=now),
    }
    return InstanceStatistics(
        name=child.name,
        enabled=child.config.enabled,
        available=standing.can_serve(now),
        status=standing.status(now),
        breaker=standing.breaker.state,
        limit_tokens=account.limit_tokens,
        free_tokens=max(0, account.free(now)),
        reserved_tokens=account.reserved_tokens,
        used_tokens=account.usage.total(now),
        used_requests=account.requests.total(now),
        utilization=standing.utilization(now),
        leases=len(account.leases),
        bench_s={reason: max(0.0, until - now) for reason, until in benches.items()},
        attempts=standing.total_requests,
        successes=standing.successful_requests,
        errors=standing.error_count,
        mailbox=child.mailbox.statistics(),
    )
