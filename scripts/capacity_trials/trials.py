"""The trials: an offered load, what happens meanwhile, and what must come of it."""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from capacity_trials.bars import Bars, Figures, figures
from capacity_trials.ideal import possible
from capacity_trials.resources import MODEL, TPM, drawn, instances
from proxy.planning.lengths import Lognormal, MultipleLimit
from proxy.planning.rehearsal import Scenario
from proxy.planning.traffic import Burst, RequestKind, Traffic, TrafficSpec

if TYPE_CHECKING:
    from proxy.planning.findings import Findings
    from proxy.planning.resources import ResourceSpecs

OUTPUT_MARGIN: Final = 1.25
KIND: Final = RequestKind(
    model=MODEL,
    input_tokens=Lognormal(kind="lognormal", median=120, p95=400, most=2000),
    output_tokens=Lognormal(kind="lognormal", median=60, p95=180, most=1000),
    max_tokens=MultipleLimit(kind="multiple", times=OUTPUT_MARGIN),
    stream_share=0.3,
)
SETTLED_S: Final = 180
"""By then what full windows let through at once in the beginning no longer counts, and whatever
the phase of a limiter, two whole minutes of its own are over."""
CHANGE_S: Final = 180
"""When something changes, in the trials in which something does."""


@dataclass(frozen=True)
class Stretch:
    """A part of a trial that is judged by itself. `until_s` None: to the end."""

    name: str
    bars: Bars
    since_s: int = 0
    until_s: int | None = None


@dataclass(frozen=True)
class Trial:
    """`load`: offered, as a share of all limits. `changes`: of every resource, as fields of
    `ResourceSpec`. `max_wait_s`: how long a request may wait for capacity."""

    name: str
    load: float
    stretches: tuple[Stretch, ...]
    duration_s: int = 600
    bursts: tuple[Burst, ...] = ()
    max_wait_s: float = 10.0
    returning_share: float = 0.0
    changes: dict[str, Any] = field(default_factory=dict)

    def scenario(self, seed: int) -> tuple[Scenario, list[str]]:
        """What is run for `seed`, and how its resources count, the largest first."""
        specs, ways = drawn(random.Random(f"{self.name}/{seed}"), self.changes)
        spec = TrafficSpec(
            duration_s=float(self.duration_s),
            requests_per_minute=((0.0, self.load * capacity_per_minute(specs)),),
            bursts=self.bursts,
            requests=(KIND,),
            returning_share=self.returning_share,
            resources=specs,
        )
        return Scenario(instances(), Traffic(spec), max_wait_s=self.max_wait_s), ways

    def figures(self, scenario: Scenario, seed: int, findings: Findings) -> list[Figures]:
        """One for each stretch that lies within what was run."""
        last = len(findings.seconds) - 1
        ideal = possible(scenario, seed, findings)
        return [
            figures(findings, ideal, stretch.since_s, min(last, stretch.until_s or last))
            for stretch in self.stretches
            if stretch.since_s < last
        ]

    def lasting(self, duration_s: int) -> Trial:
        return replace(self, duration_s=duration_s)


def capacity_per_minute(specs: ResourceSpecs) -> float:
    """Requests of `KIND` that all limits together have room for, each charged with its output
    limit, or with more if its resource counts more."""
    prompt, limit = KIND.input_tokens.mean(), OUTPUT_MARGIN * KIND.output_tokens.mean()
    return sum(
        tpm / (prompt * max(1.0, specs.of(f"tpm-{tpm}").prompt_factor) + limit) for tpm in TPM
    )


def _changed(name: str, load: float, the_minute: Bars, afterwards: Bars, **changes: Any) -> Trial:
    """A trial in which what the resources let through changes all of a sudden."""
    recovered_s = CHANGE_S + 60
    return Trial(
        name,
        load,
        (
            Stretch("the minute of the change", the_minute, CHANGE_S, recovered_s),
            Stretch("afterwards", afterwards, recovered_s),
        ),
        duration_s=420,
        changes=changes,
    )


_STRANGER: Final = ((float(CHANGE_S), 0.3),)
_CALM: Final = Bars(most_client_refusals=0, most_upstream_refused=0.005)
_NO_STORM: Final = Bars(most_upstream_refused=0.05)

TRIALS: Final = (
    Trial(
        "steady",
        0.9,
        (Stretch("all", Bars(most_client_refusals=0, most_upstream_refused=0.001)),),
    ),
    Trial(
        "overload",
        1.5,
        (
            Stretch(
                "settled",
                Bars(
                    most_upstream_refused=0.01,
                    least_let_through=0.97,
                    least_true_refusals=0.95,
                    least_refused_at_once=0.9,
                ),
                SETTLED_S,
            ),
        ),
        duration_s=420,
        returning_share=0.05,
    ),
    Trial(
        "bursts",
        3.0,
        (Stretch("all", Bars(most_client_refusals=0, most_upstream_refused=0.005)),),
        duration_s=420,
        bursts=(Burst(every_s=40, lasts_s=30, times=0, from_s=10),),
        max_wait_s=20.0,
    ),
    _changed("stranger", 0.6, _NO_STORM, _CALM, stranger=_STRANGER),
    _changed("stranger, clocks off", 0.6, _NO_STORM, _CALM, stranger=_STRANGER, clock_skew_s=5.0),
    _changed(
        "stranger, overload",
        0.9,
        Bars(most_upstream_refused=0.1),
        Bars(most_upstream_refused=0.03, least_let_through=0.95),
        stranger=_STRANGER,
    ),
    _changed(
        "stranger, overload, clocks off",
        0.9,
        Bars(most_upstream_refused=0.1),
        Bars(most_upstream_refused=0.05, least_let_through=0.95),
        stranger=_STRANGER,
        clock_skew_s=5.0,
    ),
    _changed(
        "lowered limits",
        0.9,
        _NO_STORM,
        Bars(most_upstream_refused=0.01, least_let_through=0.92),
        effective=((float(CHANGE_S), 0.6),),
    ),
)
