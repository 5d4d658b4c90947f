"""What came of a stretch of a trial, and what must have come of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from proxy.planning.findings import Findings, percentile

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

AT_ONCE_S: Final = 0.1


@dataclass(frozen=True)
class Figures:
    """Of one run, or of several added up.

    `counted_tokens`: what the limiters counted; `capacity_tokens`: their rates times the time;
    `possible_tokens`: what they would have counted for an ideal sender; `reached_tokens`: what they
    counted, of each at most what was possible, so that what a bucket has saved up for us makes up
    for nothing elsewhere.
    `returned`: clients that had been refused and came back when they were told to.
    """

    requests: int
    client_refusals: int
    client_errors: int
    calls: int
    calls_refused: int
    counted_tokens: float
    capacity_tokens: float
    possible_tokens: float
    reached_tokens: float
    waits_s: tuple[float, ...]
    refusal_waits_s: tuple[float, ...]
    returned: int
    returned_served: int

    @property
    def upstream_refused(self) -> float:
        return self.calls_refused / self.calls if self.calls else 0.0

    @property
    def let_through(self) -> float:
        """Of what an ideal sender gets."""
        return self.reached_tokens / self.possible_tokens if self.possible_tokens else 0.0

    @property
    def of_rates(self) -> float:
        return self.counted_tokens / self.capacity_tokens if self.capacity_tokens else 0.0

    @property
    def true_refusals(self) -> float | None:
        """Of those who came back: how many were served then. None if nobody came back."""
        return self.returned_served / self.returned if self.returned else None

    @property
    def refused_at_once(self) -> float:
        """Of the clients that were refused: how many had not waited first."""
        if not self.refusal_waits_s:
            return 1.0
        return sum(wait < AT_ONCE_S for wait in self.refusal_waits_s) / len(self.refusal_waits_s)

    def wait_s(self, share: float) -> float:
        """The wait for capacity that `share` of those who were served did not exceed."""
        return percentile(self.waits_s, share)


def figures(
    findings: Findings, possible: Sequence[Sequence[int]], since_s: int, until_s: int
) -> Figures:
    """Of the stretch between two whole seconds; clients belong to it by when they asked.

    `possible`: see `capacity_trials.ideal`.
    """
    each = findings.instances(since_s, until_s)
    ideal = [counts[until_s] - counts[since_s] for counts in possible]
    clients = findings.clients(since_s, until_s)
    return Figures(
        requests=clients.asked,
        client_refusals=clients.refused,
        client_errors=clients.asked - clients.served - clients.refused,
        calls=sum(instance.calls for instance in each),
        calls_refused=sum(instance.refused for instance in each),
        counted_tokens=sum(instance.counted_tokens for instance in each),
        capacity_tokens=sum(instance.capacity_tokens for instance in each),
        possible_tokens=sum(ideal),
        reached_tokens=sum(
            min(instance.counted_tokens, most) for instance, most in zip(each, ideal, strict=True)
        ),
        waits_s=tuple(clients.waits_s),
        refusal_waits_s=tuple(clients.refusal_waits_s),
        returned=clients.returned,
        returned_served=clients.returned_served,
    )


def together(runs: Sequence[Figures]) -> Figures:
    """Several runs as if they had been one."""
    return Figures(
        requests=sum(run.requests for run in runs),
        client_refusals=sum(run.client_refusals for run in runs),
        client_errors=sum(run.client_errors for run in runs),
        calls=sum(run.calls for run in runs),
        calls_refused=sum(run.calls_refused for run in runs),
        counted_tokens=sum(run.counted_tokens for run in runs),
        capacity_tokens=sum(run.capacity_tokens for run in runs),
        possible_tokens=sum(run.possible_tokens for run in runs),
        reached_tokens=sum(run.reached_tokens for run in runs),
        waits_s=tuple(sorted(wait for run in runs for wait in run.waits_s)),
        refusal_waits_s=tuple(sorted(wait for run in runs for wait in run.refusal_waits_s)),
        returned=sum(run.returned for run in runs),
        returned_served=sum(run.returned_served for run in runs),
    )


@dataclass(frozen=True)
class Bars:
    """None: not judged. Shares are between 0 and 1; no client may ever get another error."""

    most_client_refusals: int | None = None
    most_upstream_refused: float | None = None
    least_let_through: float | None = None
    least_true_refusals: float | None = None
    least_refused_at_once: float | None = None

    def missed(self, found: Figures) -> Iterator[str]:
        """What `found` falls short of, in words."""
        if found.client_errors:
            yield f"clients that got another error: {found.client_errors}, must be none"
        for what, value, most in (
            ("clients refused", found.client_refusals, self.most_client_refusals),
            ("upstream calls answered 429", found.upstream_refused, self.most_upstream_refused),
        ):
            if most is not None and value > most:
                yield f"{what}: {_shown(value)}, must be at most {_shown(most)}"
        for what, share, least in (
            ("let through", found.let_through, self.least_let_through),
            ("came back when told to, served", found.true_refusals, self.least_true_refusals),
            ("refused at once", found.refused_at_once, self.least_refused_at_once),
        ):
            if least is not None and share is not None and share < least:
                yield f"{what}: {_shown(share)}, must be at least {_shown(least)}"


def _shown(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.2%}"
