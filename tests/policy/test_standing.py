from __future__ import annotations

import random
from typing import Any

import pytest
from harness import exact, instance_config

from actors.changes import MOST_USED
from actors.clock import WallClock
from actors.messages import Demand, Evidence, LeaseId, Outcome
from actors.models import InstanceState
from actors.policy.benches import CREDENTIAL_BENCH_S, DEFAULT_BENCH_S, MAX_BENCH_S
from actors.policy.headroom import Obstacle
from actors.policy.standing import Standing

CLOCK = WallClock(1_700_000_000.0)
OK = Outcome("success", status=200, reached=True, latency_s=0.2)


def standing(**fields: Any) -> Standing:
    return Standing(instance_config(**fields), random.Random(1))


def attempt(instance: Standing, outcome: Outcome, now: float, used: int | None = 5) -> None:
    lease = LeaseId(instance.total_requests)
    instance.reserve(lease, exact(5), now)
    assert instance.settle(lease, outcome, used, now)


def obstacle(instance: Standing, now: float, demand: Demand | None = None) -> str | None:
    found = instance.assess(demand or exact(5), now)
    return None if found is None else found.reason


def test_a_fresh_instance_takes_requests() -> None:
    assert standing().assess(exact(1000), 0) is None


def test_zero_max_input_tokens_means_no_limit() -> None:
    assert obstacle(standing(max_input_tokens=0), 0, exact(900)) is None


@pytest.mark.parametrize(
    ("demand", "expected"),
    [
        (Demand("gpt-4", 10, 20, 100, 5), None),
        (Demand("gpt-4", 10, 20, 101, 5), Obstacle("count_first")),
        (Demand("gpt-4", 101, 120, 400, 5), Obstacle("input_too_long", limit=100)),
    ],
)
def test_input_bounds_decide_only_what_they_can(demand: Demand, expected: Obstacle | None) -> None:
    assert standing(max_input_tokens=100).assess(demand, 0) == expected


def test_capacity_is_counted_when_the_bounds_straddle_it() -> None:
    instance = standing(max_tpm=100)
    instance.reserve(LeaseId(1), exact(60), 0)
    assert obstacle(instance, 0, Demand("gpt-4", 10, 20, 41, 0)) == "count_first"
    assert obstacle(instance, 0, Demand("gpt-4", 10, 20, 40, 0)) is None
    found = instance.assess(exact(50), 0)
    assert found is not None
    assert found.reason == "no_headroom"
    assert found.until is not None
    assert instance.assess(exact(50), found.until) is None
    assert instance.assess(exact(101), 0) == Obstacle("too_large", limit=100)


def test_a_rate_limit_benches_one_model_until_its_hint() -> None:
    instance = standing(supported_models=["gpt-4", "other"])
    attempt(instance, Outcome("rate_limited", status=429, bench_s=7.0, reached=True), 100, 0)
    assert instance.assess(exact(5), 106.9) == Obstacle("rate_limited", 107.0)
    assert obstacle(instance, 100, exact(5, model="other")) is None
    assert obstacle(instance, 107.1) is None
    assert instance.status(106) == "rate_limited"
    assert instance.status(108) == "healthy"


def test_a_later_hint_never_shortens_a_bench_and_a_success_never_ends_it() -> None:
    instance = standing()
    for number in range(3):
        instance.reserve(LeaseId(number), exact(5), 0)
    instance.settle(LeaseId(0), Outcome("rate_limited", bench_s=30.0, reached=True), 0, 0)
    instance.settle(LeaseId(1), Outcome("rate_limited", bench_s=2.0, reached=True), 0, 1)
    instance.settle(LeaseId(2), OK, 5, 2)
    assert obstacle(instance, 29.9) == "rate_limited"
    assert obstacle(instance, 30.1) is None


@pytest.mark.parametrize(
    ("hint", "bench_s"), [(None, DEFAULT_BENCH_S), (86_400.0, MAX_BENCH_S), (0.25, 0.25)]
)
def test_benches_without_a_hint_and_with_an_absurd_one(hint: float | None, bench_s: float) -> None:
    instance = standing()
    attempt(instance, Outcome("rate_limited", bench_s=hint, reached=True), 0, 0)
    assert instance.rate_limited_until(0) == bench_s


def test_a_refused_key_benches_the_instance_until_time_a_new_key_or_an_operator() -> None:
    refused = Outcome("credential_error", status=401, reason="401: no", reached=True)
    for end in ("time", "key", "operator"):
        instance = standing()
        attempt(instance, refused, 0, 0)
        assert obstacle(instance, 1) == "bad_credential"
        assert instance.status(1) == "error"
        now = 1.0
        if end == "time":
            now = CREDENTIAL_BENCH_S + 1
        elif end == "key":
            instance.reconfigure(instance_config(api_key="another-key-0123456789"))
        else:
            instance.amend({"status": "healthy"}, now, CLOCK)
        assert obstacle(instance, now) is None


def test_a_missing_deployment_benches_that_model_only() -> None:
    instance = standing(supported_models=["gpt-4", "other"])
    attempt(instance, Outcome("model_error", status=404, reason="404", reached=True), 0, 0)
    assert obstacle(instance, 1) == "model_missing"
    assert obstacle(instance, 1, exact(5, model="other")) is None


@pytest.mark.parametrize("kind", ["client_error", "cancelled"])
def test_a_client_never_hurts_an_instance(kind: Any) -> None:
    instance = standing()
    for _ in range(30):
        attempt(instance, Outcome(kind, reason="bad", reached=True), 0, 0)
    assert obstacle(instance, 0) is None
    assert (instance.error_count, instance.last_error) == (0, None)


def test_the_state_shows_what_happened() -> None:
    instance = standing(max_tpm=100)
    fresh = instance.state(0, CLOCK)
    assert (fresh.status, fresh.health_status, fresh.connection_status) == (
        "healthy",
        "unknown",
        "unknown",
    )
    instance.reserve(LeaseId(1), exact(10, output=30), 10)
    instance.settle(LeaseId(1), OK, 25, 11)
    broken = Outcome("instance_error", reason="connect: refused", reached=False)
    instance.reserve(LeaseId(2), exact(10), 12)
    instance.settle(LeaseId(2), broken, None, 12)
    shown = instance.state(12, CLOCK)
    assert shown.model_dump() == {
        "name": "one",
        "status": "healthy",
        "error_count": 1,
        "last_error": "connect: refused",
        "rate_limited_until": None,
        "current_tpm": 25,
        "current_rpm": 2,
        "total_requests": 2,
        "successful_requests": 1,
        "last_used": 1_700_000_012.0,
        "last_error_time": 1_700_000_012.0,
        "avg_latency_ms": 200.0,
        "utilization_percentage": 40.0,
        "connection_status": "disconnected",
        "health_status": "healthy",
    }


def test_a_record_restores_counters_windows_and_benches_aged() -> None:
    before = standing(max_tpm=1000)
    before.reserve(LeaseId(1), exact(400), 0)
    before.settle(LeaseId(1), OK, 400, 1)
    attempt(before, Outcome("rate_limited", bench_s=50.0, reason="429", reached=True), 10, 0)
    record = InstanceState.model_validate({**before.record(20, CLOCK), "from_the_future": 1})

    after = standing(max_tpm=1000)
    later = WallClock(CLOCK.offset_s - 5000)  # the trio clock of the next process starts elsewhere
    after.restore(record, 30 + 5000, later)
    assert after.total_requests == 2
    assert after.error_count == 1
    assert after.account.free(31 + 5000) == 595
    assert obstacle(after, 59 + 5000) == "rate_limited"
    assert obstacle(after, 61 + 5000) is None
    assert after.account.free(75 + 5000) == 1000
    assert after.record(31 + 5000, later)["from_the_future"] == 1


def test_a_plain_record_counts_as_used_just_now() -> None:
    instance = standing(max_tpm=1000)
    instance.restore(InstanceState(name="one", current_tpm=700), 0, CLOCK)
    assert instance.account.free(0) == 300


@pytest.mark.parametrize(
    "saved",
    [
        {"saved_at": CLOCK.offset_s},
        {"accounts": {"charge": "0.0 1 5"}},
        {"saved_at": CLOCK.offset_s, "accounts": {"charge": [[0.0, 5]], "usage": [[0.0, 5]]}},
        {"saved_at": CLOCK.offset_s, "accounts": {"charge": "1.4:500 0.4:200", "usage": ""}},
        {
            "saved_at": CLOCK.offset_s,
            "accounts": {"charge": "1.4:500 0.4:200"},
            "quotas": {
                "gpt-4": {
                    "limit_tokens": {"told": 1000, "told_s": 1.0},
                    "charge": "1.4:500 0.4:200",
                    "used": "1.4:500 0.4:200",
                    "ended": "1.4:500 0.4:200",
                    "requests": "1.4:1 0.4:1",
                }
            },
        },
    ],
)
def test_what_another_version_wrote_counts_as_used_just_now(saved: Any) -> None:
    """`current_tpm` has the same meaning in all of them."""
    instance = standing(max_tpm=1000)
    state = {"name": "one", "current_tpm": 700, "capacity": saved}
    instance.restore(InstanceState.model_validate(state), 0, CLOCK)
    assert instance.account.free(0) == 300
    assert obstacle(instance, 0, exact(300)) is None
    assert obstacle(instance, 0, exact(301)) == "no_headroom"
    assert instance.account.free(61) == 1000
    assert obstacle(instance, 61, exact(1000)) is None


def test_a_record_of_more_than_a_window_holds_fills_it() -> None:
    instance = standing(max_tpm=1000)
    instance.restore(InstanceState(name="one", current_tpm=10**30, current_rpm=10**30), 0, CLOCK)
    assert instance.account.free(0) < -(10**15)
    assert instance.account.requests.total(0) > 10**15
    assert instance.account.free(61) == 1000


@pytest.mark.parametrize(
    "saved", [None, 3, [], {"accounts": 7}, {"benches": {"limits": {"m": "x"}, "probations": 1}}]
)
def test_a_damaged_record_costs_accuracy_not_the_start(saved: Any) -> None:
    instance = standing()
    instance.restore(InstanceState.model_validate({"name": "one", "capacity": saved}), 0, CLOCK)
    assert obstacle(instance, 0) is None


@pytest.mark.parametrize(
    ("changes", "shown"),
    [
        ({"current_tpm": 321}, {"current_tpm": 321}),
        ({"current_rpm": 4}, {"current_rpm": 4}),
        ({"error_count": 9, "last_error": "x"}, {"error_count": 9, "last_error": "x"}),
        ({"last_used": 1_600_000_000.5}, {"last_used": 1_600_000_000.5}),
        ({"status": "error"}, {"status": "error", "health_status": "error"}),
        ({"status": "rate_limited"}, {"status": "rate_limited"}),
        ({"rate_limited_until": 1_700_000_100.0}, {"status": "rate_limited"}),
        ({"connection_status": "connected"}, {"connection_status": "connected"}),
    ],
)
def test_operators_can_correct_the_state(changes: dict[str, Any], shown: dict[str, Any]) -> None:
    instance = standing()
    instance.amend(changes, 0, CLOCK)
    state = instance.state(0, CLOCK).model_dump()
    assert {field: state[field] for field in shown} == shown


@pytest.mark.parametrize("restarted", [False, True])
def test_what_is_used_beyond_the_most_that_can_be_set_is_shown(restarted: bool) -> None:
    instance = standing(max_tpm=10**12)
    instance.reserve(LeaseId(1), exact(400), 0)
    instance.amend({"current_tpm": MOST_USED, "current_rpm": MOST_USED}, 0, CLOCK)
    instance.reserve(LeaseId(2), exact(5), 0)
    instance.settle(LeaseId(1), OK, 400, 0)
    if restarted:
        record = InstanceState.model_validate(instance.record(0, CLOCK))
        instance = standing(max_tpm=10**12)
        instance.restore(record, 0, CLOCK)
    state = instance.state(0, CLOCK)
    assert (state.current_tpm, state.current_rpm) == (MOST_USED + 400, MOST_USED + 1)


def test_healthy_resets_everything_that_keeps_requests_away() -> None:
    instance = standing()
    instance.amend({"status": "error"}, 0, CLOCK)
    instance.amend({"rate_limited_until": 1_700_000_500.0}, 0, CLOCK)
    instance.amend({"status": "healthy"}, 0, CLOCK)
    assert obstacle(instance, 0) is None
    assert instance.state(0, CLOCK).status == "healthy"


def test_what_a_refusal_says_remains_is_not_taken_for_others_use() -> None:
    """It says 0; when that is over, its hint has said."""
    instance = standing(max_tpm=1000)
    refusal = Outcome("rate_limited", status=429, reached=True, bench_s=5.0)
    instance.reserve(LeaseId(1), exact(100), 0)
    instance.settle(LeaseId(1), refusal, 0, 0, Evidence(1000, 0, 60, 0))
    assert obstacle(instance, 4) == "rate_limited"
    assert obstacle(instance, 6, exact(500)) is None
