from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from actors.mailbox import Reply
from actors.messages import Acquire, Answer, Demand, LeaseId
from actors.policy import promises as module
from actors.policy.bookings import TOLD_APART
from actors.policy.headroom import NOBODY, Ahead
from actors.policy.promises import GRACE_S, LONGEST_S, MOST, Promises

EAST = ("east", "")
FOREVER = float("inf")


def ask(tokens: int, model: str = "gpt-4", priority: int = 100) -> Acquire:
    demand = Demand(model, tokens, tokens, tokens, 0)
    return Acquire(LeaseId(0), demand, 0.0, Reply[Answer](), priority=priority)


def taken_up() -> Promises:
    """All that was promised has been taken up so far."""
    promises = Promises()
    for _ in range(100):
        promises.give(ask(1), EAST, 0.0, 0.0)
        assert promises.take_up("gpt-4", 0.0)
    assert promises.share > 0.95
    promises.share = 1.0
    return promises


def test_a_promise_holds_from_its_time_on_once_and_not_forever() -> None:
    promises = Promises()
    promises.give(ask(10), EAST, 7.0, 0.0)
    assert not promises.take_up("gpt-4", 6.0)
    assert not promises.take_up("other", 7.0)
    assert promises.due("gpt-4", 7.0)
    assert promises.take_up("gpt-4", 7.0)
    assert not promises.take_up("gpt-4", 7.0)
    promises.give(ask(10), EAST, 20.0, 8.0)
    assert not promises.take_up("gpt-4", 20.1 + GRACE_S)
    assert len(promises) == 0


def test_those_who_are_expected_back_are_ahead_of_whoever_has_his_turn_later() -> None:
    promises = taken_up()
    promises.give(ask(10), EAST, 7.0, 0.0)
    promises.give(ask(200, priority=500), EAST, 30.0, 0.0)
    assert promises.ahead(EAST, 100, 6.0, 0.0) == NOBODY
    assert promises.ahead(EAST, 100, 8.0, 0.0) == Ahead(10, 1)
    assert promises.ahead(EAST, 50, 8.0, 0.0) == NOBODY
    assert promises.ahead(EAST, 500, 60.0, 0.0) == Ahead(210, 2)
    assert promises.ahead(("west", ""), 500, 60.0, 0.0) == NOBODY
    promises.take_up("gpt-4", 7.0)
    assert promises.ahead(EAST, 500, 60.0, 7.0) == Ahead(200, 1)


def test_where_nobody_comes_back_nothing_is_kept_for_anybody() -> None:
    promises = taken_up()
    for second in range(300):
        promises.give(ask(1000), EAST, second + 1.0, float(second))
    assert promises.share < 0.05
    assert promises.ahead(EAST, 100, FOREVER, 300.0).tokens < 0.05 * 1000 * len(promises) + 1


def test_before_anybody_has_come_back_nothing_is_kept() -> None:
    promises = Promises()
    promises.give(ask(1000), EAST, 5.0, 0.0)
    assert promises.ahead(EAST, 100, FOREVER, 0.0) == NOBODY


def test_what_is_too_far_off_and_what_is_too_much_is_not_remembered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "MOST", 3)
    promises = Promises()
    promises.give(ask(1), EAST, LONGEST_S + 1, 0.0)
    assert len(promises) == 0
    for _ in range(5):
        promises.give(ask(1), EAST, 1.0, 0.0)
    assert len(promises) == 3


def test_priorities_that_are_too_many_to_tell_apart_count_as_no_later_than_they_are() -> None:
    promises = taken_up()
    for priority in range(1_000_000, 1_000_000 - TOLD_APART, -1):
        promises.give(ask(1, priority=priority), EAST, 5.0, 0.0)
    promises.give(ask(100, priority=100), EAST, 5.0, 0.0)
    assert promises.ahead(EAST, 100, 5.0, 0.0) == Ahead(100, 1)
    assert promises.ahead(EAST, 64, 5.0, 0.0) == Ahead(100, 1), "they can't be told apart"
    assert promises.ahead(EAST, 63, 5.0, 0.0) == NOBODY
    assert promises.ahead(EAST, 999_999, 5.0, 0.0) == Ahead(100 + TOLD_APART - 1, TOLD_APART)


def test_what_clients_choose_does_not_make_the_forecast_dear() -> None:
    promises = taken_up()
    for priority in range(MOST):
        promises.give(ask(1, priority=priority), EAST, priority % 100, 0.0)
    assert promises.ahead(EAST, MOST, FOREVER, 0.0) == Ahead(MOST, MOST)
    assert len(promises._by_limit[EAST]) <= TOLD_APART + 20
    promises.due("gpt-4", 200.0)
    assert (len(promises), promises._by_limit) == (0, {}), "all of them end"


class PromisesMachine(RuleBasedStateMachine):
    """Against a plain list of what was promised."""

    def __init__(self) -> None:
        super().__init__()
        self.promises = Promises()
        self.given: list[tuple[float, str, int, int]] = []
        self.now = 0.0

    @rule(
        model=st.sampled_from("ab"),
        in_s=st.floats(0, LONGEST_S - 1),
        priority=st.integers(0, TOLD_APART - 1),
        tokens=st.integers(0, 100),
    )
    def give(self, model: str, in_s: float, priority: int, tokens: int) -> None:
        due = self.now + in_s
        self.promises.give(ask(tokens, model, priority), (model, ""), due, self.now)
        self.given.append((due, model, priority, tokens))

    @rule(model=st.sampled_from("ab"))
    def come_back(self, model: str) -> None:
        due = [each for each in self.given if each[1] == model and each[0] <= self.now]
        if self.promises.take_up(model, self.now):
            mine = [each for each in self.given if each[1] == model]
            self.given.remove(min(mine))
        else:
            assert not due

    @rule(seconds=st.floats(0, 20))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.promises.due("a", self.now)
        self.given = [each for each in self.given if each[0] + GRACE_S >= self.now]

    @invariant()
    def what_is_ahead_is_a_share_of_what_was_promised(self) -> None:
        assert len(self.promises) == len(self.given)
        assert 0.0 <= self.promises.share <= 1.0
        for model in "ab":
            for priority, in_s in ((0, 3.0), (4, 60.0), (TOLD_APART, LONGEST_S), (9, FOREVER)):
                until = self.now + in_s
                mine = [
                    tokens
                    for due, which, other, tokens in self.given
                    if which == model and other <= priority and int(due) <= until
                ]
                share = self.promises.share
                ahead = self.promises.ahead((model, ""), priority, until, self.now)
                assert ahead == Ahead(round(share * sum(mine)), round(share * len(mine)))


TestPromises = PromisesMachine.TestCase
