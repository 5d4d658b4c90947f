"""The picture of one rehearsal, or of two with the same traffic."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING, Final, NamedTuple

from proxy.planning.chart import Line, Panel, svg

if TYPE_CHECKING:
    from proxy.planning.findings import Findings

MOST_POINTS: Final = 120
"""Over the whole time. More show how single requests fall into them, and little else."""
LEAST_S: Final = 10
"""Between two points, for the same reason."""
_DEMAND: Final = "#d5dae1"
_COLOURS: Final = ("#0b66c3", "#d9730d")
"""Told apart by people with any colour vision (blue and orange), and in print."""


class Run(NamedTuple):
    """`label`: what it is called beside the other one."""

    label: str
    findings: Findings


def plot(title: str, runs: list[Run]) -> str:
    """SVG: demand and served tokens, the waiting line, and refusals, over time."""
    first = runs[0].findings
    span = max(LEAST_S, math.ceil(len(first.seconds) / MOST_POINTS))
    tokens = [Line("demand", _DEMAND, _demand(first, span), "area")]
    waiting, refusals = [], []
    for run, colour in zip(runs, _COLOURS, strict=False):
        findings, suffix = run.findings, f" ({run.label})" if len(runs) > 1 else ""
        total = float(sum(findings.max_tpm))
        tokens.append(Line(f"served{suffix}", colour, _served(findings, span)))
        tokens.append(Line(f"all limits{suffix}", colour, [total, total], "limit"))
        waiting.append(Line(f"waiting{suffix}", colour, _waiting(findings, span)))
        refusals.append(Line(f"refused{suffix}", colour, _refusals(findings, span)))
    panels = [
        Panel("Tokens per minute", tokens, 260),
        Panel("Requests waiting for capacity (most)", waiting, 110),
        Panel("Requests refused with 429, per minute", refusals, 110),
    ]
    return svg(title, panels, first.duration_s)


def _demand(findings: Findings, span: int) -> list[float]:
    offered = [second.offered_tokens for second in findings.seconds[1:]]
    return [_mean(offered[at : at + span]) * 60 for at in range(0, len(offered), span)]


def _served(findings: Findings, span: int) -> list[float]:
    totals = [sum(counts.served_tokens for counts in each.resources) for each in findings.seconds]
    served = [later - earlier for earlier, later in pairwise(totals)]
    return [_mean(served[at : at + span]) * 60 for at in range(0, len(served), span)]


def _waiting(findings: Findings, span: int) -> list[float]:
    line = [float(second.waiting) for second in findings.seconds]
    return [max(line[at : at + span]) for at in range(0, len(line), span)]


def _refusals(findings: Findings, span: int) -> list[float]:
    """By when they had asked."""
    counts = [0.0] * math.ceil(len(findings.seconds) / span)
    for answer in findings.answers:
        place = int(answer.at_s / span)
        if answer.status == 429 and place < len(counts):
            counts[place] += 60 / span
    return counts


def _mean(values: list[int]) -> float:
    return sum(values) / len(values)
