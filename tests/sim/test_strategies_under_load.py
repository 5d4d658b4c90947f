"""Proportions, tiers and a restart, with everything real but the upstreams and the clock."""

from __future__ import annotations

from typing import Any

import pytest
from harness import instance_config

from actors.policy.selection import Strategy
from proxy.planning.findings import Findings
from proxy.planning.lengths import Lognormal, MultipleLimit
from proxy.planning.rehearsal import Scenario, rehearse
from proxy.planning.traffic import RequestKind, Traffic, TrafficSpec

MODEL = "gpt-4o"
KIND = RequestKind(
    model=MODEL,
    input_tokens=Lognormal(kind="lognormal", median=300, p95=900, most=3000),
    output_tokens=Lognormal(kind="lognormal", median=100, p95=300, most=1000),
    max_tokens=MultipleLimit(kind="multiple", times=1.25),
)
TOKENS = KIND.input_tokens.mean() + 1.25 * KIND.output_tokens.mean()


def run(
    strategy: Strategy, tokens_per_minute: float, duration_s: int, **instances: dict[str, Any]
) -> Findings:
    configs = tuple(
        instance_config(name, supported_models=[MODEL], **fields)
        for name, fields in instances.items()
    )
    spec = TrafficSpec(
        duration_s=float(duration_s),
        requests_per_minute=((0.0, tokens_per_minute / TOKENS),),
        requests=(KIND,),
    )
    return rehearse(Scenario(configs, Traffic(spec), strategy), seed=1)


def shares(findings: Findings) -> list[float]:
    calls = [instance.calls for instance in findings.instances()]
    return [count / sum(calls) for count in calls]


@pytest.mark.parametrize(("strategy", "tolerance"), [("weighted", 0.01), ("priority", 0.04)])
def test_weights_are_held_under_load(strategy: Strategy, tolerance: float) -> None:
    """At nine tenths of what the heaviest can take: now and then it is full, and makes up for it,
    or chance gives another one its turn."""
    findings = run(
        strategy,
        108_000,
        300,
        heavy={"weight": 3, "max_tpm": 60_000},
        middle={"weight": 2, "max_tpm": 60_000},
        light={"weight": 1, "max_tpm": 60_000},
    )
    assert findings.clients().refused == 0
    assert shares(findings) == pytest.approx([3 / 6, 2 / 6, 1 / 6], abs=tolerance)


def test_a_lower_tier_is_left_alone_while_the_upper_one_has_room() -> None:
    findings = run(
        "priority",
        24_000,
        180,
        provisioned={"priority": 1, "max_tpm": 60_000},
        standard={"priority": 2, "max_tpm": 60_000},
    )
    assert shares(findings) == [1.0, 0.0]


def test_a_lower_tier_takes_the_overflow_and_no_more() -> None:
    findings = run(
        "priority",
        75_000,
        300,
        provisioned={"priority": 1, "max_tpm": 40_000},
        standard={"priority": 2, "max_tpm": 60_000},
    )
    provisioned, standard = findings.instances(since_s=60)
    assert findings.clients().refused == 0
    assert provisioned.utilisation >= 0.97
    assert standard.utilisation <= 0.72
