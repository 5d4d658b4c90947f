from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from actors.messages import LeaseId
from actors.policy.account import Account, ChargeRule

ONE, TWO = LeaseId(1), LeaseId(2)


def test_a_reservation_is_charged_at_once_and_used_when_settled() -> None:
    account = Account(1000, "estimate")
    account.reserve(ONE, 400, 0)
    assert (account.free(0), account.usage.total(0)) == (600, 0)
    assert account.settle(ONE, 150, reached=True, now=1)
    assert account.usage.total(1) == 150


@pytest.mark.parametrize(("rule_", "free"), [("estimate", 600), ("actual", 850)])
def test_the_charge_follows_the_rule_of_the_upstream(rule_: ChargeRule, free: int) -> None:
    account = Account(1000, rule_)
    account.reserve(ONE, 400, 0)
    account.settle(ONE, 150, reached=True, now=1)
    assert account.free(1) == free


@pytest.mark.parametrize("rule_", ["estimate", "actual"])
def test_what_never_reached_the_upstream_costs_nothing(rule_: ChargeRule) -> None:
    account = Account(1000, rule_)
    account.reserve(ONE, 400, 0)
    account.settle(ONE, None, reached=False, now=1)
    assert (account.free(1), account.usage.total(1)) == (1000, 0)


def test_without_usage_the_reservation_is_the_best_guess() -> None:
    account = Account(1000, "actual")
    account.reserve(ONE, 400, 0)
    account.settle(ONE, None, reached=True, now=1)
    assert (account.free(1), account.usage.total(1)) == (600, 400)


@pytest.mark.parametrize("rule_", ["estimate", "actual"])
@pytest.mark.parametrize(("so_far", "free"), [(30, 600), (450, 550)])
def test_of_an_answer_cut_short_no_less_is_charged_than_may_have_been_counted(
    rule_: ChargeRule, so_far: int, free: int
) -> None:
    account = Account(1000, rule_)
    account.reserve(ONE, 400, 0)
    account.settle(ONE, so_far, complete=False, reached=True, now=1)
    assert account.usage.total(1) == so_far
    assert account.free(1) == (free if rule_ == "actual" else 600)


def test_a_lease_settles_once() -> None:
    account = Account(1000, "actual")
    account.reserve(ONE, 400, 0)
    assert account.settle(ONE, 10, reached=True, now=0)
    assert not account.settle(ONE, 999, reached=True, now=0)
    assert not account.settle(TWO, 999, reached=True, now=0)
    assert account.usage.total(0) == 10


def test_it_says_when_there_will_be_room() -> None:
    account = Account(1000, "estimate")
    account.reserve(ONE, 600, 0)
    account.reserve(TWO, 300, 10)
    assert account.earliest(100, 10) == 10
    at = account.earliest(500, 10)
    assert at is not None
    assert 60 <= at <= 60.2
    assert account.free(at) >= 500
    assert account.earliest(1001, 10) is None


def test_an_operator_can_say_what_was_used() -> None:
    account = Account(1000, "estimate")
    account.reserve(ONE, 100, 0)
    account.set_usage(700, 5)
    assert (account.usage.total(5), account.free(5)) == (700, 200)
    assert account.settle(ONE, 100, reached=False, now=6)
    assert account.free(6) == 300


@given(
    st.lists(st.tuples(st.floats(0, 50), st.integers(0, 200)), max_size=20),
    st.floats(0, 100),
)
def test_a_restored_account_never_forgets_early(
    reservations: list[tuple[float, int]], pause: float
) -> None:
    account = Account(10_000, "estimate")
    for number, (at, tokens) in enumerate(sorted(reservations)):
        account.reserve(LeaseId(number), tokens, at)
    restored = Account(10_000, "estimate")
    restored.restore(account.export(50), pause, 1000)
    assert restored.charge.total(1000) >= account.charge.total(50 + pause + 0.2)


class AccountMachine(RuleBasedStateMachine):
    """Against a plain list of everything that happened."""

    @initialize(rule_=st.sampled_from(["estimate", "actual"]), limit=st.integers(1, 2000))
    def begin(self, rule_: ChargeRule, limit: int) -> None:
        self.account = Account(limit, rule_)
        self.limit = limit
        self.rule_ = rule_
        self.now = 0.0
        self.next_id = 0
        self.open: dict[LeaseId, int] = {}
        self.charges: list[list[float]] = []  # [time, tokens]
        self.usages: list[tuple[float, int]] = []
        self.entry: dict[LeaseId, list[float]] = {}

    def charged(self, span_s: float) -> float:
        return sum(tokens for at, tokens in self.charges if at > self.now - span_s)

    @rule(seconds=st.floats(0, 40))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(tokens=st.integers(0, 500))
    def reserve(self, tokens: int) -> None:
        if tokens > self.account.free(self.now):
            return
        lease_id = LeaseId(self.next_id)
        self.next_id += 1
        self.account.reserve(lease_id, tokens, self.now)
        self.open[lease_id] = tokens
        self.entry[lease_id] = [self.now, tokens]
        self.charges.append(self.entry[lease_id])
        # By our own doing the limit is never exceeded, in any minute.
        if self.rule_ == "estimate":
            assert self.charged(60) <= self.limit

    @precondition(lambda self: self.open)
    @rule(
        data=st.data(),
        used=st.one_of(st.none(), st.integers(0, 800)),
        complete=st.booleans(),
        reached=st.booleans(),
    )
    def settle(self, data: st.DataObject, used: int | None, complete: bool, reached: bool) -> None:
        lease_id = data.draw(st.sampled_from(sorted(self.open)))
        tokens = self.open.pop(lease_id)
        assert self.account.settle(lease_id, used, complete=complete, reached=reached, now=self.now)
        real = 0 if not reached else tokens if used is None else used
        if reached:
            self.usages.append((self.now, real))
        if not reached:
            self.entry[lease_id][1] = 0
        elif self.rule_ == "actual":
            self.entry[lease_id][1] = real if complete else max(real, tokens)

    @invariant()
    def agrees(self) -> None:
        if not hasattr(self, "account"):
            return
        charge = self.account.charge.total(self.now)
        assert self.charged(60) <= charge <= self.charged(60.2)
        assert self.account.reserved_tokens == sum(self.open.values())
        used = self.account.usage.total(self.now)
        assert used >= sum(tokens for at, tokens in self.usages if at > self.now - 60)
        assert charge >= 0
        assert used >= 0


TestAccountMachine = AccountMachine.TestCase
