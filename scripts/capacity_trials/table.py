"""The figures of all trials as a Markdown table."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from capacity_trials.bars import together

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from capacity_trials.bars import Figures
    from capacity_trials.trials import Stretch, Trial

HEAD = (
    "trial",
    "offered",
    "requests",
    "clients refused",
    "upstream 429s of calls",
    "let through, of the rates",
    "of what was possible: all, lowest seed",
    "wait p50 / p99 / longest",
    "refused at once",
    "came back when told: served",
    "bars",
)


class Row(NamedTuple):
    """One stretch of a trial; `runs`: a run for each seed."""

    trial: Trial
    stretch: Stretch
    runs: Sequence[Figures]

    @property
    def missed(self) -> list[str]:
        """The bars that all runs together fall short of, in words."""
        return list(self.stretch.bars.missed(together(self.runs)))


def table(rows: Iterable[Row]) -> Iterator[str]:
    """A line each; the last column says how many bars were missed."""
    yield f"| {' | '.join(HEAD)} |"
    yield f"|{'---|' * len(HEAD)}"
    for row in rows:
        yield f"| {' | '.join(_cells(row))} |"


def _cells(row: Row) -> Iterator[str]:
    trial, stretch, found = row.trial, row.stretch, together(row.runs)
    yield trial.name if stretch.name == "all" else f"{trial.name}: {stretch.name}"
    yield f"{trial.load:.1f}×" if not trial.bursts else f"{trial.load:.1f}×, 10 s of 40 s"
    yield f"{found.requests:,}".replace(",", " ")
    yield f"{found.client_refusals / max(1, found.requests):.1%}"
    yield f"{found.upstream_refused:.2%}"
    yield f"{found.of_rates:.1%}"
    yield f"{found.let_through:.1%}, {min(run.let_through for run in row.runs):.1%}"
    yield " / ".join(f"{found.wait_s(share):.1f}" for share in (0.5, 0.99, 1.0)) + " s"
    yield "–" if not found.refusal_waits_s else f"{found.refused_at_once:.0%}"
    true = found.true_refusals
    yield "–" if true is None else f"{true:.1%} of {found.returned}"
    yield "met" if not row.missed else f"missed: {len(row.missed)}"
