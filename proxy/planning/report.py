"""The figures of rehearsals: as tables for people, and as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from proxy.planning.findings import ClientFigures, InstanceFigures, percentile

if TYPE_CHECKING:
    from collections.abc import Iterator

    from proxy.planning.plot import Run

WAIT_SHARES: Final = (("p50", 0.5), ("p95", 0.95), ("p99", 0.99), ("longest", 1.0))


def lines(runs: list[Run]) -> Iterator[str]:
    """The tables of all runs: their instances one after the other, their clients side by side."""
    for run in runs:
        yield run.label
        yield from _aligned(_instance_rows(run.findings.instances()))
        yield ""
    figures = [run.findings.clients() for run in runs]
    head = ["CLIENTS", *(run.label if len(runs) > 1 else "" for run in runs)]
    yield from _aligned([head, *_client_rows(figures)])


def document(runs: list[Run], seed: int) -> dict[str, Any]:
    """The same for machines. Shares are between 0 and 1, waits in seconds."""
    return {
        "seed": seed,
        "duration_s": runs[0].findings.duration_s,
        "runs": [
            {
                "config": run.label,
                "instances": [_instance(each) for each in run.findings.instances()],
                "clients": _clients(run.findings.clients()),
            }
            for run in runs
        ],
    }


def _instance_rows(instances: list[InstanceFigures]) -> Iterator[list[str]]:
    yield ["INSTANCE", "MAX_TPM", "SERVED TOKENS", "UTILISATION", "CALLS", "429s"]
    together = InstanceFigures("together", *map(sum, list(zip(*instances, strict=True))[1:]))
    for each in [*instances, together] if len(instances) > 1 else instances:
        yield [
            each.name,
            spaced(each.max_tpm),
            spaced(each.served_tokens),
            percent(each.utilisation),
            spaced(each.calls),
            spaced(each.refused),
        ]


def _client_rows(figures: list[ClientFigures]) -> Iterator[list[str]]:
    yield ["requests", *(spaced(each.asked) for each in figures)]
    yield ["served", *(_of(each.served, each.asked) for each in figures)]
    yield ["refused (429)", *(_of(each.refused, each.asked) for each in figures)]
    for status in sorted({status for each in figures for status in each.statuses} - {200, 429}):
        yield [f"answered {status}", *(spaced(each.statuses.get(status, 0)) for each in figures)]
    if any(each.returned for each in figures):
        yield ["came back", *(spaced(each.returned) for each in figures)]
        yield ["and were served", *(_of(each.returned_served, each.returned) for each in figures)]
    for name, share in WAIT_SHARES:
        waits = (f"{percentile(each.waits_s, share):.2f} s" for each in figures)
        yield [f"wait, {name}", *waits]


def _of(part: int, whole: int) -> str:
    return f"{spaced(part)} ({percent(part / whole if whole else 0.0)})"


def _aligned(rows: Iterator[list[str]] | list[list[str]]) -> Iterator[str]:
    """In columns; all but the first are flush right."""
    rows = list(rows)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for first, *others in rows:
        cells = [first.ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
        yield "  ".join(cells).rstrip()


def _instance(each: InstanceFigures) -> dict[str, Any]:
    return {
        "name": each.name,
        "max_tpm": each.max_tpm,
        "served_tokens": each.served_tokens,
        "utilisation": round(each.utilisation, 4),
        "calls": each.calls,
        "upstream_429": each.refused,
    }


def _clients(each: ClientFigures) -> dict[str, Any]:
    return {
        "requests": each.asked,
        "served": each.served,
        "refused": each.refused,
        "statuses": {str(status): count for status, count in each.statuses.items()},
        "returned": each.returned,
        "returned_served": each.returned_served,
        "wait_s": {name: round(percentile(each.waits_s, share), 3) for name, share in WAIT_SHARES},
    }


def spaced(number: float) -> str:
    """12 345 678"""
    return f"{number:,.0f}".replace(",", " ")


def percent(share: float) -> str:
    return f"{100 * share:.1f} %"
