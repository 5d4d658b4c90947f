from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.messages import Evidence, LeaseId
from actors.policy.learning import FRESH_S, PERIOD_S, WEAR_S, CountRatio, LearnedLimit
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
    assert values == [800, 850, 900, 950, 1000]


def test_a_reduction_is_bounded_and_never_raises() -> None:
    limit = LearnedLimit(1000)
    limit.reduce(3, 0)
    assert limit.value(0) == 500
    limit.reduce(5000, 0)
    assert limit.value(0) == 1000


def test_nothing_is_limited_until_the_upstream_tells() -> None:
    quota = Quota()
    quota.reserve(lease(1), 10**9, 0)
    assert quota.free(0) is None
    assert quota.pace.free(0)


def test_others_use_is_charged_at_once_and_leaves_with_the_minute() -> None:
    quota = Quota()
    quota.reserve(lease(1), 100, 0)
    quota.settle(lease(1), 100, "estimate", says(1000, 600), 1)
    assert quota.free(1) == 600
    assert quota.free(62) == 1000


def test_one_difference_told_by_many_answers_is_charged_once() -> None:
    quota = Quota()
    quota.limit.observe(1000, 0)
    for number in range(3):
        quota.reserve(lease(number), 100, 0)
    # Somebody else's 300 were there before any of them.
    for number, remaining in enumerate((600, 500, 400)):
        quota.settle(lease(number), 100, "estimate", says(1000, remaining), 1)
    assert quota.free(1) == 400


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
    quota = Quota()
    quota.limit.observe(1000, 0)
    quota.reserve(lease(1), 700, 0)
    quota.refused(0)
    assert quota.free(0) == 0
    assert quota.free(WEAR_S) == 1000


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


def test_others_requests_count_like_ours() -> None:
    pace = Pace()
    pace.limit.observe(100, 0)
    pace.count(0)
    pace.observe_remaining(0, 0)
    assert not pace.free(1)
    assert pace.earliest(1) >= 60


def test_a_quota_restores_what_it_exported_aged() -> None:
    quota = Quota()
    quota.reserve(lease(1), 400, 0)
    quota.settle(lease(1), 400, "estimate", Evidence(1000, 600, 60, 59), 0)
    restored = Quota()
    restored.restore(quota.export(10), 20, 500)
    assert restored.free(500) == 600
    assert restored.free(500 + 31) == 1000
    assert restored.pace.limit.value(500) == 60


@pytest.mark.parametrize("saved", [{}, {"limit_tokens": "x", "charge": 3, "requests": [[1]]}])
def test_a_damaged_export_is_ignored(saved: dict[str, object]) -> None:
    quota = Quota()
    quota.restore(saved, 0, 0)
    assert quota.free(0) is None


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
        assert now <= at <= now + 60.2
