"""The sliding sum against a plain list of everything that was ever added to it."""

from __future__ import annotations

import json
import math
from copy import deepcopy
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from actors.policy.window import BLOCK, MAX_RESTORED_AMOUNT, Amounts, SlidingSum

ROUNDING_S = 1e-6
"""Far more than a float of trio time is off by, far less than a slot."""


def entries(held: Amounts) -> list[tuple[float, int]]:
    """(age in seconds, amount), newest first, as they come back from the state file, exactly."""
    since_s = [0.0, *(held.second_s + n * held.step_s for n in range(len(held.amounts)))]
    return [(age, amount) for age, amount in zip(since_s, held.amounts, strict=False) if amount]


def test_an_empty_window_sums_to_nothing() -> None:
    window = SlidingSum()
    assert window.total(0.0) == 0
    assert window.total(1e6) == 0
    assert window.falls_to(0, 1e6) == 1e6
    assert window.export(1e6).amounts == []


def test_an_amount_counts_for_the_span_and_at_most_one_slot_more() -> None:
    window = SlidingSum(60.0, 600)
    window.add(7, 100.05)
    assert window.total(160.05) == 7
    assert window.total(160.2) == 0


def test_the_slots_of_a_whole_minute_leave_one_by_one() -> None:
    window = SlidingSum(60.0, 60)
    for second in range(60):
        window.add(1, second + 0.5)
    assert window.total(60.5) == 60
    assert [window.total(61.5 + n) for n in range(60)] == list(range(59, -1, -1))


def test_slots_are_numbered_in_the_order_of_time() -> None:
    window = SlidingSum()
    slots = [window.add(1, now) for now in (5.0, 5.0, 5.05, 5.3, 65.3, 1e6)]
    assert slots == sorted(slots)
    assert slots[0] == slots[1] < slots[3] < slots[4] < slots[5]


def test_a_long_idle_time_empties_the_window() -> None:
    window = SlidingSum()
    window.add(1_000, 10.0)
    window.add(1_000, 69.0)
    assert window.total(1e9) == 0
    window.add(3, 1e9)
    assert window.total(1e9 + 60) == 3


def test_an_earlier_now_counts_as_the_latest() -> None:
    window = SlidingSum()
    slot = window.add(5, 100.0)
    assert window.add(5, 99.7) == slot
    assert window.total(99.0) == 10
    assert window.total(160.0) == 10


def test_a_correction_changes_the_amount_where_it_was_added() -> None:
    window = SlidingSum()
    early = window.add(100, 10.0)
    window.add(1, 40.0)
    window.correct(early, -60, 50.0)
    assert window.total(50.0) == 41
    window.correct(early, +9, 50.0)
    assert window.total(50.0) == 50
    assert window.total(70.2) == 1


def test_a_correction_of_what_has_left_is_ignored() -> None:
    window = SlidingSum()
    slot = window.add(100, 10.0)
    window.add(3, 30.0)
    window.correct(slot, -100, 70.2)
    window.correct(slot, +100, 70.2)
    assert window.total(70.2) == 3
    window.correct(slot, -100, 1e6)
    assert window.total(1e6) == 0


def test_taking_out_more_than_was_put_in_changes_nothing() -> None:
    window = SlidingSum()
    slot = window.add(100, 10.0)
    window.add(50, 20.0)
    with pytest.raises(AssertionError):
        window.correct(slot, -101, 30.0)
    assert window.total(30.0) == 150
    with pytest.raises(AssertionError):
        window.add(-1, 30.0)
    assert window.total(30.0) == 150


def test_falls_to_names_the_moment_at_which_enough_has_left() -> None:
    window = SlidingSum(60.0, 600)
    window.add(100, 10.0)
    window.add(200, 20.0)
    now = 30.0
    assert window.falls_to(-1, now) is None
    assert window.falls_to(300, now) == now
    assert window.falls_to(299, now) == pytest.approx(70.1)
    assert window.falls_to(200, now) == pytest.approx(70.1)
    assert window.falls_to(199, now) == pytest.approx(80.1)
    assert window.falls_to(0, now) == pytest.approx(80.1)


def test_export_survives_json_and_a_restart_on_another_clock() -> None:
    window = SlidingSum()
    window.add(100, 1_000.0)
    window.add(40, 1_050.0)
    exported = json.loads(json.dumps(entries(window.export(1_055.0))))
    assert [amount for _, amount in exported] == [40, 100]

    down_s = 2.0
    restored = SlidingSum()
    restored.restore([(age + down_s, amount) for age, amount in exported], 7.0)
    assert restored.total(7.0) == 140
    assert restored.total(7.0 + 60 - 57) == 140
    assert restored.total(7.0 + 60 - 57 + BLOCK * 0.1 + 0.2) == 40
    assert restored.total(7.0 + 60 - 7 + BLOCK * 0.1 + 0.2) == 0


def test_restore_drops_garbage_and_clips_the_future() -> None:
    window = SlidingSum()
    garbage: list[object] = [
        None,
        7,
        "12",
        b"ab",
        [],
        [1.0],
        [1.0, 2, 3],
        {"age": 1.0, "amount": 2},
        ["1", 2],
        [1.0, "2"],
        [1.0, 2.5],
        [True, 2],
        [1.0, True],
        [None, None],
        [math.nan, 2],
        [math.inf, 2],
        [10**400, 2],
        [1.0, -2],
        [1.0, MAX_RESTORED_AMOUNT + 1],
        [1.0, 10**400],
        [3_600.0, 2],
    ]
    window.restore(garbage, 500.0)
    assert window.export(500.0).amounts == []

    window.restore([(-5.0, 1), (-math.inf, 2), (-(10**400), 4)], 500.0)
    assert window.total(560.0) == 7
    assert window.total(560.2) == 0


def test_what_is_restored_is_bounded_as_a_whole() -> None:
    window = SlidingSum()
    window.restore([(age, MAX_RESTORED_AMOUNT) for age in range(50)], 500.0)
    assert window.total(500.0) == MAX_RESTORED_AMOUNT
    window.add(10**15, 500.0)
    assert window.total(500.0) == MAX_RESTORED_AMOUNT + 10**15


def test_restore_counts_what_the_window_would_still_count() -> None:
    window = SlidingSum()
    window.restore([(60.1, 8), (60.2, 16)], 500.05)
    assert window.total(500.05) == 0
    window.restore([(60.0, 1), (60.04, 2), (59.9, 4)], 500.05)
    assert window.total(500.05) == 7
    assert window.total(500.2) == 0


def test_restoring_adds_to_what_is_there() -> None:
    window = SlidingSum()
    slot = window.add(10, 500.0)
    window.restore([(0.0, 5), (30, 6)], 500.0)
    assert window.total(500.0) == 21
    window.correct(slot, -10, 500.0)
    assert window.total(500.0) == 11


clock_times = st.floats(-1e7, 1e7, allow_subnormal=False)
requests = st.lists(
    st.tuples(
        st.floats(0, 40, allow_subnormal=False) | st.sampled_from([0.0, 0.1, 0.3, 59.9, 60.0]),
        st.integers(0, 60),
    ),
    max_size=60,
)


@given(
    requests,
    clock_times,
    st.sampled_from([(60.0, 600), (1.0, 10), (10.0, 7)]),
)
def test_no_interval_of_the_span_ever_exceeds_what_admission_allows(
    requests: list[tuple[float, int]], now: float, shape: tuple[float, int]
) -> None:
    span_s, limit = shape[0], 100
    window = SlidingSum(*shape)
    admitted: list[tuple[float, int]] = []
    for gap_s, amount in requests:
        now += gap_s
        if window.total(now) + amount <= limit:
            window.add(amount, now)
            admitted.append((now, amount))
    for start, _ in admitted:
        inside = sum(a for at, a in admitted if start <= at <= start + span_s - ROUNDING_S)
        assert inside <= limit


@dataclass
class Added:
    """`slot` is None when it came back from a record: then nobody can correct it."""

    at: float
    amount: int
    slot: int | None
    late_s: float = 0.0


class WindowAgainstList(RuleBasedStateMachine):
    """Everything the window may do, beside a list that forgets nothing."""

    @initialize(
        shape=st.sampled_from([(60.0, 600), (60.0, 1), (1.0, 10), (10.0, 7), (0.3, 3)]),
        start=clock_times,
    )
    def begin(self, shape: tuple[float, int], start: float) -> None:
        self.shape = shape
        self.span_s = shape[0]
        self.slot_s = shape[0] / shape[1]
        self.now = start
        self.window = SlidingSum(*shape)
        self.added: list[Added] = []

    def must_count(self, entry: Added) -> bool:
        return self.now - entry.at <= self.span_s - ROUNDING_S

    def may_count(self, entry: Added) -> bool:
        return self.now - entry.at <= self.span_s + self.slot_s + entry.late_s + ROUNDING_S

    @rule(fraction=st.floats(0, 0.4), slots=st.integers(0, 4))
    def pass_time(self, fraction: float, slots: int) -> None:
        self.now += fraction * self.span_s + slots * self.slot_s

    @rule(hours=st.integers(1, 100))
    def sit_idle(self, hours: int) -> None:
        self.now += hours * 3600

    @rule(amount=st.integers(0, 1000), behind_s=st.sampled_from([0.0, 1e-9]))
    def add(self, amount: int, behind_s: float) -> None:
        slot = self.window.add(amount, self.now - behind_s)
        assert all(earlier.slot <= slot for earlier in self.added if earlier.slot is not None)
        self.added.append(Added(self.now, amount, slot))

    @precondition(lambda self: any(entry.slot is not None for entry in self.added))
    @rule(data=st.data())
    def correct(self, data: st.DataObject) -> None:
        entry = data.draw(st.sampled_from([a for a in self.added if a.slot is not None][-20:]))
        assert entry.slot is not None
        delta = data.draw(st.integers(-entry.amount, 500))
        before = self.window.total(self.now)
        self.window.correct(entry.slot, delta, self.now)
        after = self.window.total(self.now)
        if self.must_count(entry):
            assert after == before + delta
        elif not self.may_count(entry):
            assert after == before
        entry.amount += delta

    @precondition(lambda self: any(entry.slot is not None for entry in self.added))
    @rule(data=st.data())
    def overdraw(self, data: st.DataObject) -> None:
        entry = data.draw(st.sampled_from([a for a in self.added if a.slot is not None][-20:]))
        assert entry.slot is not None
        before = self.window.export(self.now)
        too_much = -self.window.total(self.now) - 1
        if self.must_count(entry):
            with pytest.raises(AssertionError):
                self.window.correct(entry.slot, too_much, self.now)
        elif not self.may_count(entry):
            self.window.correct(entry.slot, too_much, self.now)
        assert self.window.export(self.now) == before

    @rule(limit=st.integers(-5, 3000))
    def wait_for(self, limit: int) -> None:
        at = self.window.falls_to(limit, self.now)
        if limit < 0:
            assert at is None
            return
        assert at is not None
        assert at >= self.now
        assert deepcopy(self.window).total(at) <= limit
        if at > self.now:
            just_before = max(self.now, at - ROUNDING_S)
            assert deepcopy(self.window).total(just_before) > limit

    @rule(down_s=st.floats(0, 30), start=clock_times)
    def restart(self, down_s: float, start: float) -> None:
        exported = entries(self.window.export(self.now))
        self.window = SlidingSum(*self.shape)
        self.window.restore([(age + down_s, amount) for age, amount in exported], start)
        for entry in self.added:
            entry.at += start - (self.now + down_s)
            entry.slot = None
            entry.late_s += BLOCK * self.slot_s + ROUNDING_S
        self.now = start

    @invariant()
    def the_total_is_within_the_bounds(self) -> None:
        total = self.window.total(self.now)
        must = sum(entry.amount for entry in self.added if self.must_count(entry))
        may = sum(entry.amount for entry in self.added if self.may_count(entry))
        assert 0 <= must <= total <= may

    @rule(behind_s=st.sampled_from([0.0, 1e-9, 0.2]))
    def the_export_is_the_window(self, behind_s: float) -> None:
        total = self.window.total(self.now)
        exported = self.window.export(self.now - behind_s)
        assert sum(exported.amounts) == total
        assert not exported.amounts or exported.amounts[-1]
        assert len(exported.amounts) <= self.shape[1] // BLOCK + 2
        assert exported.step_s == pytest.approx(BLOCK * self.slot_s)
        for limit_s in (0.1 * self.span_s, 0.5 * self.span_s, 0.9 * self.span_s):
            told = sum(a for age, a in entries(exported) if age <= limit_s + ROUNDING_S)
            held = [a for a in self.added if not a.late_s and self.must_count(a)]
            younger = sum(a.amount for a in held if self.now - behind_s - a.at <= limit_s)
            assert told >= younger


TestWindowAgainstList = WindowAgainstList.TestCase


@given(
    amounts=st.lists(st.tuples(st.integers(0, 99), st.integers(1, 40)), max_size=20),
    queue=st.lists(st.integers(1, 60), min_size=1, max_size=12),
)
def test_what_fits_after_a_queue_is_what_a_queue_finds(
    amounts: list[tuple[int, int]], queue: list[int]
) -> None:
    """The oracle: everybody enters as soon as he fits, one after the other."""
    limit, window = 100, SlidingSum(10.0, 100)
    for tenth, amount in sorted(amounts):
        at = tenth / 10 + 0.05
        if window.total(at) + amount <= limit:
            window.add(amount, at)
    now = 10.0
    *ahead, last = queue
    told = window.fits(last, limit, now, sum(ahead))
    assert told is not None
    for amount in queue:
        at = window.falls_to(limit - amount, now)
        assert at is not None
        now = at
        window.add(amount, now)
    if sum(queue) <= limit:
        assert told == pytest.approx(now, abs=ROUNDING_S)
    else:  # Who is ahead can't be split: the gap before one that is large is lost to all behind.
        assert told <= now + 0.1 * (1 + sum(queue) // limit)


def test_what_exceeds_the_limit_never_fits_and_what_exceeds_it_with_others_takes_rounds() -> None:
    window = SlidingSum(60.0, 600)
    window.add(100, 0.05)
    assert window.fits(101, 100, 1.0) is None
    assert window.fits(101, 100, 1.0, 50) is None
    assert window.fits(50, 100, 1.0, 50) == pytest.approx(60.1, abs=0.2)
    assert window.fits(50, 100, 1.0, 51) == pytest.approx(120.2, abs=0.3)
    assert window.fits(100, 100, 1.0, 300) == pytest.approx(240.4, abs=0.5)
