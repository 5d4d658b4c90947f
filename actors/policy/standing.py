"""Everything known about one instance: can it serve, what has it done, how is it shown.

Pure and synchronous; the instance actor owns one and is the only one that writes it. It outlives
the actor's task, so a crash costs nothing that was counted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from actors.clock import is_epoch
from actors.models import HealthStatus, InstanceConfig, InstanceState, Status
from actors.policy.benches import LONG_AGO, Benches
from actors.policy.breaker import Breaker
from actors.policy.capacity import Capacity
from actors.policy.headroom import NOBODY, Obstacle
from actors.policy.window import MAX_RESTORED_AMOUNT

if TYPE_CHECKING:
    import random
    from collections.abc import Mapping

    from actors.clock import WallClock
    from actors.messages import Demand, Evidence, LeaseId, Outcome
    from actors.policy.account import Account
    from actors.policy.headroom import Ahead

LATENCY_WEIGHT: Final = 0.1
"""Of the newest latency in the moving average: about the last twenty requests count."""
SAVED_FIELD: Final = "capacity"
"""The one field of a state record beyond those that operators know: see `Standing.record`."""

_DISABLED = Obstacle("disabled")
_QUARANTINED = Obstacle("quarantined")
_RETIRED = Obstacle("retired")


class Standing:
    """Configuration, capacity, benches, breaker and counters of one instance.

    Implements `Headroom`. Clock: every `now` is trio time in seconds.
    """

    def __init__(self, config: InstanceConfig, rng: random.Random) -> None:
        self.config = config
        self.capacity = Capacity(config)
        self.breaker = Breaker(rng)
        self.retired = False
        self.quarantine: str | None = None
        """Why it takes no requests until an operator resets it."""
        self.benches = Benches()
        self.revision = 0
        """Grows with every change that the state file or the admin API shows."""
        self._demands: dict[LeaseId, str] = {}
        self.error_count = 0
        self.last_error: str | None = None
        self.last_error_at: float | None = None
        self.total_requests = 0
        self.successful_requests = 0
        self.last_used_at: float | None = None
        self.avg_latency_ms: float | None = None
        self.connected: bool | None = None
        self.judged = False
        """Whether anything has been learned about its health yet."""
        self._unknown_fields: dict[str, Any] = {}

    # -- reading ---------------------------------------------------------------------------

    def assess(self, demand: Demand, now: float, ahead: Ahead = NOBODY) -> Obstacle | None:
        """See `Headroom.assess`. Cost: about 1 µs when there is no obstacle."""
        config = self.config
        if self.retired or self.quarantine is not None or not config.enabled:
            if self.retired:
                return _RETIRED
            return _DISABLED if not config.enabled else _QUARANTINED
        benches = self.benches
        if benches.models or benches.credential > now:
            missing = benches.missing(demand.model, now)
            if missing is not None:
                return missing
        longest = config.max_input_tokens
        if longest and demand.input_high > longest:
            if demand.input_low > longest:
                return Obstacle("input_too_long", limit=longest)
            return Obstacle("count_first")
        if benches.limits:
            limited = benches.limited(demand.model, now)
            if limited is not None:
                return _later(limited, self.capacity.obstacle(demand, now, ahead))
        if not self.breaker.admits(demand.input_likely + demand.output, now):
            return Obstacle(
                "breaker_open", self.breaker.next_admission(now), by=self.breaker.admits_all_from
            )
        return self.capacity.obstacle(demand, now, ahead) if demand.model else None

    def limit_of(self, model: str, now: float) -> str:
        return self.capacity.limit_of(model, now)

    def can_serve(self, now: float) -> bool:
        """Whether it would take some request sooner or later: a full minute does not count."""
        return (
            self.config.enabled
            and not self.retired
            and self.quarantine is None
            and self.benches.credential <= now
            and self.breaker.admits(1, now)
        )

    @property
    def account(self) -> Account:
        """The books of this instance."""
        return self.capacity.account

    def utilization(self, now: float) -> float:
        return self.capacity.utilization(now)

    # -- leases ----------------------------------------------------------------------------

    def reserve(self, lease_id: LeaseId, demand: Demand, now: float) -> int:
        """Opens a lease for a demand that `assess` found no obstacle to; returns its tokens."""
        tokens = demand.input_likely + demand.output
        self._demands[lease_id] = demand.model  # first: whatever fails below can be settled
        self.capacity.reserve(lease_id, demand.model, tokens, now)
        self.benches.granted(demand.model, lease_id, now)
        self.breaker.granted(lease_id, tokens, now)
        self.total_requests += 1
        self.last_used_at = now
        self.revision += 1
        return tokens

    def observe(self, lease_id: LeaseId, evidence: Evidence, now: float) -> None:
        """Learns from the head of an answer that is still under way."""
        model = self._demands.get(lease_id)
        if model is not None:
            self.capacity.observe(lease_id, model, evidence, now)

    def settle(
        self,
        lease_id: LeaseId,
        outcome: Outcome,
        used_tokens: int | None,
        now: float,
        evidence: Evidence | None = None,
        complete: bool = True,
    ) -> bool:
        """Closes a lease, as `Settle` says, and learns from it. False if there is no such one."""
        model = self._demands.pop(lease_id, None)
        if model is None:
            return False
        reached = outcome.reached is not False
        if outcome.kind not in ("success", "cancelled") and used_tokens is None:
            used_tokens = 0
        if outcome.kind == "rate_limited" and outcome.limit is not None:
            self.capacity.refused(lease_id, model, outcome.limit, now)
        if outcome.kind == "rate_limited" and evidence is not None:
            # Nothing remains now, says a refusal; until when, says its hint, and that is exact.
            evidence = evidence._replace(remaining_tokens=None, remaining_requests=None)
        self.capacity.settle(
            lease_id, model, used_tokens, complete, reached=reached, evidence=evidence, now=now
        )
        self.revision += 1
        if outcome.reached is not None and outcome.kind != "cancelled":
            self.connected = outcome.reached
        self._judge(lease_id, model, outcome, now)
        return True

    def _judge(self, lease_id: LeaseId, model: str, outcome: Outcome, now: float) -> None:
        match outcome.kind:
            case "success" | "client_error" | "unsupported":
                self.breaker.succeeded(lease_id, now, aside=outcome.aside)
                self.judged = True
                if outcome.kind == "success":
                    self.successful_requests += 1
                    if outcome.latency_s is not None:
                        self._measure(outcome.latency_s * 1000)
                return
            case "instance_error" if not outcome.aside:
                self.breaker.failed(lease_id, now, outcome.bench_s or 0.0)
            case _:
                self.breaker.released(lease_id)
                self._bench(lease_id, model, outcome, now)
        if outcome.kind != "cancelled":
            self._record_error(outcome.reason, now)

    def _bench(self, lease_id: LeaseId, model: str, outcome: Outcome, now: float) -> None:
        benches = self.benches
        match outcome.kind:
            case "rate_limited":
                benches.limit(model, lease_id, outcome.bench_s, now)
            case "credential_error":
                benches.refuse_credential(now)
            case "model_error":
                benches.refuse_model(model, now)

    def _measure(self, latency_ms: float) -> None:
        average = self.avg_latency_ms
        self.avg_latency_ms = (
            latency_ms if average is None else average + LATENCY_WEIGHT * (latency_ms - average)
        )

    def _record_error(self, reason: str, now: float) -> None:
        self.judged = True
        self.error_count += 1
        self.last_error = reason
        self.last_error_at = now

    # -- operators -------------------------------------------------------------------------

    def reconfigure(self, config: InstanceConfig) -> None:
        """New settings from the next decision on; open leases keep theirs.

        A new key, address or deployment table is a reason to try again at once: what was
        concluded from the old one is dropped. So is a bench of a limit that is now different.
        """
        old, self.config = self.config, config
        self.capacity.reconfigure(config, elsewhere=_access(old) != _access(config))
        if _access(old) != _access(config):
            self.benches.credential = LONG_AGO
            self.breaker.reset()
        if _access(old) != _access(config) or old.model_deployments != config.model_deployments:
            self.benches.models.clear()
        if _access(old) != _access(config) or old.max_tpm != config.max_tpm:
            self.benches.clear_limits()
        self.revision += 1

    def set_quarantine(self, reason: str, now: float) -> None:
        """Takes no requests until an operator resets it."""
        self.quarantine = reason
        self._record_error(reason, now)
        self.revision += 1

    def amend(self, changes: Mapping[str, Any], now: float, clock: WallClock) -> None:
        """Applies an operator's corrections; `changes` are valid fields of `InstanceState`."""
        self.revision += 1
        for field in (
            "error_count",
            "last_error",
            "total_requests",
            "successful_requests",
            "avg_latency_ms",
        ):
            if field in changes:
                setattr(self, field, changes[field])
        if "last_used" in changes:
            self.last_used_at = clock.trio_time(changes["last_used"])
        if "last_error_time" in changes:
            at = changes["last_error_time"]
            self.last_error_at = None if at is None else clock.trio_time(at)
        if "current_tpm" in changes:
            self.capacity.set_usage(changes["current_tpm"], now)
        if "current_rpm" in changes:
            self.capacity.set_requests(changes["current_rpm"], now)
        if "connection_status" in changes:
            self.connected = {"connected": True, "disconnected": False}.get(
                changes["connection_status"]
            )
        self._amend_status(changes, now, clock)

    def _amend_status(self, changes: Mapping[str, Any], now: float, clock: WallClock) -> None:
        status = changes.get("status", changes.get("health_status"))
        until = changes.get("rate_limited_until")
        match status:
            case "healthy":
                self._reset()
                self.judged = True
            case "unknown":
                self.judged = False
            case "error":
                self.quarantine = changes.get("last_error") or "set to error by an operator"
                self.judged = True
            case "rate_limited" if until is None:
                until = clock.epoch(now + 60.0)
        if until is not None:
            self.judged = True
            self.benches.limit_everything(clock.trio_time(until))
        elif "rate_limited_until" in changes:
            self.benches.clear_limits()

    def _reset(self) -> None:
        self.quarantine = None
        self.benches.clear()
        self.breaker.reset()

    # -- showing and saving ----------------------------------------------------------------

    def status(self, now: float) -> Status:
        if self.quarantine is not None or self.benches.credential > now:
            return "error"
        if self.breaker.state == "open":
            return "error"
        return "rate_limited" if self.rate_limited_until(now) is not None else "healthy"

    def rate_limited_until(self, now: float) -> float | None:
        """Trio time of the latest bench of a limit that has not ended; None if there is none."""
        return self.benches.limited_until(now)

    def state(self, now: float, clock: WallClock) -> InstanceState:
        """What the admin API shows."""
        status = self.status(now)
        health: HealthStatus = status if self.judged or status != "healthy" else "unknown"
        until = self.rate_limited_until(now)
        return InstanceState(
            **self._unknown_fields,
            name=self.config.name,
            status=status,
            error_count=self.error_count,
            last_error=self.last_error,
            rate_limited_until=None if until is None else round(clock.epoch(until), 3),
            current_tpm=self.account.usage.total(now),
            current_rpm=self.account.requests.total(now),
            total_requests=self.total_requests,
            successful_requests=self.successful_requests,
            last_used=_epoch(self.last_used_at, clock) or 0.0,
            last_error_time=_epoch(self.last_error_at, clock),
            avg_latency_ms=None if self.avg_latency_ms is None else round(self.avg_latency_ms, 3),
            utilization_percentage=round(100 * self.utilization(now), 2),
            connection_status=_CONNECTION[self.connected],
            health_status=health,
        )

    def record(self, now: float, clock: WallClock) -> dict[str, Any]:
        """What the state file keeps: the state, and the accounts so that a restart forgets none.

        The accounts are under `SAVED_FIELD`, with the epoch second at which they were true.
        """
        record = self.state(now, clock).model_dump()
        record[SAVED_FIELD] = {
            "saved_at": round(clock.epoch(now), 3),
            "quarantine": self.quarantine,
            "benches": self.benches.export(now, clock),
            **self.capacity.export(now),
            "breaker": self.breaker.export(now),
        }
        return record

    def restore(self, state: InstanceState, now: float, clock: WallClock) -> None:
        """Takes back what `record` wrote, aged by the time that has passed since."""
        unknown = dict(state.model_extra or {})
        saved = unknown.pop(SAVED_FIELD, None)
        self._unknown_fields = unknown
        self.error_count = state.error_count
        self.last_error = state.last_error
        self.last_error_at = _trio(state.last_error_time, clock)
        self.total_requests = state.total_requests
        self.successful_requests = state.successful_requests
        self.last_used_at = _trio(state.last_used or None, clock)
        self.avg_latency_ms = state.avg_latency_ms
        self.judged = state.health_status != "unknown"
        if state.rate_limited_until is not None:
            self.benches.limit_everything(clock.trio_time(state.rate_limited_until))
        if not (isinstance(saved, dict) and self._restore_saved(saved, now, clock)):
            # A file from elsewhere, or one that another version wrote: all that was used may have
            # been used just now.
            self.account.set_usage(min(state.current_tpm, MAX_RESTORED_AMOUNT), now)
            self.account.set_requests(min(state.current_rpm, MAX_RESTORED_AMOUNT), now)

    def _restore_saved(self, saved: Mapping[str, Any], now: float, clock: WallClock) -> bool:
        """False if it does not tell what was used when."""
        quarantine, benches = saved.get("quarantine"), saved.get("benches")
        breaker = saved.get("breaker")
        if isinstance(quarantine, str):
            self.quarantine = quarantine
        if isinstance(benches, dict):
            self.benches.restore(benches, clock)
        saved_at = saved.get("saved_at")
        if not is_epoch(saved_at):
            return False
        older_s = max(0.0, clock.epoch(now) - saved_at)
        if isinstance(breaker, dict):
            self.breaker.restore(breaker, older_s, now)
        return self.capacity.restore(saved, older_s, now)


_CONNECTION: Final[dict[bool | None, Any]] = {
    True: "connected",
    False: "disconnected",
    None: "unknown",
}


def _later(bench: Obstacle, full: Obstacle | None) -> Obstacle:
    """What is left once the bench has ended: a minute that is full may last longer."""
    if full is None or full.until is None or bench.until is None or full.until <= bench.until:
        return bench
    return bench._replace(until=full.until)


def _access(config: InstanceConfig) -> tuple[str, ...]:
    """Where requests go and with what right."""
    return config.provider_type, config.api_key, config.api_base, config.api_version


def _epoch(at: float | None, clock: WallClock) -> float | None:
    return None if at is None else round(clock.epoch(at), 3)


def _trio(epoch: float | None, clock: WallClock) -> float | None:
    return None if epoch is None else clock.trio_time(epoch)
