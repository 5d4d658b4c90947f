"""The figures of all trials as a Markdown table."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from capacity_trials.bars import Figures
    from capacity_trials.trials import Stretch, Trial

HEAD = (
    "trial",
    "offered",
    "requests",
    "clients refused",
    "upstream 429s of calls",
    "let through",
    "wait p50 / p99 / longest",
    "refused at once",
    "came back when told: served",
    "bars",
)


def table(rows: Iterable[tuple[Trial, Stretch, Figures, list[str]]]) -> Iterator[str]:
    """A line each; the last column says how many bars were missed."""
    yield f"| {' | '.join(HEAD)} |"
    yield f"|{'---|' * len(HEAD)}"
    for trial, stretch, found, missed in rows:
        yield f"| {' | '.join(_cells(trial, stretch, found, missed))} |"


def _cells(trial: Trial, stretch: Stretch, found: Figures, missed: list[str]) -> Iterator[str]:
    yield trial.name if stretch.name == "all" else f"{trial.name}: {stretch.name}"
    yield f"{trial.load:.1f}×" if not trial.bursts else f"{trial.load:.1f}×, 10 s of 40 s"
    yield f"{found.requests:,}".replace(",", " ")
    yield f"{found.client_refusals / max(1, found.requests):.1%}"
    yield f"{found.upstream_refused:.2%}"
    yield f"{found.let_through:.1%}"
    yield " / ".join(f"{found.wait_s(share):.1f}" for share in (0.5, 0.99, 1.0)) + " s"
    yield "–" if not found.refusal_waits_s else f"{found.refused_at_once:.0%}"
    true = found.true_refusals
    yield "–" if true is None else f"{true:.1%} of {found.returned}"
    yield "met" if not missed else f"missed: {len(missed)}"
