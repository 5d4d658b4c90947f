"""A rehearsal: what went in comes out, what the resources counted is what is reported."""

from __future__ import annotations

import json
from typing import Any

import pytest
from planned import CHAT, instances, spec

from actors.models import InstanceConfig
from proxy.planning.findings import Findings, percentile
from proxy.planning.rehearsal import Scenario, rehearse
from proxy.planning.traffic import Traffic, TrafficSpec


def scenario(tpm: dict[str, int], max_wait_s: float = 10.0, **fields: Any) -> Scenario:
    configs = tuple(
        InstanceConfig.model_validate({"name": name, **record})
        for name, record in instances(**tpm).items()
    )
    parsed = TrafficSpec.model_validate_json(json.dumps(spec(**fields)), strict=True)
    return Scenario(configs, Traffic(parsed), max_wait_s=max_wait_s)


def run(tpm: dict[str, int], seed: int = 1, **fields: Any) -> Findings:
    return rehearse(scenario(tpm, **fields), seed)


def test_enough_capacity_serves_everybody_at_once() -> None:
    findings = run({"one": 100_000, "two": 100_000})
    clients, each = findings.clients(), findings.instances()
    assert clients.asked == clients.served > 60
    assert clients.statuses == {200: clients.asked}
    assert percentile(clients.waits_s, 1.0) == 0
    assert sum(instance.calls for instance in each) == clients.asked
    assert all(instance.calls > 0 for instance in each)
    assert all(instance.refused == 0 for instance in each)


def test_what_is_served_is_what_was_asked_for() -> None:
    made = scenario({"one": 1_000_000}, duration_s=30)
    findings = rehearse(made, seed=1)
    asked = sum(ask.tokens for ask in made.traffic.asks(1))
    offered = sum(second.offered_tokens for second in findings.seconds)
    assert offered == asked
    assert sum(limiter.tally().served_tokens for limiter in findings.limiters[0]) == asked


def test_a_rehearsal_can_be_repeated_to_the_letter() -> None:
    fields: dict[str, Any] = {
        "requests": [{**CHAT, "stream_share": 0.5}],
        "requests_per_minute": 200,
        "returning_share": 0.5,
    }
    first, again = (run({"one": 8_000, "two": 4_000}, seed=5, **fields) for _ in range(2))
    assert first.answers == again.answers
    assert first.seconds == again.seconds
    assert run({"one": 8_000, "two": 4_000}, seed=6, **fields).answers != first.answers


def test_too_little_capacity_is_used_up_and_refuses_the_rest() -> None:
    findings = run({"one": 10_000}, duration_s=180, requests_per_minute=150)
    clients, (one,) = findings.clients(), findings.instances(60)
    assert clients.refused > 0.3 * clients.asked
    assert clients.served + clients.refused == clients.asked
    assert one.utilisation > 0.9
    assert one.capacity_tokens == pytest.approx(20_000)
    assert max(second.waiting for second in findings.seconds) > 0
    assert percentile(clients.waits_s, 1.0) <= 10.01


def test_who_comes_back_is_counted_by_itself() -> None:
    without = run({"one": 10_000}, duration_s=120, requests_per_minute=150)
    with_some = run({"one": 10_000}, duration_s=120, requests_per_minute=150, returning_share=1.0)
    assert without.clients().returned == 0
    clients = with_some.clients()
    assert clients.asked == without.clients().asked
    assert 0 < clients.returned <= clients.refused
    assert clients.returned_served <= clients.returned


def test_a_stranger_and_a_lowered_limit_leave_less_capacity() -> None:
    changes = {"stranger": [[30, 0.25]], "effective": [[30, 0.5]]}
    findings = run({"one": 100_000}, resources={"default": changes})
    (before,), (after,) = findings.instances(0, 30), findings.instances(30, 60)
    assert before.capacity_tokens == pytest.approx(50_000)
    assert after.capacity_tokens == pytest.approx(50_000 * 0.5 * 0.75)


def test_an_instance_can_differ_from_the_default() -> None:
    own = {"window": "sliding", "charging": "actual"}
    resources = {"default": {"window": "bucket"}, "instances": {"two": own}}
    findings = run({"one": 50_000, "two": 50_000}, duration_s=5, resources=resources)
    limits = [limiters[0].limits for limiters in findings.limiters]
    assert [(each.window, each.charging) for each in limits] == [
        ("bucket", "estimate"),
        ("sliding", "actual"),
    ]


def test_embeddings_are_asked_for_as_embeddings() -> None:
    config = InstanceConfig(
        name="one", provider_type="generic", api_key="k", api_base="https://one.example.com"
    )
    kind = {**CHAT, "model": "text-embedding-3-small"}
    parsed = TrafficSpec.model_validate_json(json.dumps(spec(requests=[kind])), strict=True)
    findings = rehearse(Scenario((config,), Traffic(parsed)), seed=1)
    assert set(findings.clients().statuses) == {200}


def test_a_model_that_nobody_serves_is_answered_404() -> None:
    findings = run({"one": 50_000}, requests=[{**CHAT, "model": "gpt-9"}])
    assert set(findings.clients().statuses) == {404}


def test_disabled_instances_take_no_part() -> None:
    made = scenario({"one": 50_000, "two": 50_000})
    configs = (made.configs[0], made.configs[1].model_copy(update={"enabled": False}))
    assert rehearse(Scenario(configs, made.traffic), 1).names == ("one",)


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [([], 0.5, 0.0), ([1.0], 0.99, 1.0), ([1.0, 2.0, 3.0, 4.0], 0.5, 2.0), ([1.0, 2.0], 1.0, 2.0)],
)
def test_percentiles_are_values_that_occurred_or_zero(
    values: list[float], share: float, expected: float
) -> None:
    assert percentile(values, share) == expected


def test_what_rehearsed_instances_go_through_is_not_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    unseen = {"effective": [[0, 0.2]], "headers": "none"}
    findings = run({"one": 20_000}, duration_s=20, resources={"default": unseen})
    assert findings.instances()[0].refused > 0
    assert caplog.records == []
