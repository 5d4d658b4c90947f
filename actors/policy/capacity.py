"""How much an instance can take: its books, its configured limit, and what its upstream shows.

A model whose limit the upstream reports is bounded by that limit alone (`Quota`); the others share
the configured tokens per minute, and each has what its own quota shows of them: less, where the
upstream says that less remains, or has refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal

from actors.policy.account import Account, most_counted
from actors.policy.headroom import NOBODY, Obstacle
from actors.policy.quota import Quota

if TYPE_CHECKING:
    from collections.abc import Mapping

    from actors.messages import Demand, Evidence, LeaseId
    from actors.models import InstanceConfig
    from actors.policy.account import ChargeRule
    from actors.policy.headroom import Ahead

MAX_QUOTAS: Final = 64
"""Models with a quota of their own; Azure allows 32 deployments per resource. A generic instance
takes any name that a client invents: beyond this, idle ones are forgotten."""


class Capacity:
    """Synchronous; `now` is trio time. Written by the owning instance only."""

    __slots__ = ("account", "quotas")

    def __init__(self, config: InstanceConfig) -> None:
        self.account = Account(config.max_tpm, charge_rule(config))
        self.quotas: dict[str, Quota] = {}

    def obstacle(self, demand: Demand, now: float, ahead: Ahead = NOBODY) -> Obstacle | None:
        """Why the demand does not fit now, after `ahead`; None if it does, by its upper bound."""
        quota = self.quotas.get(demand.model)
        free, limit, own = self._room(quota, now)
        most = demand.input_high + demand.output
        if most + ahead.tokens <= free and (quota is None or quota.pace.free(now, ahead.requests)):
            return None
        least = demand.input_low + demand.output
        if least > limit:
            return Obstacle("too_large", limit=limit)
        if not demand.exact and least + ahead.tokens <= free < most + ahead.tokens:
            return Obstacle("count_first")
        until = self._earliest(least, quota, now, ahead, own=own)
        alone = ahead.requests and most <= free and (quota is None or quota.pace.free(now))
        return Obstacle("claimed" if alone else "no_headroom", until)

    def limit_of(self, model: str, now: float) -> str:
        """See `Headroom.limit_of`."""
        quota = self.quotas.get(model)
        return "" if quota is None or quota.limit.learned(now) is None else model

    def _room(self, quota: Quota | None, now: float) -> tuple[int, int, bool]:
        """Free tokens, the limit, and whether that is the model's own and not the configured."""
        left: int | None = None
        if quota is not None:
            left, told = quota.free(now), quota.limit.learned(now)
            if left is not None and told is not None:
                return left, told, True
        # Alone, a model without a limit of its own has no others to make room for.
        alone = len(self.quotas) == (0 if quota is None else 1)
        others = 0 if alone else self._learned_charge(now)
        free = self.account.free(now) + others
        return free if left is None else min(free, left), self.account.limit_tokens, False

    def _learned_charge(self, now: float) -> int:
        """What the books hold of models that have a limit of their own."""
        return sum(quota.counted(now) for quota in self.quotas.values() if quota.limit.learned(now))

    def _earliest(
        self, tokens: int, quota: Quota | None, now: float, ahead: Ahead, *, own: bool
    ) -> float | None:
        at: float | None = now
        if not own:
            others = self._learned_charge(now)
            at = self.account.earliest(max(0, tokens - others), now, ahead.tokens)
        if at is None or quota is None:
            return at
        shown = quota.earliest(tokens, now, ahead.tokens)
        if shown is None:
            return None
        return max(at, shown, quota.pace.earliest(now, ahead.requests))

    def utilization(self, now: float) -> float:
        """The fullest limit's count as a share of it, 0.0 to about 1.0."""
        learned = [quota.utilization(now) for quota in self.quotas.values()]
        own = (self.account.charge.total(now) - self._learned_charge(now)) / (
            self.account.limit_tokens
        )
        return max(0.0, own, *learned)

    def reserve(self, lease_id: LeaseId, model: str, tokens: int, now: float) -> None:
        """Opens a lease for what `obstacle` found no obstacle to."""
        quota = self.quotas.get(model)
        if quota is None:
            quota = self._new_quota(model, now)
        self.account.reserve(lease_id, tokens, now)
        quota.reserve(lease_id, tokens, now)

    def _new_quota(self, model: str, now: float) -> Quota:
        if len(self.quotas) >= MAX_QUOTAS:
            for name in [name for name, quota in self.quotas.items() if quota.idle(now)]:
                del self.quotas[name]
        quota = self.quotas[model] = Quota(self.account.limit_tokens)
        return quota

    def settle(
        self,
        lease_id: LeaseId,
        model: str,
        used_tokens: int | None,
        complete: bool = True,
        *,
        reached: bool,
        evidence: Evidence | None,
        now: float,
    ) -> None:
        """Closes a lease in both books. See `Account.settle`."""
        reservation = self.account.leases.get(lease_id)
        if reservation is None:  # the reservation itself had failed
            return
        tokens = reservation.tokens
        self.account.settle(lease_id, used_tokens, complete=complete, reached=reached, now=now)
        quota = self.quotas[model]
        if reached:
            counted = most_counted(tokens, used_tokens, complete=complete)
            quota.settle(lease_id, counted, self.account.rule, evidence, now)
        else:
            quota.release(lease_id, now)

    def observe(self, lease_id: LeaseId, model: str, evidence: Evidence, now: float) -> None:
        """Learns from an answer that is still under way."""
        self.quotas[model].observe(lease_id, evidence, now)

    def refused(
        self, lease_id: LeaseId, model: str, limit: Literal["tokens", "requests"], now: float
    ) -> None:
        """The upstream refused an open lease for this limit."""
        quota = self.quotas.get(model)
        if quota is None:  # the reservation itself had failed
            return
        if limit == "tokens":
            quota.refused(lease_id, now)
        else:
            quota.pace.refused(now)

    def reconfigure(self, config: InstanceConfig, *, elsewhere: bool) -> None:
        """`elsewhere`: the instance is another upstream now, whose limits are not known."""
        self.account.limit_tokens = config.max_tpm
        self.account.rule = charge_rule(config)
        for quota in self.quotas.values():
            quota.limit.configured = config.max_tpm
            if elsewhere:
                quota.forget()

    def set_usage(self, tokens: int, now: float) -> None:
        """An operator's correction; the limiters' counts begin anew from it, each with its part."""
        self.account.set_usage(tokens, now)
        charges = [quota.charged(now) for quota in self.quotas.values()]
        for quota, part in zip(self.quotas.values(), _parts(tokens, charges), strict=True):
            quota.reset(part, now)

    def set_requests(self, count: int, now: float) -> None:
        """The same for requests during the last minute."""
        self.account.set_requests(count, now)
        sent = [quota.pace.per_minute(now) for quota in self.quotas.values()]
        for quota, part in zip(self.quotas.values(), _parts(count, sent), strict=True):
            quota.pace.reset(part, now)
            quota.pace.others.forget()

    def export(self, now: float) -> dict[str, Any]:
        return {
            "accounts": self.account.export(now),
            "quotas": {
                model: quota.export(now)
                for model, quota in self.quotas.items()
                if not quota.idle(now)
            },
        }

    def restore(self, exported: Mapping[str, Any], older_s: float, now: float) -> bool:
        """Takes back an `export` that was made `older_s` seconds ago; ignores what is malformed.

        False if the instance's own account is not in it, or can't be read."""
        accounts, quotas = exported.get("accounts"), exported.get("quotas")
        if isinstance(quotas, dict):
            for model, saved in list(quotas.items())[:MAX_QUOTAS]:
                if isinstance(saved, dict):
                    quota = Quota(self.account.limit_tokens)
                    if quota.restore(saved, older_s, now):
                        self.quotas[str(model)] = quota
        return isinstance(accounts, dict) and self.account.restore(accounts, older_s, now)


def charge_rule(config: InstanceConfig) -> ChargeRule:
    """The rule to begin with; the headers teach the rest."""
    return "estimate" if config.provider_type == "azure" else "actual"


def _parts(amount: int, of: list[int]) -> list[int]:
    """`amount`, divided as `of` is; evenly where that is nothing."""
    left, weight = amount, sum(of)
    weights = of if weight else [1] * len(of)
    parts = []
    for number, each in enumerate(weights):
        part = left * each // max(1, sum(weights[number:]))
        parts.append(part)
        left -= part
    return parts
