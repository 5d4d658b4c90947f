from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from actors.messages import LeaseId
from actors.policy.bookings import MOST, TOLD_APART, Booking, Bookings
from actors.policy.headroom import NOBODY, Ahead

EAST, WEST = ("east", ""), ("west", "gpt-4")
FIRST, RANK, LAST = (1, True), (100, True), (100_000, True)


def booking(
    tokens: int,
    *,
    limit: tuple[str, str] = EAST,
    rank: tuple[int, bool] = RANK,
    until: float = 10.0,
) -> Booking:
    return Booking(limit, rank, tokens, 0.0, until)


def test_who_waits_for_a_limit_is_ahead_of_whoever_comes_later_with_no_earlier_rank() -> None:
    bookings = Bookings()
    bookings.book(LeaseId(1), booking(10))
    bookings.book(LeaseId(2), booking(20))
    bookings.book(LeaseId(3), booking(300, rank=FIRST))
    assert bookings.ahead(EAST, RANK) == Ahead(330, 3)
    assert bookings.ahead(EAST, FIRST) == Ahead(300, 1)
    assert bookings.ahead(EAST, (100, False)) == Ahead(300, 1), "who comes back goes before"
    assert bookings.ahead(EAST, LAST) == Ahead(330, 3)
    assert bookings.ahead(WEST, LAST) == NOBODY


def test_waits_that_were_longer_than_expected_make_the_next_forecasts_longer() -> None:
    bookings = Bookings()
    for number in range(300):
        expected = bookings.stretched(10.0, 0.0)
        bookings.book(LeaseId(number), booking(1, until=expected))
        bookings.ended(LeaseId(number), 12.0)
    assert 11.9 <= bookings.stretched(10.0, 0.0) <= 12.5
    assert 111.9 <= bookings.stretched(110.0, 100.0) <= 112.5


@pytest.mark.parametrize("wait_s", [0.0, 5.0])
def test_waits_that_were_shorter_never_make_forecasts_too_early(wait_s: float) -> None:
    bookings = Bookings()
    for number in range(100):
        bookings.book(LeaseId(number), booking(1))
        bookings.ended(LeaseId(number), wait_s)
    assert bookings.stretch == 1.0


def test_an_outage_is_not_taken_for_a_bad_forecast() -> None:
    bookings = Bookings()
    for number in range(1000):
        bookings.book(LeaseId(number), booking(1, until=1.0))
        bookings.ended(LeaseId(number), 3600.0)
    assert bookings.stretch <= MOST


def test_priorities_that_are_too_many_to_tell_apart_count_as_no_later_than_they_are() -> None:
    bookings = Bookings()
    for number in range(1000):
        bookings.book(LeaseId(number), booking(1, rank=(1_000_000 - number, True)))
    bookings.book(LeaseId(1000), booking(100))
    assert bookings.ahead(EAST, RANK) == Ahead(100, 1)
    assert bookings.ahead(EAST, (63, True)) == NOBODY
    assert bookings.ahead(EAST, (1_000_000, True)) == Ahead(1100, 1001)
    assert len(bookings._ahead[EAST]) <= TOLD_APART + 2 * 20
    for number in range(1001):
        bookings.release(LeaseId(number))
    assert bookings._ahead == {}


class BookingsMachine(RuleBasedStateMachine):
    """Against a plain list of everybody who waits."""

    def __init__(self) -> None:
        super().__init__()
        self.bookings = Bookings()
        self.waiting: dict[int, Booking] = {}
        self.next = 0

    @rule(
        limit=st.sampled_from([EAST, WEST]),
        priority=st.integers(0, 3),
        fresh=st.booleans(),
        tokens=st.integers(0, 1000),
    )
    def join(self, limit: tuple[str, str], priority: int, fresh: bool, tokens: int) -> None:
        self.waiting[self.next] = booking(tokens, limit=limit, rank=(priority, fresh))
        self.bookings.book(LeaseId(self.next), self.waiting[self.next])
        self.next += 1

    @rule(data=st.data(), served=st.booleans())
    def leave(self, data: st.DataObject, served: bool) -> None:
        number = data.draw(st.integers(0, self.next))
        self.waiting.pop(number, None)
        if served:
            self.bookings.ended(LeaseId(number), 1.0)
        else:
            self.bookings.release(LeaseId(number))

    @invariant()
    def what_is_ahead_is_what_waits(self) -> None:
        for limit in (EAST, WEST):
            for rank in ((0, False), (1, True), (2, False), (9, True)):
                before = [b for b in self.waiting.values() if b.limit == limit and b.rank <= rank]
                expected = Ahead(sum(each.tokens for each in before), len(before))
                assert self.bookings.ahead(limit, rank) == expected


TestBookings = BookingsMachine.TestCase
