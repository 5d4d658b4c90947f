"""One model's rate limit at one upstream, as the upstream's own headers show it.

The instance's `Account` keeps the books and knows the configured limit. A quota is the belief
about the limiter itself: what it has counted, what it allows, how it counts (`learning`), and the
pace of requests. As long as an upstream does not tell its limit, that is taken to be the configured
one, which the instance's other models share.
"""

from __future__ import annotations

from math import ceil, floor
from typing import TYPE_CHECKING, Any, NamedTuple

from actors.policy.entries import packed, unpacked
from actors.policy.learning import (
    PERIOD_S,
    SIGNAL,
    CountGrowth,
    CountRatio,
    LearnedLimit,
    OthersUse,
)
from actors.policy.pace import Pace
from actors.policy.window import MAX_RESTORED_AMOUNT, SlidingSum

if TYPE_CHECKING:
    from collections.abc import Mapping

    from actors.messages import Evidence, LeaseId
    from actors.policy.account import ChargeRule


class _Entry(NamedTuple):
    """An open lease. `counts`, `requests`: ours right after it, to be compared with what its
    answer's headers will say. `sent`: all that was ever reserved, with it."""

    tokens: int
    slot: int
    counts: _Counts
    requests: int
    sent: int


class _Counts(NamedTuple):
    """Three ways to count the same minute: what was reserved; what was used, where that is known;
    and the same, but from the end of a call on."""

    charged: int
    used: int
    ended: int


class Quota:
    """Synchronous; `now` is trio time. Written by the owning instance only; the reading methods
    only drop what has left the window, which changes no answer.

    `_charge`, `_used`, `_ended`: see `_Counts`.
    """

    __slots__ = (
        "_charge",
        "_counts_otherwise",
        "_ended",
        "_open",
        "_sent",
        "_used",
        "ended_ratio",
        "growth",
        "limit",
        "others",
        "pace",
        "ratio",
        "used_ratio",
    )

    def __init__(self, configured: int | None = None) -> None:
        """`configured`: tokens per minute, for as long as the upstream tells no limit."""
        self.limit = LearnedLimit(configured)
        self.pace = Pace()
        self.ratio = CountRatio()
        self.used_ratio = CountRatio()
        self.ended_ratio = CountRatio()
        self.growth = CountGrowth()
        self.others = OthersUse()
        self._charge = SlidingSum()
        self._used = SlidingSum()
        self._ended = SlidingSum()
        self._counts_otherwise = False
        """Whether anything has been found out of how it counts, other than as we reserve."""
        self._open: dict[LeaseId, _Entry] = {}
        self._sent = 0

    # -- reading ---------------------------------------------------------------------------

    def charged(self, now: float) -> int:
        """Tokens that were reserved during the last minute."""
        return self._charge.total(now)

    def counted(self, now: float) -> int:
        """Tokens that the limiter is believed to have counted during its minute."""
        ours = self._ours(now) if self._counts_otherwise else self._charge.total(now)
        return ours + self.others.value(now)

    def _ours(self, now: float) -> int:
        """What of `counted` we have sent ourselves."""
        charged = self._charge.total(now)
        if not self._counts_otherwise:
            return charged
        return self._believed(_Counts(charged, self._used.total(now), self._ended.total(now)))

    def _believed(self, counts: _Counts) -> int:
        """What it has counted of ours, by the rule that leaves most room of those that hold."""
        ratio, used = self.ratio.value(), self.used_ratio.of_used()
        ended = self.ended_ratio.of_used()
        least = counts.charged if ratio == 1.0 else ceil(counts.charged * ratio)
        if used is not None:
            least = min(least, ceil(counts.used * used))
        if ended is not None:
            least = min(least, ceil(counts.ended * ended))
        return max(least, ceil(counts.charged * self.growth.value()))

    def free(self, now: float) -> int | None:
        """Tokens that it is believed to let through now; None while no limit is known."""
        limit = self.limit.value(now)
        return None if limit is None else limit - self.counted(now)

    def earliest(self, tokens: int, now: float, ahead: int = 0) -> float | None:
        """When `tokens` will be free if nothing else is sent but `ahead`, before them; None if they
        exceed the limit. `now` while no limit is known.
        """
        limit, stated = self.limit.value(now), self.limit.stated(now)
        if limit is None or stated is None:
            return now
        if tokens > stated:
            return None
        # Others may stop at any time: where they leave too little, it is tried once they may have.
        room = max(tokens, limit - self.others.value(now))
        at = _fits(self._charge, self.ratio.value(), tokens, room, now, ahead)
        for count, found in ((self._used, self.used_ratio), (self._ended, self.ended_ratio)):
            ratio = found.of_used()
            if ratio is not None:
                at = min(at, _fits(count, ratio, tokens, room, now, ahead))
        growth = self.growth.value()
        if growth:
            at = max(at, _fits(self._charge, growth, tokens, room, now, ahead))
        others_leave = self.others.falls_to(max(0, limit - tokens), now)
        return max(at, others_leave, self.limit.reaches(tokens, now))

    def utilization(self, now: float) -> float:
        """Count as a share of the limit; 0.0 while no limit is known."""
        limit = self.limit.value(now)
        return 0.0 if limit is None else self.counted(now) / limit

    def idle(self, now: float) -> bool:
        """Whether forgetting it would lose nothing that matters."""
        return not (self._open or self._charge.total(now) or self.limit.export(now))

    # -- writing ---------------------------------------------------------------------------

    def reserve(self, lease_id: LeaseId, tokens: int, now: float) -> None:
        self._open[lease_id] = self._entered(tokens, self.pace.count(now), now)

    def _entered(self, tokens: int, requests: int, now: float) -> _Entry:
        slot = self._charge.add(tokens, now)
        self._used.add(tokens, now)
        self._ended.add(tokens, now)
        counts = _Counts(self._charge.latest, self._used.latest, self._ended.latest)
        self._sent += tokens
        return _Entry(tokens, slot, counts, requests, self._sent)

    def settle(
        self,
        lease_id: LeaseId,
        counted_tokens: int,
        rule: ChargeRule,
        evidence: Evidence | None,
        now: float,
    ) -> None:
        """Closes a lease. `counted_tokens`: what was used, or the most that may have been."""
        entry = self._open.pop(lease_id)
        if evidence is not None:
            self._learn(entry, evidence, now)
        if rule == "actual":
            self._charge.correct(entry.slot, counted_tokens - entry.tokens, now)
        self._used.correct(entry.slot, counted_tokens - entry.tokens, now)
        self._ended.correct(entry.slot, -entry.tokens, now)
        self._ended.add(counted_tokens, now)

    def observe(self, lease_id: LeaseId, evidence: Evidence, now: float) -> None:
        """Learns from an answer that is still under way."""
        entry = self._open.get(lease_id)
        if entry is not None:
            self._learn(entry, evidence, now)

    def release(self, lease_id: LeaseId, now: float) -> None:
        """Closes a lease of which the upstream knows nothing."""
        entry = self._open.pop(lease_id)
        self._charge.correct(entry.slot, -entry.tokens, now)
        self._used.correct(entry.slot, -entry.tokens, now)
        self._ended.correct(entry.slot, -entry.tokens, now)

    def _learn(self, entry: _Entry, evidence: Evidence, now: float) -> None:
        if evidence.limit_tokens is not None:
            self.limit.observe(evidence.limit_tokens, now)
        if evidence.limit_requests is not None:
            self.pace.limit.observe(evidence.limit_requests, now)
        if evidence.remaining_requests is not None:
            self.pace.observe_remaining(evidence.remaining_requests, entry.requests, now)
        limit = self.limit.value(now)
        if evidence.remaining_tokens is not None and limit is not None:
            self._learn_count(entry, evidence.remaining_tokens, limit, now)

    def _learn_count(self, entry: _Entry, remaining: int, limit: int, now: float) -> None:
        """`remaining`: tokens, when the request of `entry` had arrived there. Against a limit that
        the upstream has not told it can only show that less is left than we thought."""
        told = self.limit.learned(now)
        if told is not None:
            self.growth.observe(told - remaining, entry.sent, told, now)
            if max(entry.counts) >= SIGNAL * told:
                self._compare(told - remaining, entry.counts, told, now)
        excess = limit - remaining
        excess -= self._believed(entry.counts) if self._counts_otherwise else entry.counts.charged
        if excess > 0:  # or later ones of ours have been there before it
            self.others.observe(min(excess, limit - remaining - self._ours(now)), now)

    def _compare(self, counted: int, ours: _Counts, limit: int, now: float) -> None:
        """With each way to count: which one is the upstream's?"""
        self.ratio.observe(counted, ours.charged, limit, now)
        self.used_ratio.observe(counted, ours.used, limit, now)
        self.ended_ratio.observe(counted, ours.ended, limit, now)
        self._counts_otherwise = self.ratio.known or self.used_ratio.known or self.ended_ratio.known

    def refused(self, lease_id: LeaseId, now: float) -> None:
        """The upstream has refused it for its token limit: there was less room than we thought. It
        is not settled yet. If the plain count had not let it through, we have misread how the
        upstream counts.
        """
        entry, stated = self._open.get(lease_id), self.limit.stated(now)
        if entry is None or stated is None:
            return
        if self._counts_otherwise and self._charge.total(now) > stated:
            self._forget_count()
        self.limit.reduce(self.counted(now) - entry.tokens, now)

    def reset(self, tokens: int, now: float) -> None:
        """An operator's correction: from now on, the limiter has counted `tokens` during its
        minute, and what is under way on top."""
        self._charge, self._used, self._ended = SlidingSum(), SlidingSum(), SlidingSum()
        self.others.forget()
        for count in (self._charge, self._used, self._ended):
            count.add(tokens, now)
        for lease_id, entry in self._open.items():
            self._open[lease_id] = self._entered(entry.tokens, entry.requests, now)

    def forget(self) -> None:
        """What was learned was about another upstream; what was sent counts on."""
        self.limit.forget()
        self.pace.limit.forget()
        self._forget_count()
        self.others.forget()

    def _forget_count(self) -> None:
        """It counts as we reserve, until it shows otherwise."""
        self._counts_otherwise = False
        self.ratio.forget()
        self.used_ratio.forget()
        self.ended_ratio.forget()
        self.growth.forget()

    # -- the state file --------------------------------------------------------------------

    def export(self, now: float) -> dict[str, Any]:
        found: dict[str, Any] = {
            "limit_tokens": self.limit.export(now),
            "limit_requests": self.pace.limit.export(now),
            "others_tokens": self.others.value(now),
            "others_requests": self.pace.others.value(now),
            "charge": packed(self._charge.export(now)),
            "used": packed(self._used.export(now)),
            "ended": packed(self._ended.export(now)),
            "requests": packed(self.pace.export(now)),
        }
        if self._counts_otherwise:
            found["ratios"] = {name: ratio.export() for name, ratio in self._ratios()}
            found["growth"] = self.growth.value()
        return found

    def restore(self, exported: Mapping[str, Any], older_s: float, now: float) -> bool:
        """Takes back an `export` that was made `older_s` seconds ago; ignores what is malformed.

        False if it does not tell what was sent; then nothing is taken: a limit is worth nothing
        without what counts against it."""
        charge, used, ended, requests = (
            unpacked(exported.get(name), older_s)
            for name in ("charge", "used", "ended", "requests")
        )
        if charge is None or used is None or ended is None or requests is None:
            return False
        self._charge.restore(charge, now)
        self._used.restore(used, now)
        self._ended.restore(ended, now)
        self.pace.restore(requests, now)
        self.limit.restore(exported.get("limit_tokens"), older_s, now)
        self.pace.limit.restore(exported.get("limit_requests"), older_s, now)
        for name, use in (("others_tokens", self.others), ("others_requests", self.pace.others)):
            others = exported.get(name)
            if type(others) is int and others <= MAX_RESTORED_AMOUNT:
                use.observe(others, now - older_s)
        ratios = exported.get("ratios")
        if isinstance(ratios, dict) and older_s <= PERIOD_S:
            for name, ratio in self._ratios():
                ratio.restore(ratios.get(name))
            self.growth.restore(exported.get("growth"))
            self._counts_otherwise = any(ratio.known for _, ratio in self._ratios())
        return True

    def _ratios(self) -> tuple[tuple[str, CountRatio], ...]:
        return ("charge", self.ratio), ("used", self.used_ratio), ("ended", self.ended_ratio)


def _fits(
    count: SlidingSum, ratio: float, tokens: int, limit: int, now: float, ahead: int
) -> float:
    """When `tokens` fit, of each of which the limiter counts `ratio` once they are in `count`."""
    if not ahead:
        at = count.falls_to(floor((limit - tokens) / ratio), now)
    else:
        room = floor(limit / ratio)
        at = count.fits(min(ceil(tokens / ratio), room), room, now, ahead)
    assert at is not None, "the limit holds it"
    return at
