"""Capacity of one instance: what its limiter is believed to have counted, and what was really used.

Two accounts over the same sliding minute. The **charge** is our belief of the upstream limiter's
count and decides admission; the **usage** is what answers reported and is what people are shown.
They differ because Azure's standard deployments count an estimate on arrival and keep it, while
others count what was used (docs/decisions/0004-two-accounts.md). They differ too where an answer
was cut short: the usage is what was counted until then, the charge what the upstream may have.

Invariant: an open lease's reservation is part of the charge until the lease is settled; each
lease is settled once; neither account is ever negative.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

from actors.policy.entries import packed, unpacked
from actors.policy.window import SlidingSum

if TYPE_CHECKING:
    from collections.abc import Mapping

    from actors.messages import LeaseId

ChargeRule: TypeAlias = Literal["estimate", "actual"]
"""`estimate`: what was charged on arrival stands, as Azure documents for standard deployments
(learn.microsoft.com, "Manage Azure OpenAI quota", 2026). `actual`: corrected to what was used."""


def most_counted(reserved: int, used: int | None, *, complete: bool) -> int:
    """The most that an upstream which counts what was used may have counted for a request.

    One whose answer was cut short may have gone on with it: unless `used` is all of it, the
    reservation is the bound.
    """
    if used is None:
        return reserved
    return used if complete else max(used, reserved)


class Reservation(NamedTuple):
    """`slot`: where in the charge it was entered."""

    tokens: int
    slot: int


class Account:
    """Charge, usage and open leases of one limit. Synchronous; `now` is trio time.

    Written by the owning instance only. The reading methods (`free`, `earliest`, totals) only
    drop what has left the window, which changes no answer, so others may call them too.
    """

    __slots__ = ("charge", "leases", "limit_tokens", "requests", "reserved_tokens", "rule", "usage")

    def __init__(self, limit_tokens: int, rule: ChargeRule) -> None:
        self.limit_tokens = limit_tokens
        self.rule: ChargeRule = rule
        self.charge = SlidingSum()
        self.usage = SlidingSum()
        self.requests = SlidingSum()
        self.leases: dict[LeaseId, Reservation] = {}
        self.reserved_tokens = 0

    def free(self, now: float) -> int:
        """Tokens that can be reserved now; negative after a limit was lowered."""
        return self.limit_tokens - self.charge.total(now)

    def earliest(self, tokens: int, now: float, ahead: int = 0) -> float | None:
        """When `tokens` will be free if nothing else is admitted but `ahead`, before them; None if
        they exceed the limit."""
        return self.charge.fits(tokens, self.limit_tokens, now, ahead)

    def reserve(self, lease_id: LeaseId, tokens: int, now: float) -> None:
        """Opens a lease. The caller has checked that there is room."""
        assert lease_id not in self.leases, f"lease {lease_id} is open already"
        assert tokens >= 0
        self.leases[lease_id] = Reservation(tokens, self.charge.add(tokens, now))
        self.reserved_tokens += tokens
        self.requests.add(1, now)

    def settle(
        self,
        lease_id: LeaseId,
        used_tokens: int | None,
        *,
        complete: bool = True,
        reached: bool,
        now: float,
    ) -> bool:
        """Closes a lease; False if it is unknown or closed already, and then nothing changes.

        `used_tokens`: None when the upstream did not tell; then the reservation is the best
        guess for a request that reached it. `complete`: see `most_counted`. A request that never
        reached the upstream costs nothing.
        """
        reservation = self.leases.pop(lease_id, None)
        if reservation is None:
            return False
        self.reserved_tokens -= reservation.tokens
        if not reached:
            self.charge.correct(reservation.slot, -reservation.tokens, now)
            return True
        used = reservation.tokens if used_tokens is None else used_tokens
        if used:
            self.usage.add(used, now)
        if self.rule == "actual":
            counted = most_counted(reservation.tokens, used_tokens, complete=complete)
            self.charge.correct(reservation.slot, counted - reservation.tokens, now)
        return True

    def utilization(self, now: float) -> float:
        """Charge as a share of the limit, 0.0 to about 1.0."""
        return self.charge.total(now) / self.limit_tokens

    def set_usage(self, tokens: int, now: float) -> None:
        """An operator's correction: from now on, this minute's usage and charge are `tokens`.

        Open leases keep their reservations on top.
        """
        self.usage, self.charge = SlidingSum(), SlidingSum()
        self.usage.add(tokens, now)
        self.charge.add(tokens, now)
        self.leases = {
            lease_id: Reservation(open_.tokens, self.charge.add(open_.tokens, now))
            for lease_id, open_ in self.leases.items()
        }

    def set_requests(self, count: int, now: float) -> None:
        self.requests = SlidingSum()
        self.requests.add(count, now)

    def export(self, now: float) -> dict[str, str]:
        """For the state file: the entries of each account."""
        return {name: packed(window.export(now)) for name, window in self._windows()}

    def restore(self, exported: Mapping[str, Any], older_s: float, now: float) -> bool:
        """Takes back an `export` that was made `older_s` seconds ago; ignores what is malformed.

        False if it tells no charge that could be read; then nothing is taken."""
        if unpacked(exported.get("charge"), older_s) is None:
            return False
        for name, window in self._windows():
            window.restore(unpacked(exported.get(name), older_s) or (), now)
        return True

    def _windows(self) -> tuple[tuple[str, SlidingSum], ...]:
        return ("charge", self.charge), ("usage", self.usage), ("requests", self.requests)
