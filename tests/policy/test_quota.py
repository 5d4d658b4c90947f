from __future__ import annotations

import random
from bisect import insort

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.messages import Evidence, LeaseId
from actors.policy.account import ChargeRule
from actors.policy.learning import (
    FRESH_S,
    HOLD_S,
    HOLDS,
    PERIOD_S,
    SLIGHT_S,
    WEAR_S,
    CountRatio,
    LearnedLimit,
    OthersUse,
)
from actors.policy.pace import Pace
from actors.policy.quota import Quota


def lease(number: int) -> LeaseId:
    return LeaseId(number)


def says(limit: int, remaining: int) -> Evidence:
    return Evidence(limit_tokens=limit, remaining_tokens=remaining)


def test_a_seen_limit_replaces_the_configured_one_while_it_is_fresh() -> None:
    limit = LearnedLimit(1000)
    limit.observe(700, 0)
    assert (limit.value(FRESH_S), limit.value(FRESH_S + 1)) == (700, 1000)
    limit.observe(2000, 400)
    assert limit.value(400) == 2000


def test_a_reduction_wears_off_steadily() -> None:
    limit = LearnedLimit(1000)
    limit.reduce(800, 0)
    values = [limit.value(WEAR_S * share) for share in (0, 0.25, 0.5, 0.75, 1)]
    assert values == [800, 850, 900, 900, 900], "the last tenth as if it had been slight"
    assert limit.value(SLIGHT_S) == 1000


def test_a_slight_reduction_stands_for_a_while_first() -> None:
    limit = LearnedLimit(1000)
    limit.reduce(960, 0)
    values = [limit.value(SLIGHT_S * share) for share in (0, 0.25, 0.5, 0.75, 1, 2)]
    assert values == [960, 960, 960, 980, 1000, 1000]


def test_a_reduction_is_bounded_and_never_raises() -> None:
    limit = LearnedLimit(1000)
    limit.reduce(3, 0)
    assert limit.value(0) == 500
    limit.reduce(900, 1)
    assert (limit.value(1) or 0) < 510, "a milder refusal later on is no reason to send more"


@given(
    st.lists(st.integers(1, 1200), min_size=1, max_size=4),
    st.lists(st.floats(0, 700), min_size=1, max_size=10),
)
def test_of_a_deeper_reduction_no_less_is_left_at_any_time(
    levels: list[int], times: list[float]
) -> None:
    limits = [LearnedLimit(1000) for _ in levels]
    for limit, to in zip(limits, sorted(levels), strict=True):
        limit.reduce(to, 0)
    for now in times:
        values = [limit.value(now) or 0 for limit in limits]
        assert values == sorted(values)


@given(
    st.lists(st.tuples(st.floats(0, 400), st.integers(-100, 1500)), min_size=1, max_size=10),
    st.integers(1, 1000),
)
def test_a_reduced_limit_tells_when_it_reaches_an_amount(
    refusals: list[tuple[float, int]], tokens: int
) -> None:
    limit, now = LearnedLimit(1000), 0.0
    for pause, to in refusals:
        now += pause
        before = limit.value(now)
        limit.reduce(to, now)
        assert (limit.value(now) or 0) <= (before or 0)
    at = limit.reaches(tokens, now)
    assert now <= at <= now + SLIGHT_S
    assert (limit.value(at + 1e-6) or 0) >= tokens
    assert at == now or (limit.value(at - 1) or 0) < tokens


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


def test_an_upstream_that_gives_back_is_found_out_after_a_whole_period() -> None:
    quota = Quota()
    now = 0.0
    for number in range(200):
        now = number * 1.0
        free = quota.free(now)
        if free is not None and free < 20:
            continue
        quota.reserve(lease(number), 20, now)
        # It counts a quarter of what we reserve, over the same minute.
        quota.settle(lease(number), 5, "estimate", says(1200, 1200 - min(number + 1, 60) * 5), now)
    assert now > 2 * PERIOD_S
    assert quota.ratio.value() == pytest.approx(0.25 * 1.05, rel=0.1)
    free = quota.free(now)
    assert free is not None
    assert free > 800


def test_a_limiter_that_counts_what_was_used_is_filled_to_the_brim() -> None:
    """It gives back less than the margin of a mere ratio, and forgets at the end of a call."""
    quota, now, number = Quota(), 0.0, 0
    counts: list[tuple[float, int]] = []
    under_way: list[tuple[float, int]] = []
    highest: list[int] = []
    while now < 600:
        while under_way and under_way[0][0] + 1 <= now:
            _, ended = under_way.pop(0)
            theirs = sum(amount for at, amount in counts if at > now - 60)
            counts.append((now, 37))
            assert theirs + 37 <= 2000
            quota.settle(lease(ended), 37, "estimate", None, now)
            highest.append(theirs + 37)
        free = quota.free(now)
        if free is None or free >= 40:
            number += 1
            quota.reserve(lease(number), 40, now)
            under_way.append((now, number))
            theirs = sum(amount for at, amount in counts if at > now - 60)
            quota.observe(lease(number), says(2000, 2000 - theirs), now)
        now += 0.25
    assert quota.ended_ratio.of_used() is not None
    assert max(highest[-200:]) >= 0.97 * 2000


def test_a_limiter_that_corrects_what_it_counted_on_arrival_is_followed() -> None:
    """Also where calls are long: what they used leaves its minute with their beginning."""
    quota, call_s = Quota(), 20
    for now in range(400):
        quota.reserve(lease(now), 20, now)
        ended = max(0, min(now + 1, 60) - call_s)
        theirs = 10 * ended + 20 * (min(now + 1, 60) - ended)
        quota.observe(lease(now), says(1500, 1500 - theirs), now)
        if now >= call_s:
            quota.settle(lease(now - call_s), 10, "estimate", None, now)
    assert 800 <= quota.counted(399.0) <= 820, "half of each call that has ended"


def test_a_limiter_that_counts_from_the_end_of_calls_is_followed() -> None:
    """Once calls stop for a while, their beginnings have left the minute before their ends."""
    quota, call_s = Quota(), 20
    ended: list[tuple[int, int]] = []
    for now in range(236):
        quiet = 100 <= now < 140
        quota.reserve(lease(now), 4 if quiet else 20, now)
        theirs = sum(used for at, used in ended if at > now - 60)
        quota.observe(lease(now), says(1500, 1500 - theirs), now)
        if quiet:
            quota.settle(lease(now), 4, "estimate", None, now)
            ended.append((now, 4))
        if now >= call_s and not 100 <= now - call_s < 140:
            quota.settle(lease(now - call_s), 10, "estimate", None, now)
            ended.append((now, 10))
    assert quota.used_ratio.of_used() is None
    assert 1000 <= quota.counted(235.0) <= 1025, "half of each, but for those under way"


@pytest.mark.parametrize("seed", range(4))
def test_a_minute_that_resets_is_never_overrun_where_requests_are_few(seed: int) -> None:
    """A dozen requests fill it, and its count is hardly ever seen where it is next to ours."""
    rng, quota = random.Random(seed), Quota()
    now, number, minute, count = 0.0, 0, 0, 0
    answers: list[tuple[float, int, int, int]] = []
    while now < 1800:
        now += rng.expovariate(1 / 3)
        while answers and answers[0][0] <= now:
            at, answered, tokens, theirs = answers.pop(0)
            shown = says(30_000, 30_000 - theirs)
            quota.settle(lease(answered), int(0.9 * tokens), "estimate", shown, at)
        tokens = rng.randint(1500, 3000)
        free = quota.free(now)
        if free is not None and free < tokens:
            continue
        if now // 60 != minute:
            minute, count = int(now // 60), 0
        count += tokens
        assert count <= 30_000
        number += 1
        quota.reserve(lease(number), tokens, now)
        insort(answers, (now + rng.uniform(0.3, 3), number, tokens, count))
    assert quota.ended_ratio.known


def test_a_limiter_that_keeps_what_was_reserved_is_not_taken_for_one_that_gives_back() -> None:
    quota = Quota()
    for number in range(300):
        quota.reserve(lease(number), 10, number * 1.0)
        evidence = says(700, 700 - 10 * min(number + 1, 60))
        quota.settle(lease(number), 7, "estimate", evidence, number + 0.5)
    assert quota.used_ratio.of_used() is quota.ended_ratio.of_used() is None
    assert quota.counted(300.0) >= 590


def test_a_reset_each_minute_is_not_taken_for_giving_back() -> None:
    ratio = CountRatio()
    for second in range(300):
        # Ours slides; theirs starts from nothing at each minute, and is near ours before it.
        ratio.observe((second % 60) * 16.0, 960.0, 1000, float(second))
    assert ratio.value() == 1.0


def test_a_ratio_that_rises_counts_at_once() -> None:
    ratio = CountRatio()
    for second in range(200):
        ratio.observe(250, 1000, 1000, float(second))
    assert ratio.value() < 0.3
    ratio.observe(900, 1000, 1000, 200.0)
    assert ratio.value() >= 0.9


def test_small_counts_teach_nothing() -> None:
    ratio = CountRatio()
    for second in range(200):
        ratio.observe(1, 100, 1000, float(second))
    assert ratio.value() == 1.0


def test_a_refusal_lowers_the_limit_to_what_was_counted() -> None:
    quota = Quota(1000)
    quota.reserve(lease(1), 700, 0)
    quota.settle(lease(1), 700, "estimate", None, 0)
    quota.reserve(lease(2), 100, 0)
    quota.refused(lease(2), 0)
    quota.settle(lease(2), 0, "estimate", None, 0)
    assert quota.limit.value(0) == 700
    assert quota.free(SLIGHT_S) == 1000


def test_what_a_refusal_has_left_too_little_for_waits_until_that_has_worn_off() -> None:
    quota = Quota(1000)
    quota.reserve(lease(1), 200, 0)
    quota.refused(lease(1), 0)
    quota.settle(lease(1), 0, "actual", None, 0)
    at = quota.earliest(800, 0)
    assert at is not None
    assert at == pytest.approx(WEAR_S * 0.6)
    assert quota.earliest(1001, 0) is None


@pytest.mark.parametrize("rule", ["estimate", "actual"])
def test_a_refusal_lowers_the_limit_alike_whatever_it_is_itself_charged(rule: ChargeRule) -> None:
    quota = Quota(1000)
    quota.reserve(lease(1), 700, 0)
    quota.reserve(lease(2), 150, 0)
    quota.refused(lease(2), 0)
    quota.settle(lease(2), 0, rule, None, 0)
    assert quota.limit.value(0) == 700


def test_a_refusal_that_a_ratio_has_brought_about_ends_it() -> None:
    quota, now = Quota(), 0
    for now in range(200):  # headers that lag behind show a third of what is counted
        quota.reserve(lease(now), 20, now)
        count = min(now + 1, 60) * 20
        quota.settle(lease(now), 20, "estimate", says(1500, 1500 - count // 3), now)
    assert quota.counted(now) < 600
    quota.reserve(lease(1000), 700, now)
    quota.refused(lease(1000), now)
    quota.settle(lease(1000), 0, "estimate", None, now)
    assert quota.counted(now) >= 1900
    assert quota.ratio.value() == 1.0


def test_a_refusal_within_the_plain_count_says_nothing_of_the_ratio() -> None:
    quota, now = Quota(), 0
    for now in range(200):
        quota.reserve(lease(now), 10, now)
        quota.settle(lease(now), 5, "estimate", says(1500, 1500 - min(now + 1, 60) * 5), now)
    quota.reserve(lease(1000), 10, now)
    quota.refused(lease(1000), now)
    assert quota.ratio.value() < 0.6


@pytest.mark.parametrize(
    ("limit", "at_once", "in_ten_seconds"), [(600, 10, 100), (6, 1, 1), (90, 2, 15)]
)
def test_requests_are_paced_within_the_minute(
    limit: int, at_once: int, in_ten_seconds: int
) -> None:
    pace = Pace()
    pace.limit.observe(limit, 0)
    sent: list[float] = []
    now = 0.0
    while now < 10:
        if pace.free(now):
            pace.count(now)
            sent.append(now)
        else:
            now = max(pace.earliest(now), now + 1e-6)
    assert len([at for at in sent if at < 1]) == at_once
    assert len(sent) == in_ten_seconds


@pytest.mark.parametrize(
    ("remaining", "at_once"),
    [
        pytest.param(126, 2, id="seven tenths of three, in whole requests"),
        pytest.param(178, 3, id="others who send next to nothing do not slow it"),
    ],
)
def test_what_others_send_is_left_out_of_the_pace_within_the_minute_too(
    remaining: int, at_once: int
) -> None:
    pace = Pace()
    pace.limit.observe(180, 0)
    pace.observe_remaining(remaining, 0, 0)
    sent = 0
    while pace.free(0):
        pace.count(0)
        sent += 1
    assert sent == at_once
    assert pace.free(1.1)


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


def test_a_refusal_for_requests_slows_the_pace_for_a_while() -> None:
    pace = Pace()
    pace.limit.observe(600, 0)
    for _ in range(9):
        pace.count(0)
    assert pace.free(0)
    pace.refused(0)
    assert not pace.free(0)
    assert pace.free(WEAR_S)


def test_a_quota_restores_what_it_exported_aged() -> None:
    quota = Quota()
    quota.reserve(lease(1), 400, 0)
    quota.settle(lease(1), 400, "estimate", Evidence(1000, 500, 60, 59), 0)
    restored = Quota()
    restored.restore(quota.export(10), 20, 500)
    assert restored.free(500) == 500
    assert restored.free(500 + 32) == 900, "what others take they go on to take"
    assert restored.free(500 + 81) == 1000
    assert restored.pace.limit.value(500) == 60


def test_a_limit_is_believed_no_longer_for_having_been_saved() -> None:
    quota = Quota(1000)
    quota.limit.observe(100, 0)
    quota.pace.limit.observe(7, 0)
    for older_s, value in ((0, 100), (150, 100), (300, 1000), (7 * 86_400, 1000)):
        restored = Quota(1000)
        restored.restore(quota.export(100), older_s, 10**6)
        assert restored.limit.value(10**6) == value
        assert restored.pace.limit.value(10**6) == (7 if value == 100 else None)
    restored = Quota(1000)
    restored.restore(quota.export(100), 100, 10**6)
    assert restored.limit.value(10**6 + 101) == 1000, "as without a restart"


def test_what_others_took_is_not_kept_free_for_longer_than_without_a_restart() -> None:
    quota = Quota(1000)
    quota.others.observe(50, 0)
    quota.pace.others.observe(5, 0)
    for older_s, tokens, requests in ((60, 50, 5), (90, 0, 0)):
        restored = Quota(1000)
        restored.restore(quota.export(0), older_s, 5000)
        assert restored.others.value(5000) == tokens
        assert restored.pace.others.value(5000) == requests


def test_a_reduction_and_what_was_found_of_its_count_outlive_a_restart() -> None:
    quota, now = Quota(2000), 0
    for now in range(200):
        quota.reserve(lease(now), 10, now)
        quota.settle(lease(now), 5, "estimate", says(1500, 1500 - min(now + 1, 60) * 5), now)
    quota.reserve(lease(1000), 10, now)
    quota.refused(lease(1000), now)
    quota.settle(lease(1000), 0, "estimate", None, now)
    quota.limit.observe(1500, now)
    restored = Quota(2000)
    restored.restore(quota.export(now), 30, now + 30)
    assert restored.limit.value(now + 30) == quota.limit.value(now + 30)
    assert restored.counted(now + 30) == pytest.approx(quota.counted(now + 30), abs=10)
    assert restored.ratio.value() == pytest.approx(quota.ratio.value(), abs=0.001)
    assert restored.growth.value() == quota.growth.value()


@pytest.mark.parametrize(
    "saved",
    [
        {},
        {"limit_tokens": "x", "charge": 3, "requests": [[1]], "others_tokens": "9"},
        {"limit_tokens": {"told": 10**400, "told_s": 1}, "others_tokens": 10**400},
        {"limit_tokens": {"told": 1000, "told_s": 10**400}, "limit_requests": {"told": 1}},
        {"limit_tokens": {"reduced": True, "reduced_s": 1.0}, "ratios": [1]},
        {"ratios": {"charge": 10**400, "used": "x", "ended": -1.0}, "growth": 10**400},
    ],
)
def test_a_damaged_export_is_ignored(saved: dict[str, object]) -> None:
    quota = Quota()
    quota.restore(saved, 0, 0)
    assert quota.free(0) is None


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
    st.lists(
        st.tuples(
            st.floats(0, 20), st.integers(0, 300), st.integers(0, 1200), st.integers(1, 1200)
        ),
        max_size=60,
    )
)
def test_whatever_the_headers_say_the_count_stays_sane(
    steps: list[tuple[float, int, int, int]],
) -> None:
    quota = Quota()
    now = 0.0
    for number, (pause, tokens, remaining, limit) in enumerate(steps):
        now += pause
        quota.reserve(lease(number), tokens, now)
        quota.settle(lease(number), tokens // 2, "actual", says(limit, remaining), now)
        assert quota.counted(now) >= 0
        free = quota.free(now)
        assert free is not None
        at = quota.earliest(min(50, limit // 2), now)
        assert at is not None
        assert now <= at <= now + HOLDS * HOLD_S


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


def test_requests_of_others_slow_the_pace() -> None:
    quota = Quota()
    quota.reserve(lease(1), 10, 0)
    quota.settle(lease(1), 10, "estimate", Evidence(limit_requests=600, remaining_requests=599), 1)
    assert quota.pace.free(2)
    quota.reserve(lease(2), 10, 2)
    quota.settle(lease(2), 10, "estimate", Evidence(limit_requests=600, remaining_requests=0), 3)
    assert not quota.pace.free(4)
