from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from actors.mailbox import Reply
from actors.messages import Acquire, Answer, Demand, LeaseId
from actors.policy.line import LOOK_AHEAD, NEVER, WaitingLine


def ask(
    number: int, model: str = "gpt-4", wait_until: float = 100.0, priority: int = 100
) -> Acquire:
    reply: Reply[Answer] = Reply()
    demand = Demand(model, 1, 1, 1, 0)
    return Acquire(LeaseId(number), demand, wait_until, reply, priority=priority)


def numbers(line: WaitingLine) -> list[int]:
    return [each.lease_id for each in line.oldest_first(frozenset())]


def line_of(*asks: Acquire, limit: int = 10_000) -> WaitingLine:
    line = WaitingLine(limit)
    for each in asks:
        line.join(each)
    return line


def test_oldest_first_whatever_the_model() -> None:
    line = line_of(ask(3, "b"), ask(1, "a"), ask(4, "a"), ask(2, "b"))
    assert numbers(line) == [1, 2, 3, 4]


def test_a_lower_priority_number_goes_first_and_age_decides_within_it() -> None:
    line = line_of(ask(1), ask(2, priority=5), ask(3, priority=500), ask(4, priority=5))
    assert numbers(line) == [2, 4, 1, 3]
    assert line.leave(LeaseId(2))
    assert numbers(line) == [4, 1, 3]


def test_who_comes_back_finds_the_old_place() -> None:
    line = line_of(ask(1), ask(2), ask(3))
    first = next(line.oldest_first(()))
    line.leave(first.lease_id)
    line.join(first)
    assert numbers(line) == [1, 2, 3]


def test_a_model_is_left_out_from_the_moment_at_which_it_is_blocked() -> None:
    line = line_of(*(ask(number, "ab"[number % 2]) for number in range(8)))
    blocked: set[str] = set()
    seen = []
    for each in line.oldest_first(blocked):
        seen.append(each.lease_id)
        if each.lease_id == 3:
            blocked.add("b")
    assert seen == [0, 1, 2, 3, 4, 6]


def test_those_who_leave_in_passing_do_not_hide_the_next() -> None:
    line = line_of(*(ask(number, "ab"[number % 2]) for number in range(6)))
    seen = []
    for each in line.oldest_first(()):
        seen.append(each.lease_id)
        if each.lease_id in (0, 2, 3):
            line.leave(each.lease_id)
    assert seen == [0, 1, 2, 3, 4, 5]
    assert numbers(line) == [1, 4, 5]


def test_only_so_many_who_stay_are_looked_at_for_each_model() -> None:
    line = line_of(*(ask(number) for number in range(100)), ask(100, "other"))
    assert numbers(line) == [*range(LOOK_AHEAD), 100]
    served = 0
    for each in line.oldest_first(()):
        served += 1
        line.leave(each.lease_id)
    assert (served, len(line)) == (101, 0)


def test_it_is_full_at_its_limit() -> None:
    line = line_of(ask(1), limit=2)
    assert not line.full()
    line.join(ask(2))
    assert line.full()
    line.leave(LeaseId(1))
    assert not line.full()


def test_only_those_leave_who_are_in_it() -> None:
    line = line_of(ask(1))
    assert not line.leave(LeaseId(2))
    assert line.leave(LeaseId(1))
    assert not line.leave(LeaseId(1))


def test_patience_ends_by_deadline_not_by_age() -> None:
    line = line_of(ask(1, wait_until=9.0), ask(2, wait_until=5.0), ask(3, wait_until=7.0))
    assert line.next_deadline() == 5.0
    assert list(line.expired(4.9)) == []
    assert [each.lease_id for each in line.expired(7.0)] == [2, 3]
    assert line.next_deadline() == 9.0


def test_clearing_hands_out_everybody() -> None:
    line = line_of(ask(1), ask(2))
    assert [each.lease_id for each in line.clear()] == [1, 2]
    assert (len(line), line.next_deadline(), numbers(line)) == (0, NEVER, [])


@pytest.mark.parametrize("keep", [0, 3])
def test_those_who_have_left_are_not_kept_in_memory(keep: int) -> None:
    line = line_of(*(ask(-number) for number in range(keep)))
    for number in range(1, 5000):
        line.join(ask(number, f"model-{number}", wait_until=1e6))
        line.leave(LeaseId(number))
    assert len(line._deadlines) < 100
    assert len(line._queues) == min(keep, 1)


@dataclass
class Entry:
    model: str
    wait_until: float


class LineMachine(RuleBasedStateMachine):
    """Against a plain dictionary of who waits."""

    def __init__(self) -> None:
        super().__init__()
        self.line = WaitingLine(1000)
        self.waiting: dict[int, Entry] = {}
        self.now = 0.0
        self.next_id = 0

    def join(self, number: int, model: str, wait_until: float) -> None:
        self.line.join(ask(number, model, wait_until))
        self.waiting[number] = Entry(model, wait_until)

    @rule(model=st.sampled_from("abc"), patience=st.sampled_from([0.5, 1, 5, 50]))
    def arrive(self, model: str, patience: float) -> None:
        self.join(self.next_id, model, self.now + patience)
        self.next_id += 1

    @precondition(lambda self: self.waiting)
    @rule(data=st.data(), back=st.booleans())
    def leave(self, data: st.DataObject, back: bool) -> None:
        number = data.draw(st.sampled_from(sorted(self.waiting)))
        entry = self.waiting.pop(number)
        assert self.line.leave(LeaseId(number))
        if back:
            self.join(number, entry.model, entry.wait_until)

    @rule(seconds=st.sampled_from([0.0, 0.5, 3, 10]))
    def expire(self, seconds: float) -> None:
        self.now += seconds
        expired = [each.lease_id for each in self.line.expired(self.now)]
        due = {n for n, entry in self.waiting.items() if entry.wait_until <= self.now}
        assert sorted(expired) == sorted(due)
        assert expired == sorted(expired, key=lambda n: self.waiting[n].wait_until)
        for number in due:
            del self.waiting[number]

    @rule(served=st.sets(st.integers(0, 60)), blocked=st.sets(st.sampled_from("abc")))
    def walk(self, served: set[int], blocked: set[str]) -> None:
        """Everybody of a model that is not blocked is seen once, by age; blocked ones once."""
        seen = []
        for each in self.line.oldest_first(blocked):
            seen.append(each.lease_id)
            if each.lease_id in served:
                self.line.leave(each.lease_id)
        expected: list[int] = []
        stayed: dict[str, int] = dict.fromkeys("abc", 0)
        for number in sorted(self.waiting):
            model = self.waiting[number].model
            first = all(self.waiting[n].model != model for n in expected)
            if first or (model not in blocked and stayed[model] < LOOK_AHEAD):
                expected.append(number)
                stayed[model] += number not in served
        assert seen == expected
        for number in served & set(seen):
            del self.waiting[number]

    @invariant()
    def counts_agree(self) -> None:
        assert len(self.line) == len(self.waiting)
        deadlines = [entry.wait_until for entry in self.waiting.values()]
        assert self.line.next_deadline() == min(deadlines, default=NEVER)


TestLineMachine = LineMachine.TestCase
TestLineMachine.settings = settings(max_examples=50, deadline=None)


def test_asks_that_are_confined_do_not_hide_the_others_behind_them() -> None:
    line = WaitingLine(100)
    for number in range(10):
        line.join(ask(number)._replace(only=frozenset({"east"})))
    line.join(ask(10))
    line.join(ask(11)._replace(only=frozenset({"west"})))
    assert numbers(line) == [*range(LOOK_AHEAD), 10, 11]
    assert line.leave(LeaseId(4))
    assert line.leave(LeaseId(11))
    assert [each.lease_id for each in line.clear()] == [0, 1, 2, 3, 5, 6, 7, 8, 9, 10]
