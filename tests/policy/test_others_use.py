"""What others take of an upstream's limit, as far as it can be told."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from limit_told import lease, says

from actors.messages import Evidence
from actors.policy.learning import HOLD_S, HOLDS, OthersUse
from actors.policy.pace import Pace
from actors.policy.quota import Quota


def test_nothing_is_limited_until_the_upstream_tells() -> None:
    quota = Quota()
    quota.reserve(lease(1), 10**9, 0)
    assert quota.free(0) is None
    assert quota.pace.free(0)


def test_others_use_counts_at_once_and_until_a_minute_has_shown_less() -> None:
    quota = Quota()
    quota.reserve(lease(1), 100, 0)
    quota.settle(lease(1), 100, "estimate", says(1000, 600), 1)
    assert quota.free(1) == 600
    assert quota.free(62) == 700, "whoever takes 300 each minute is about to do it again"
    assert quota.free(81) == 1000


def test_a_share_that_others_take_in_every_minute_is_never_taken_for_free() -> None:
    quota, now, number = Quota(), 0.0, 0
    sent: list[tuple[float, int]] = []
    while now < 600:
        free = quota.free(now)
        tokens = 20
        while free is None or free >= tokens:
            number += 1
            quota.reserve(lease(number), tokens, now)
            sent.append((now, tokens))
            ours = sum(amount for at, amount in sent if at > now - 60)
            quota.settle(lease(number), tokens, "estimate", says(1000, 700 - ours), now)
            assert ours <= 700
            free = quota.free(now)
        now += 0.5
    assert sum(amount for at, amount in sent if at > 540) >= 640, "and what they leave is used"


def test_others_need_not_leave_room_for_a_time_to_be_told() -> None:
    quota = Quota()
    quota.reserve(lease(1), 100, 0)
    quota.settle(lease(1), 100, "estimate", says(1000, 0), 1)
    for ahead in (0, 500):
        at = quota.earliest(400, 1, ahead)
        assert at is not None
        assert 60 <= at <= 180


def test_one_difference_told_by_many_answers_is_charged_once() -> None:
    quota = Quota()
    quota.limit.observe(1000, 0)
    for number in range(3):
        quota.reserve(lease(number), 100, 0)
    # Somebody else's 300 were there before any of them.
    for number, remaining in enumerate((600, 500, 400)):
        quota.settle(lease(number), 100, "estimate", says(1000, remaining), 1)
    assert quota.free(1) == 400


def test_requests_of_ours_that_overtake_each_other_are_not_others_use() -> None:
    quota = Quota()
    for number in range(14):
        quota.reserve(lease(number), 50, 0)
    for number in reversed(range(14)):  # the first that was reserved is the last to arrive
        arrived = 14 - number
        counted = Evidence(1000, 1000 - 50 * arrived, 600, 600 - arrived)
        quota.settle(lease(number), 50, "estimate", counted, 1)
    assert quota.free(1) == 300
    assert quota.pace.others.value(1) == 0


def test_others_are_seen_as_soon_as_our_own_can_not_be_all_of_it() -> None:
    quota = Quota()
    quota.reserve(lease(1), 100, 0)
    quota.reserve(lease(2), 100, 0)
    quota.settle(lease(1), 100, "estimate", says(1000, 500), 1)
    assert quota.others.value(1) == 300, "200 are ours, in whatever order they came"
    quota.settle(lease(2), 100, "estimate", says(1000, 400), 1)
    assert quota.others.value(1) == 400


def test_what_remains_above_our_view_does_not_raise_it_by_itself() -> None:
    quota = Quota()
    quota.reserve(lease(1), 800, 0)
    quota.settle(lease(1), 100, "estimate", says(1000, 900), 1)
    assert quota.free(1) == 200


def test_requests_of_ours_that_leave_the_minute_before_an_answer_comes_are_not_others_use() -> None:
    quota = Quota()
    for number in range(60):
        quota.reserve(lease(number), 1, number)
    counted = Evidence(limit_requests=60, remaining_requests=0)
    quota.settle(lease(59), 1, "estimate", counted, 65)
    assert quota.pace.others.value(65) == 0


def test_others_who_send_all_that_there_is_leave_a_request_to_find_out_with() -> None:
    pace = Pace()
    pace.limit.observe(60, 0)
    pace.observe_remaining(0, 0, 0)
    assert pace.free(0)
    pace.count(0)
    assert pace.earliest(1) >= 60


@given(
    st.lists(st.tuples(st.floats(0, 40), st.integers(-50, 500)), min_size=1, max_size=40),
)
def test_others_use_tells_when_it_will_be_forgotten(steps: list[tuple[float, int]]) -> None:
    others, now = OthersUse(), 1000.0
    for pause, excess in steps:
        now += pause
        others.observe(excess, now)
    for most in (499, 100, 0):
        at = others.falls_to(most, now)
        assert at == now or others.value(at - 0.001) > most
        assert others.value(at) <= most
        now = at


def test_where_others_leave_too_little_nobody_asks_again_at_once() -> None:
    quota = Quota()
    quota.reserve(lease(1), 1, 0)
    quota.settle(lease(1), 1, "estimate", says(1000, 0), 0)
    at = quota.earliest(400, 65)
    assert at == HOLDS * HOLD_S
    free = quota.free(at)
    assert free is not None
    assert free >= 400


@given(
    st.lists(st.tuples(st.floats(0, 40), st.integers(-50, 500)), min_size=1, max_size=40),
)
def test_others_use_is_the_most_of_the_last_minute_and_a_little_more(
    steps: list[tuple[float, int]],
) -> None:
    others, now = OthersUse(), 1000.0
    seen: list[tuple[float, int]] = []
    for pause, excess in steps:
        now += pause
        others.observe(excess, now)
        seen.append((now, excess))
        surely = [amount for at, amount in seen if now - at < (HOLDS - 1) * HOLD_S]
        perhaps = [amount for at, amount in seen if now - at <= HOLDS * HOLD_S]
        assert max(0, *surely, 0) <= others.value(now) <= max(0, *perhaps, 0)
