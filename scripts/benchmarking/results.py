"""What a run measured, and what follows from it: medians, ratios and the bars that hold.

Peers are compared within one repeat, in which they ran right after each other, and the median is
taken over these ratios: a machine whose speed changes in the course of a run spoils less that way.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable

Sample: TypeAlias = dict[str, float]
"""The figures of one measurement by name."""
Verdict: TypeAlias = Literal["aim reached", "pass", "MISS", "not measured"]


@dataclass(slots=True)
class Results:
    """`samples[scenario][peer]` has one sample per repeat; an empty one where it failed."""

    samples: dict[str, dict[str, list[Sample]]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def add(self, scenario: str, peer: str, sample: Sample) -> None:
        self.samples.setdefault(scenario, {}).setdefault(peer, []).append(sample)

    def values(self, scenario: str, peer: str, figure: str) -> list[float]:
        """One per repeat, nan where there is none."""
        samples = self.samples.get(scenario, {}).get(peer, [])
        return [sample.get(figure, math.nan) for sample in samples]

    def median(self, scenario: str, peer: str, figure: str) -> float:
        return median(self.values(scenario, peer, figure))


def median(values: list[float]) -> float:
    """Of those that are numbers; nan if none is."""
    numbers = [value for value in values if not math.isnan(value)]
    return statistics.median(numbers) if numbers else math.nan


def pairwise(
    results: Results,
    scenario: str,
    figure: str,
    peer: str,
    other: str,
    operation: Callable[[float, float], float],
) -> list[float]:
    """The operation on the figures of two peers in each repeat."""
    return [
        operation(mine, theirs)
        for mine, theirs in zip(
            results.values(scenario, peer, figure),
            results.values(scenario, other, figure),
            strict=False,
        )
    ]


def _ratio(mine: float, theirs: float) -> float:
    return mine / theirs if theirs else math.nan


def ratio(results: Results, scenario: str, figure: str, peer: str, other: str) -> float:
    """Median over the repeats of how many times the other peer's figure this one is."""
    return median(pairwise(results, scenario, figure, peer, other, _ratio))


def added(results: Results, figure: str, peer: str) -> float:
    """Median over the repeats of what the way through the peer adds to a direct call."""
    return median(pairwise(results, "latency", figure, peer, "direct", lambda a, b: a - b))


@dataclass(frozen=True, slots=True)
class Bar:
    """A figure that the service has to keep: at most `limit`, or at least if `more_is_better`."""

    title: str
    unit: str
    limit: float
    aim: float
    measured: Callable[[Results], float]
    more_is_better: bool = False

    def verdict(self, value: float) -> Verdict:
        if math.isnan(value):
            return "not measured"
        sign = -1 if self.more_is_better else 1
        if sign * value <= sign * self.aim:
            return "aim reached"
        return "pass" if sign * value <= sign * self.limit else "MISS"


def _growth(results: Results, scenario: str, figure: str, later: str) -> float:
    """How many times the service's one figure its other figure is, within a repeat."""
    before = results.values(scenario, "service", figure)
    after = results.values(scenario, "service", later)
    return median([_ratio(b, a) for a, b in zip(before, after, strict=True)])


BARS = (
    Bar(
        "CPU per request, all features, against the bare relay",
        "×",
        4,
        2.5,
        lambda results: ratio(results, "requests", "cpu_us", "service", "relay"),
    ),
    Bar(
        "requests/s against the naive Quart-Trio + httpx passthrough",
        "×",
        10,
        16,
        lambda results: ratio(results, "requests", "requests_per_s", "service", "passthrough"),
        more_is_better=True,
    ),
    Bar(
        "CPU per streamed event, as fast as possible, against the bare relay",
        "×",
        2.5,
        1.5,
        lambda results: ratio(results, "fast_streams", "cpu_us", "service", "relay"),
    ),
    Bar(
        "added latency at 100 requests/s, p50",
        "ms",
        0.5,
        0.3,
        lambda results: added(results, "p50_ms", "service"),
    ),
    Bar(
        "added latency at 100 requests/s, p99",
        "ms",
        2,
        1,
        lambda results: added(results, "p99_ms", "service"),
    ),
    Bar(
        "memory per open stream",
        "KiB",
        40,
        20,
        lambda results: results.median("open_streams", "service", "memory_per_stream_kib"),
    ),
    Bar(
        "CPU per request with 100 instances against 1",
        "×",
        1.3,
        1.1,
        lambda results: _growth(results, "instances", "cpu_with_1_us", "cpu_with_100_us"),
    ),
    Bar(
        "CPU per request beside 1 000 that wait, against alone",
        "×",
        1.3,
        1.1,
        lambda results: _growth(results, "waiting", "cpu_alone_us", "cpu_beside_us"),
    ),
    Bar(
        "CPU per request after an hour of traffic, against a fresh start",
        "×",
        1.3,
        1.1,
        lambda results: _growth(results, "aged", "cpu_fresh_us", "cpu_aged_us"),
    ),
    Bar(
        "CPU per request with persistence, against without",
        "×",
        1.3,
        1.1,
        lambda results: _growth(results, "aged", "cpu_unsaved_us", "cpu_fresh_us"),
    ),
    Bar(
        "canary p99 beside prompts of 1 MB",
        "ms",
        20,
        10,
        lambda results: results.median("large_prompts", "service", "canary_p99_beside_1000_kb_ms"),
    ),
    Bar(
        "canary p99 beside prompts of 1 MB that are counted",
        "ms",
        20,
        10,
        lambda results: results.median(
            "counted_prompts", "service", "canary_p99_beside_1000_kb_ms"
        ),
    ),
    Bar(
        "start to first answer",
        "s",
        1,
        0.6,
        lambda results: results.median("start", "service", "first_answer_s"),
    ),
    Bar(
        "resident memory, idle",
        "MB",
        90,
        70,
        lambda results: results.median("start", "service", "idle_memory_mb"),
    ),
)
