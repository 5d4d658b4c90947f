"""What came of a rehearsal: second by second what the resources counted, and each answer."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from proxy.simulator.limiter import Limiter


class Counts(NamedTuple):
    """Totals of one resource since the beginning. `calls`: refused ones included. `counted_tokens`:
    by its own rule; `served_tokens`: really used."""

    calls: int
    refused: int
    served_tokens: int
    counted_tokens: int


class Second(NamedTuple):
    """The state at a whole second. `offered_tokens`: asked for since the second before."""

    offered_tokens: int
    waiting: int
    resources: tuple[Counts, ...]


class Answered(NamedTuple):
    """One answer to a client. `at_s`: when it had asked. `returning`: it had been refused before,
    and came back when it was told to."""

    at_s: float
    status: int
    wait_s: float
    returning: bool


class InstanceFigures(NamedTuple):
    """`capacity_tokens`: what its limit lets through in the time."""

    name: str
    max_tpm: int
    calls: int
    refused: int
    served_tokens: int
    counted_tokens: int
    capacity_tokens: float

    @property
    def utilisation(self) -> float:
        return self.counted_tokens / self.capacity_tokens if self.capacity_tokens else 0.0


class ClientFigures(NamedTuple):
    """`waits_s`: of those that were served, ascending; `refusal_waits_s`: of those refused with
    429. `statuses`: by what clients got. `returned`: came back when told; `returned_served`: and
    were served then."""

    asked: int
    served: int
    refused: int
    waits_s: Sequence[float]
    refusal_waits_s: Sequence[float]
    statuses: dict[int, int]
    returned: int
    returned_served: int


@dataclass
class Findings:
    """`limiters`: of each instance, by its deployments. Times are seconds since `began_at`."""

    names: tuple[str, ...]
    max_tpm: tuple[int, ...]
    limiters: tuple[tuple[Limiter, ...], ...]
    began_at: float
    duration_s: float
    seconds: list[Second] = field(default_factory=list)
    answers: list[Answered] = field(default_factory=list)

    def sample(self, offered_tokens: int, waiting: int) -> None:
        """Notes the state now, which is a whole second."""
        counts = tuple(_counts(limiters) for limiters in self.limiters)
        self.seconds.append(Second(offered_tokens, waiting, counts))

    def instances(self, since_s: int = 0, until_s: int | None = None) -> list[InstanceFigures]:
        """Each instance between two whole seconds."""
        last = len(self.seconds) - 1 if until_s is None else until_s
        before, after = self.seconds[since_s].resources, self.seconds[last].resources
        begin, end = self.began_at + since_s, self.began_at + last
        figures = []
        for place, limiters in enumerate(self.limiters):
            totals = zip(after[place], before[place], strict=True)
            calls, refused, served, counted = (late - early for late, early in totals)
            capacity = sum(limiter.capacity_tokens(begin, end) for limiter in limiters)
            name, max_tpm = self.names[place], self.max_tpm[place]
            figures.append(
                InstanceFigures(name, max_tpm, calls, refused, served, counted, capacity)
            )
        return figures

    def clients(self, since_s: float = 0, until_s: float = math.inf) -> ClientFigures:
        """Those who asked between two moments. Who came back is counted by itself."""
        asked = [answer for answer in self.answers if since_s <= answer.at_s < until_s]
        first = [answer for answer in asked if not answer.returning]
        again = [answer for answer in asked if answer.returning]
        return ClientFigures(
            asked=len(first),
            served=sum(answer.status == 200 for answer in first),
            refused=sum(answer.status == 429 for answer in first),
            waits_s=sorted(answer.wait_s for answer in first if answer.status == 200),
            refusal_waits_s=sorted(answer.wait_s for answer in first if answer.status == 429),
            statuses=dict(sorted(Counter(answer.status for answer in first).items())),
            returned=len(again),
            returned_served=sum(answer.status == 200 for answer in again),
        )


def percentile(ascending: Sequence[float], share: float) -> float:
    """The smallest value that is at least as large as `share` of them; 0.0 of none."""
    if not ascending:
        return 0.0
    return ascending[max(0, math.ceil(share * len(ascending)) - 1)]


def _counts(limiters: Iterable[Limiter]) -> Counts:
    calls = refused = served = counted = 0
    for limiter in limiters:
        tally = limiter.tally()
        calls += tally.admitted + tally.refused
        refused += tally.refused
        served += tally.served_tokens
        counted += counted_tokens(limiter)
    return Counts(calls, refused, served, counted)


def counted_tokens(limiter: Limiter) -> int:
    """What a limiter has counted for good since its beginning, by its own rule."""
    tally = limiter.tally()
    by_estimate = limiter.limits.charging == "estimate"
    return tally.charged_tokens if by_estimate else tally.served_tokens
