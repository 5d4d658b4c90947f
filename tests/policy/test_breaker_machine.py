"""A machine that tries to trap the breaker."""

from __future__ import annotations

import math
from copy import deepcopy
from dataclasses import dataclass

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from tripped import HUGE, START, fresh, outcome, snapshot

from actors.messages import LeaseId
from actors.policy.breaker import (
    CONSECUTIVE_FAILURES,
    MAX_OPEN_S,
    MIN_OUTCOMES,
    RAMP_S,
    RAMP_SUCCESSES,
    WINDOW_S,
)


@dataclass
class Lease:
    tokens: int
    at: float


class BreakerMachine(RuleBasedStateMachine):
    """Random traffic; an oracle that keeps every outcome of the period in a plain list.

    Time goes in whole seconds, so that the slots of the breaker's windows are exact.
    """

    def __init__(self) -> None:
        super().__init__()
        self.breaker = fresh()
        self.now = START
        self.next_id = 1
        self.stale: list[LeaseId] = []
        self.current: dict[LeaseId, Lease] = {}
        self.begin("closed")

    def begin(self, state: str) -> None:
        """A new period: what is in flight is stale, what was observed is forgotten."""
        self.state = state
        self.stale += self.current
        self.current = {}
        self.outcomes: list[tuple[float, bool]] = []
        self.successes = 0
        self.ramp_ends = math.inf

    def recover_in_time(self) -> None:
        if self.state == "half_open" and self.now >= self.ramp_ends:
            self.state = "closed"

    def expect(self) -> None:
        assert self.breaker.state == self.state

    def take(self, data: st.DataObject) -> LeaseId:
        lease = data.draw(st.sampled_from(sorted(self.current)))
        del self.current[lease]
        return lease

    @rule(seconds=st.sampled_from([0, 1, 2, 5, 31, 90]))
    def pass_time(self, seconds: int) -> None:
        self.now += seconds

    @rule()
    def wait_until_due(self) -> None:
        at = self.breaker.next_admission(self.now)
        if at is not None:
            self.now = float(math.ceil(at))

    @rule(tokens=st.sampled_from([0, 1, 100, 250, 5_000, HUGE]))
    def ask(self, tokens: int) -> None:
        before = snapshot(self.breaker)
        admitted = self.breaker.admits(tokens, self.now)
        assert snapshot(self.breaker) == before
        lease = LeaseId(self.next_id)
        self.next_id += 1
        if not admitted:
            with pytest.raises(AssertionError):
                self.breaker.granted(lease, tokens, self.now)
            assert snapshot(self.breaker) == before
            return
        if self.state == "open":
            self.begin("half_open")
        self.recover_in_time()
        self.breaker.granted(lease, tokens, self.now)
        self.current[lease] = Lease(tokens, self.now)
        self.expect()

    @precondition(lambda self: self.current)
    @rule(data=st.data())
    def succeed(self, data: st.DataObject) -> None:
        self.breaker.succeeded(self.take(data), self.now)
        self.recover_in_time()
        if self.state == "closed":
            self.outcomes.append((self.now, True))
        else:
            self.successes += 1
            if self.successes == 1:
                self.ramp_ends = self.now + RAMP_S
            if self.successes == RAMP_SUCCESSES:
                self.state = "closed"
        self.expect()

    @precondition(lambda self: self.current)
    @rule(data=st.data())
    def succeed_aside(self, data: st.DataObject) -> None:
        self.breaker.succeeded(self.take(data), self.now, aside=True)
        self.recover_in_time()
        if self.state == "half_open" and not self.successes:
            self.successes = 1
            self.ramp_ends = self.now + RAMP_S
        self.expect()

    @precondition(lambda self: self.current)
    @rule(data=st.data())
    def fail(self, data: st.DataObject) -> None:
        self.breaker.failed(self.take(data), self.now)
        self.recover_in_time()
        self.outcomes.append((self.now, False))
        recent = [ok for at, ok in self.outcomes if self.now - at <= WINDOW_S]
        last = [ok for _, ok in self.outcomes[-CONSECUTIVE_FAILURES:]]
        if (
            self.state == "half_open"
            or last == [False] * CONSECUTIVE_FAILURES
            or (len(recent) >= MIN_OUTCOMES and 2 * recent.count(False) >= len(recent))
        ):
            self.begin("open")
        self.expect()

    @precondition(lambda self: self.current)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        self.breaker.released(self.take(data))
        self.expect()

    @precondition(lambda self: self.stale)
    @rule(data=st.data(), kind=st.sampled_from(["succeeded", "failed", "released"]))
    def judge_an_old_lease(self, data: st.DataObject, kind: str) -> None:
        lease = data.draw(st.sampled_from(self.stale))
        before = snapshot(self.breaker)
        now = () if kind == "released" else (self.now,)
        getattr(self.breaker, kind)(lease, *now)
        assert snapshot(self.breaker) == before

    @rule()
    def reset(self) -> None:
        self.breaker.reset()
        self.begin("closed")
        self.expect()

    @rule(down_s=st.integers(0, 100))
    def restart(self, down_s: int) -> None:
        exported = self.breaker.export(self.now)
        self.breaker = fresh(self.next_id)
        self.breaker.restore(exported, down_s, self.now)
        self.begin("closed" if self.state == "closed" else "open")
        self.expect()

    @rule()
    def a_sound_instance_recovers(self) -> None:
        """From wherever it is, on a copy: successes alone lead to a breaker that admits all."""
        breaker, now = deepcopy(self.breaker), self.now
        for lease in self.current:
            breaker.succeeded(lease, now)
        for number in range(RAMP_SUCCESSES):
            now = breaker.next_admission(now) or math.nan
            assert now <= self.now + MAX_OPEN_S
            outcome(breaker, True, now, lease=10**6 + number)
        assert breaker.state == "closed"
        assert breaker.admits(HUGE, now)

    @invariant()
    def what_next_admission_says_is_true(self) -> None:
        at = self.breaker.next_admission(self.now)
        if at is None:
            assert self.breaker.state == "half_open"
            assert self.current
            return
        assert self.now <= at <= self.now + MAX_OPEN_S
        assert self.breaker.admits(HUGE, at)

    @invariant()
    def half_open_has_one_probe_until_it_is_proved(self) -> None:
        if self.breaker.state == "half_open" and not self.successes:
            fresh_probes = [x for x in self.current.values() if self.now - x.at < RAMP_S]
            assert len(fresh_probes) <= 1

    @invariant()
    def closed_admits_everything(self) -> None:
        if self.breaker.state == "closed":
            assert self.breaker.admits(HUGE, self.now)


TestBreakerMachine = BreakerMachine.TestCase
