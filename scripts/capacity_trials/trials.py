"""The trials: an offered load, what happens meanwhile, and what must come of it."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from capacity_trials.resources import MODEL, TPM, drawn, instances
from proxy.planning.findings import Findings, percentile
from proxy.planning.lengths import GenerousLimit, Lognormal
from proxy.planning.rehearsal import Scenario
from proxy.planning.traffic import Burst, RequestKind, Traffic, TrafficSpec

if TYPE_CHECKING:
    from collections.abc import Iterator

    from proxy.planning.resources import ResourceSpecs

KIND: Final = RequestKind(
    model=MODEL,
    input_tokens=Lognormal(kind="lognormal", median=160, p95=600, most=3000),
    output_tokens=Lognormal(kind="lognormal", median=80, p95=250, most=1000),
    max_tokens=GenerousLimit(kind="times", times=1.25),
    stream_share=0.3,
)
WARM_UP_S: Final = 120
"""Two minutes, after which a limiter with any phase has had a whole one of its own, and what the
full windows of the beginning let through at once no longer counts."""
CHANGE_S: Final = 240
"""When something changes in the trials in which something does."""
RECOVERY_S: Final = 60


@dataclass(frozen=True)
class Trial:
    """`load`: offered, as a share of all limits. `changes`: of every resource. `max_wait_s`: how
    long clients may wait."""

    name: str
    load: float
    duration_s: int = 600
    bursts: tuple[Burst, ...] = ()
    max_wait_s: float = 10.0
    returning_share: float = 0.0
    changes: dict[str, Any] = field(default_factory=dict)
    since_s: int = 0
    """What is before is not judged."""
    bars: tuple[Bar, ...] = ()

    def scenario(self, seed: int) -> tuple[Scenario, list[str]]:
        """What is run for `seed`, and how its resources count, the largest first."""
        rng = random.Random(f"{self.name}/{seed}")
        specs, ways = drawn(rng, self.changes)
        spec = TrafficSpec(
            duration_s=float(self.duration_s),
            requests_per_minute=((0.0, self.load * capacity_per_minute(specs)),),
            bursts=self.bursts,
            requests=(KIND,),
            returning_share=self.returning_share,
            resources=specs,
        )
        return Scenario(instances(), Traffic(spec), max_wait_s=self.max_wait_s), ways


def capacity_per_minute(specs: ResourceSpecs) -> float:
    """Requests of `KIND` that all limits together have room for, each charged with its output
    limit, or more if its resource counts more."""
    assert isinstance(KIND.max_tokens, GenerousLimit)
    prompt, limit = KIND.input_tokens.mean(), KIND.max_tokens.times * KIND.output_tokens.mean()
    return sum(
        tpm / (prompt * max(1.0, specs.of(f"tpm-{tpm}").prompt_factor) + limit) for tpm in TPM
    )


@dataclass(frozen=True)
class Figures:
    """`let_through`: counted by the limiters as a share of what they could have counted.
    `upstream_refused`: of the calls to them. `true_refusals`: of the clients that came back when
    told to, how many were served; None if nobody came back."""

    requests: int
    client_refusals: int
    client_errors: int
    upstream_refused: float
    let_through: float
    wait_p99_s: float
    longest_wait_s: float
    refusal_wait_p95_s: float
    true_refusals: float | None


def figures(findings: Findings, since_s: int) -> Figures:
    each = findings.instances(since_s)
    clients = findings.clients(since_s)
    calls = sum(instance.calls for instance in each)
    return Figures(
        requests=clients.asked,
        client_refusals=clients.refused,
        client_errors=clients.asked - clients.served - clients.refused,
        upstream_refused=sum(instance.refused for instance in each) / max(1, calls),
        let_through=sum(instance.counted_tokens for instance in each)
        / sum(instance.capacity_tokens for instance in each),
        wait_p99_s=percentile(clients.waits_s, 0.99),
        longest_wait_s=percentile(clients.waits_s, 1.0),
        refusal_wait_p95_s=percentile(clients.refusal_waits_s, 0.95),
        true_refusals=clients.returned_served / clients.returned if clients.returned else None,
    )
