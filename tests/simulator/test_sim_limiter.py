"""What the limiter lets through, and what it says about it."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.simulator.deployment import provisioned_limits
from proxy.simulator.limiter import Limiter, Limits, Refused, Ticket, WindowKind
from proxy.simulator.steps import Steps


def limiter(**changes: Any) -> Limiter:
    return Limiter(Limits(**{"tpm": 1000, "rpm": 0, **changes}))


def admitted(verdict: Ticket | Refused) -> Ticket:
    assert isinstance(verdict, Ticket)
    return verdict


def refused(verdict: Ticket | Refused) -> Refused:
    assert isinstance(verdict, Refused)
    return verdict


def test_the_estimate_is_charged_for_good() -> None:
    one = limiter()
    ticket = admitted(one.admit(0, 100, 500))
    one.settle(1, ticket, 100, 20)
    assert one.standing(2).tokens.remaining == 400
    assert one.tally().charged_tokens == 600
    assert one.tally().served_tokens == 120


def test_the_estimate_is_corrected_when_the_call_ends() -> None:
    one = limiter(charging="corrected", window="sliding")
    ticket = admitted(one.admit(0, 100, 500))
    assert one.standing(1).tokens.remaining == 400
    one.settle(1, ticket, 100, 20)
    assert one.standing(1).tokens.remaining == 880


def test_only_what_was_used_counts_and_only_from_the_end() -> None:
    one = limiter(charging="actual", window="sliding")
    ticket = admitted(one.admit(0, 100, 5000))
    assert one.standing(30).tokens.remaining == 1000
    one.settle(30, ticket, 100, 20)
    assert one.standing(89).tokens.remaining == 880
    assert one.standing(90).tokens.remaining == 1000


def test_actual_counting_refuses_once_there_is_no_room_at_all() -> None:
    one = limiter(charging="actual")
    one.settle(1, admitted(one.admit(0, 0, 0)), 900, 200)
    assert refused(one.admit(2, 1, 1)).tripped == "tokens"


def test_settling_twice_counts_once() -> None:
    one = limiter(charging="corrected")
    ticket = admitted(one.admit(0, 100, 0))
    one.settle(1, ticket, 100, 0)
    one.settle(2, ticket, 500, 500)
    assert one.tally().settled == 1
    assert one.standing(2).tokens.remaining == 900


@pytest.mark.parametrize(
    ("window", "wait_s"), [("minute", 42.0), ("sliding", 50.0), ("bucket", 26.0)]
)
def test_a_refusal_says_when_there_is_room(window: WindowKind, wait_s: float) -> None:
    one = limiter(window=window, phase_s=52.0)
    admitted(one.admit(0, 900, 0))
    verdict = refused(one.admit(10, 0, 700))
    assert verdict == Refused("tokens", pytest.approx(wait_s), too_large=False)
    admitted(one.admit(10 + wait_s, 0, 700))


def test_a_call_larger_than_the_limit_is_told_to_wait_a_minute() -> None:
    verdict = refused(limiter().admit(0, 1001, 0))
    assert verdict.too_large
    assert verdict.wait_s == 60


def test_requests_are_limited_by_the_minute() -> None:
    one = limiter(rpm=3)
    for second in range(3):
        admitted(one.admit(second, 1, 0))
    assert refused(one.admit(3, 1, 0)) == Refused("requests", 57, too_large=False)


def test_requests_are_paced_within_the_minute() -> None:
    one = limiter(rpm=600, pacing_s=1.0)
    for _ in range(10):
        admitted(one.admit(0.2, 1, 0))
    verdict = refused(one.admit(0.5, 1, 0))
    assert verdict.tripped == "requests"
    assert verdict.wait_s == pytest.approx(0.5)
    admitted(one.admit(1.0, 1, 0))


def test_pacing_lets_at_least_one_request_into_each_sub_window() -> None:
    one = limiter(rpm=6, pacing_s=1.0)
    admitted(one.admit(0, 1, 0))
    refused(one.admit(0.5, 1, 0))
    admitted(one.admit(1, 1, 0))


@pytest.mark.parametrize(
    ("counts", "remaining_requests", "remaining_tokens"),
    [("none", 4, 100), ("requests", 3, 100), ("all", 3, 0)],
)
def test_what_a_refused_call_counts(
    counts: str, remaining_requests: int, remaining_tokens: int
) -> None:
    one = limiter(rpm=5, counts_refused=counts)
    admitted(one.admit(0, 900, 0))
    refused(one.admit(1, 500, 0))
    standing = one.standing(2)
    assert (standing.requests.remaining, standing.tokens.remaining) == (
        remaining_requests,
        remaining_tokens,
    )


def test_requests_per_minute_follow_from_the_ratio_unless_given() -> None:
    assert Limits(tpm=10_000).requests_per_min == 60
    assert Limits(tpm=10_000, rpm_per_1000_tpm=1).requests_per_min == 10
    assert Limits(tpm=10_000, rpm=7).requests_per_min == 7
    assert Limits(tpm=10).requests_per_min == 1


def test_a_dip_lowers_the_limit_for_its_time() -> None:
    dip = Steps(1.0, ((100, 0.5), (200, 1.0)))
    one = Limiter(Limits(tpm=1000, rpm=0, effective=dip), origin_s=1000)
    assert [one.standing(at).tokens.limit for at in (1000, 1099, 1100, 1199, 1200)] == [
        1000,
        1000,
        500,
        500,
        1000,
    ]
    refused(one.admit(1200 - 50, 501, 0))
    admitted(one.admit(1200, 501, 0))


def test_a_stranger_takes_a_share_but_the_limit_looks_the_same() -> None:
    one = limiter(rpm=10, stranger=Steps(0.3))
    standing = one.standing(0)
    assert standing.tokens.limit == 1000
    assert standing.tokens.remaining == 700
    assert standing.requests.remaining == 7
    refused(one.admit(0, 701, 0))
    admitted(one.admit(0, 700, 0))


def test_hints_of_a_fast_clock_are_too_short() -> None:
    one = limiter(clock_skew_s=5.0)
    admitted(one.admit(10, 1000, 0))
    assert refused(one.admit(20, 1, 0)).wait_s == 35
    assert refused(one.admit(58, 1, 0)).wait_s == 0


def test_imprecision_moves_the_limit_a_little_either_way() -> None:
    verdicts = []
    for seed in range(40):
        one = Limiter(Limits(tpm=1000, rpm=0, imprecision=0.1), rng=random.Random(seed))
        verdicts.append(isinstance(one.admit(0, 1000, 0), Ticket))
        assert isinstance(one.admit(0, 1101, 0), Refused)
    assert {True, False} == set(verdicts)


def test_a_provisioned_deployment_overshoots_once_and_drains() -> None:
    one = Limiter(provisioned_limits(600, output_weight=4))
    first = admitted(one.admit(0, 100, 100))
    second = admitted(one.admit(0, 100, 100))
    assert one.standing(0).utilisation == pytest.approx(1000 / 600)
    verdict = refused(one.admit(0, 1, 1))
    assert verdict.wait_s == pytest.approx(40.1)
    one.settle(10, first, 100, 25)
    one.settle(10, second, 100, 25)
    assert one.standing(10).utilisation == pytest.approx(300 / 600)
    admitted(one.admit(10, 1, 1))


def test_cached_input_is_free_on_a_provisioned_deployment_only() -> None:
    assert provisioned_limits(600).load(1000, 900, 10) == 140
    assert Limits().load(1000, 900, 10) == 1010


def test_capacity_is_rate_times_time_under_the_schedules() -> None:
    one = Limiter(
        Limits(
            tpm=600,
            effective=Steps(1.0, ((60, 0.5),)),
            stranger=Steps(0.0, ((30, 0.2), (90, 0.0))),
        ),
        origin_s=100,
    )
    assert one.capacity_tokens(100, 130) == pytest.approx(300)
    assert one.capacity_tokens(130, 160) == pytest.approx(240)
    assert one.capacity_tokens(160, 190) == pytest.approx(120)
    assert one.capacity_tokens(100, 220) == pytest.approx(300 + 240 + 120 + 150)


CALLS = st.lists(st.tuples(st.integers(0, 25), st.integers(0, 400)), max_size=40)


def run_calls(
    one: Limiter, calls: list[tuple[int, int]]
) -> tuple[list[tuple[int, int]], list[tuple[int, int, Refused]]]:
    """What was let in, as (time, load), and what was not, as (time, load, refusal)."""
    let_in, turned_away, now = [], [], 0
    for later, load in calls:
        now += later
        verdict = one.admit(now, load, 0)
        if isinstance(verdict, Ticket):
            let_in.append((now, load))
        else:
            turned_away.append((now, load, verdict))
    return let_in, turned_away


@given(CALLS, st.integers(0, 59))
def test_no_fixed_minute_lets_more_in_than_the_limit_and_none_less(
    calls: list[tuple[int, int]], phase_s: int
) -> None:
    one = limiter(phase_s=phase_s)
    let_in, turned_away = run_calls(one, calls)

    def used(at: int) -> int:
        minute = (at - phase_s) // 60
        return sum(load for when, load in let_in if (when - phase_s) // 60 == minute)

    assert all(used(at) <= 1000 for at, _ in let_in)
    for at, load, _ in turned_away:
        assert used(at) + load > 1000


@given(CALLS)
def test_no_sliding_minute_lets_more_in_than_the_limit(calls: list[tuple[int, int]]) -> None:
    let_in, _ = run_calls(limiter(window="sliding"), calls)
    for end, _ in let_in:
        assert sum(load for at, load in let_in if 0 <= end - at < 60) <= 1000


@given(CALLS)
def test_no_span_lets_more_in_than_a_bucket_holds_and_refills(
    calls: list[tuple[int, int]],
) -> None:
    let_in, _ = run_calls(limiter(window="bucket"), calls)
    for index, (begin, _) in enumerate(let_in):
        for last in range(index, len(let_in)):
            taken = sum(load for _, load in let_in[index : last + 1])
            assert taken <= 1000 + (let_in[last][0] - begin) * 1000 / 60 + 1e-3


@given(
    CALLS,
    st.sampled_from(["minute", "sliding", "bucket"]),
    st.sampled_from(["none", "requests", "all"]),
    st.sampled_from([None, 1.0, 10.0]),
)
def test_a_refused_call_is_let_in_at_the_time_it_was_told(
    calls: list[tuple[int, int]], window: WindowKind, counts: str, pacing_s: float | None
) -> None:
    one = limiter(window=window, rpm=60, counts_refused=counts, pacing_s=pacing_s)
    _, turned_away = run_calls(one, calls)
    if turned_away and turned_away[-1][0] == sum(later for later, _ in calls):
        at, load, verdict = turned_away[-1]
        if not verdict.too_large:
            admitted(one.admit(at + verdict.wait_s + 1e-6, load, 0))


@given(CALLS)
def test_the_tally_accounts_for_every_call(calls: list[tuple[int, int]]) -> None:
    one = limiter(rpm=20)
    let_in, turned_away = run_calls(one, calls)
    tally = one.tally()
    assert tally.admitted == len(let_in)
    assert tally.refused == len(turned_away)
    assert tally.charged_tokens == sum(load for _, load in let_in)
