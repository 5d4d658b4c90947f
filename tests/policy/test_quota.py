"""A model's limit at an upstream, as its answers and refusals show it."""

from __future__ import annotations

import random
from bisect import insort

import pytest
from hypothesis import given
from hypothesis import strategies as st
from limit_told import lease, says

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
)
from actors.policy.quota import Quota


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


def test_a_refusal_within_the_plain_count_says_nothing_of_the_ratio() -> None:
    quota, now = Quota(), 0
    for now in range(200):
        quota.reserve(lease(now), 10, now)
        quota.settle(lease(now), 5, "estimate", says(1500, 1500 - min(now + 1, 60) * 5), now)
    quota.reserve(lease(1000), 10, now)
    quota.refused(lease(1000), now)
    assert quota.ratio.value() < 0.6
