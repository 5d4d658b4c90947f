from __future__ import annotations

import pytest
from harness import exact, instance_config

from actors.messages import Demand, Evidence, LeaseId
from actors.policy.capacity import MAX_QUOTAS, Capacity
from actors.policy.headroom import Obstacle


def spend(
    capacity: Capacity, number: int, model: str, tokens: int, now: float, **seen: int
) -> None:
    lease_id = LeaseId(number)
    capacity.reserve(lease_id, model, tokens, now)
    evidence = Evidence(**seen) if seen else None
    capacity.settle(lease_id, model, tokens, reached=True, evidence=evidence, now=now)


def fits(capacity: Capacity, tokens: int, model: str, now: float = 0) -> bool:
    return capacity.obstacle(exact(tokens, model=model), now) is None


def test_models_share_the_configured_limit_until_the_upstream_tells_theirs() -> None:
    capacity = Capacity(instance_config(max_tpm=1000))
    spend(capacity, 1, "a", 600, 0)
    assert not fits(capacity, 500, "b")
    assert fits(capacity, 400, "b")


def test_a_model_with_its_own_limit_is_bounded_by_that_alone() -> None:
    capacity = Capacity(instance_config(max_tpm=1000))
    spend(capacity, 1, "a", 600, 0, limit_tokens=5000, remaining_tokens=4400)
    assert fits(capacity, 4400, "a")
    assert not fits(capacity, 4401, "a")
    assert fits(capacity, 1000, "b")
    assert not fits(capacity, 1001, "b")


def test_nothing_is_counted_where_only_the_pace_of_requests_keeps_it_away() -> None:
    capacity = Capacity(instance_config(max_tpm=1000))
    spend(capacity, 1, "a", 1, 0, limit_requests=60)
    met = capacity.obstacle(Demand("a", 1, 20, 80, 5), 0)
    assert met is not None
    assert met.reason == "no_headroom"
    capacity = Capacity(instance_config(max_tpm=1000))
    spend(capacity, 1, "a", 950, 0, limit_requests=60_000)
    assert capacity.obstacle(Demand("a", 1, 20, 80, 5), 0) == Obstacle("count_first")


def test_utilization_is_that_of_the_fullest_limit() -> None:
    capacity = Capacity(instance_config(max_tpm=1000))
    spend(capacity, 1, "a", 500, 0, limit_tokens=2000, remaining_tokens=1500)
    spend(capacity, 2, "b", 800, 0)
    assert capacity.utilization(0) == 0.8


def test_the_pace_of_requests_is_an_obstacle_with_an_end() -> None:
    capacity = Capacity(instance_config(max_tpm=10_000))
    spend(capacity, 1, "a", 1, 0, limit_requests=60, remaining_requests=59)
    obstacle = capacity.obstacle(exact(1, model="a"), 0)
    assert obstacle is not None
    assert obstacle.reason == "no_headroom"
    assert obstacle.until is not None
    assert 1 <= obstacle.until <= 1.02
    assert fits(capacity, 1, "a", obstacle.until)


def test_invented_model_names_do_not_pile_up() -> None:
    capacity = Capacity(instance_config(max_tpm=10**9))
    for number in range(5 * MAX_QUOTAS):
        spend(capacity, number, f"model-{number}", 1, number * 10.0)
    assert len(capacity.quotas) <= MAX_QUOTAS


def test_another_upstream_is_not_bound_by_what_the_former_said() -> None:
    capacity = Capacity(instance_config(max_tpm=1000))
    spend(capacity, 1, "a", 10, 0, limit_tokens=50, remaining_tokens=40)
    assert not fits(capacity, 500, "a")
    capacity.reconfigure(instance_config(max_tpm=1000), elsewhere=True)
    assert fits(capacity, 500, "a")


def test_what_remains_lowers_our_view_also_where_no_limit_is_told() -> None:
    capacity = Capacity(instance_config(max_tpm=1000))
    spend(capacity, 1, "a", 100, 0, remaining_tokens=300)
    assert fits(capacity, 300, "a")
    obstacle = capacity.obstacle(exact(301, model="a"), 0)
    assert obstacle is not None
    assert obstacle.reason == "no_headroom"
    assert fits(capacity, 900, "b"), "it was about this model"
    assert capacity.utilization(0) == pytest.approx(0.7)


def test_what_remains_beyond_the_configured_limit_raises_nothing_and_teaches_no_ratio() -> None:
    capacity = Capacity(instance_config(max_tpm=1000))
    for number in range(300):
        if fits(capacity, 20, "a", number):
            spend(capacity, number, "a", 20, number, remaining_tokens=5000)
    assert not fits(capacity, 20, "a", 299)
    assert capacity.quotas["a"].ratio.value() == 1.0


def test_a_refusal_lowers_the_configured_limit_too_and_of_that_model_alone() -> None:
    capacity = Capacity(instance_config(max_tpm=1000))
    spend(capacity, 1, "a", 600, 0)
    capacity.reserve(LeaseId(2), "a", 300, 1)
    capacity.refused(LeaseId(2), "a", "tokens", 1)
    capacity.settle(LeaseId(2), "a", 0, reached=True, evidence=None, now=1)
    assert fits(capacity, 600, "a", 62)
    obstacle = capacity.obstacle(exact(850, model="a"), 62)
    assert obstacle is not None
    assert obstacle.reason == "no_headroom", "too large only for what no refusal has lowered"
    assert obstacle.until is not None
    assert fits(capacity, 850, "a", obstacle.until + 0.001)
    assert fits(capacity, 1000, "b", 62)
    assert capacity.obstacle(exact(1001, model="a"), 62) == Obstacle("too_large", limit=1000)


def test_a_new_configured_limit_holds_for_models_that_are_known_already() -> None:
    capacity = Capacity(instance_config(max_tpm=1000))
    spend(capacity, 1, "a", 10, 0, remaining_tokens=990)
    capacity.reconfigure(instance_config(max_tpm=5000), elsewhere=False)
    assert fits(capacity, 4000, "a")


def test_an_operators_word_on_the_usage_counts_also_where_the_upstream_tells_its_limit() -> None:
    capacity = Capacity(instance_config(max_tpm=1000))
    spend(capacity, 1, "a", 500, 0, limit_tokens=1000, remaining_tokens=100)
    capacity.reserve(LeaseId(2), "a", 50, 0)
    assert not fits(capacity, 100, "a")
    capacity.set_usage(0, 1)
    assert fits(capacity, 950, "a", 1)
    assert not fits(capacity, 951, "a", 1), "what is under way counts on"
    capacity.settle(LeaseId(2), "a", 50, reached=False, evidence=None, now=1)
    assert fits(capacity, 1000, "a", 1)
    capacity.set_usage(1000, 2)
    assert not fits(capacity, 1, "a", 61)
    assert fits(capacity, 1000, "a", 63)


def test_an_operators_word_is_divided_among_the_models_that_have_used_the_instance() -> None:
    capacity = Capacity(instance_config(max_tpm=1000))
    spend(capacity, 1, "a", 300, 0, limit_tokens=1000)
    spend(capacity, 2, "b", 100, 0)
    capacity.set_usage(401, 1)
    assert fits(capacity, 700, "a", 1)
    assert not fits(capacity, 701, "a", 1)
    assert fits(capacity, 899, "b", 1)
    assert not fits(capacity, 900, "b", 1)


def test_an_operators_word_on_requests_counts_for_their_pace() -> None:
    capacity = Capacity(instance_config(max_tpm=10_000))
    spend(capacity, 1, "a", 1, 0, limit_requests=60, remaining_requests=0)
    assert not fits(capacity, 1, "a", 30)
    capacity.set_requests(59, 30)
    assert fits(capacity, 1, "a", 30)
    capacity.set_requests(60, 31)
    assert not fits(capacity, 1, "a", 90)
