"""The tables of `docs/failures.md`, from the code that goes by them.

Run as a script, from the root of the project, it writes them into the document:

    python tests/failure_document.py
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT)] if __name__ == "__main__" else []

from wire_faults import FAULTS  # noqa: E402

from proxy.exchange.failure_table import (  # noqa: E402
    MEANING,
    RULES,
    STREAM_ERROR_STATUS,
    Rule,
    Told,
)

DOCUMENT = ROOT / "docs" / "failures.md"

TOLD: dict[Told, str] = {
    "as it came": "the upstream's answer as it came",
    "limit": "429 `rate_limit_exceeded` with the time at which it can be served; the upstream's "
    "own 429 if the retries are used up",
    "credentials": "502 `upstream_authentication_failed`",
    "redirected": "502 `upstream_redirected`",
    "unreachable": "502 `upstream_unreachable`, after a timeout 504 `upstream_timeout`",
    "cut": "an `error` event; without a stream, a connection that ends too early",
}


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def outcome_row(rule: Rule) -> list[str]:
    fault, domain = MEANING[rule.kind]
    elsewhere = "yes" if rule.elsewhere else "no"
    return [rule.phase, rule.seen, fault, domain, elsewhere, rule.bench, TOLD[rule.told]]


def tables() -> dict[str, str]:
    """By the name that marks its place in the document."""
    by_status: dict[int, list[str]] = {}
    for word, status in STREAM_ERROR_STATUS.items():
        by_status.setdefault(status, []).append(f"`{word}`")
    return {
        "outcomes": table(
            ["Phase", "What is seen", "Whose fault", "Failure domain", "Tried elsewhere", "Benched",
             "What the client gets if it is the last word"],
            map(outcome_row, RULES),
        ),
        "stream errors": table(
            ["`type` or `code` in the event", "Judged as"],
            [[", ".join(words), str(status)] for status, words in by_status.items()],
        ),
        "wire faults": table(
            ["Fault", "Plain, one instance", "Plain, with a healthy second one",
             "Stream, one instance", "Stream, with a healthy second one"],
            [[fault.name, *fault.expected] for fault in FAULTS],
        ),
    }  # fmt: skip


def filled(document: str) -> str:
    """`document` with every table in its place, between its marks."""
    for name, text in tables().items():
        before, mark, rest = document.partition(f"<!-- {name} -->\n")
        end = f"<!-- end of {name} -->\n"
        assert mark, f"the document has no place for the table {name!r}"
        assert end in rest, f"the place for the table {name!r} has no end"
        document = f"{before}{mark}{text}\n{end}{rest.partition(end)[2]}"
    return document


if __name__ == "__main__":
    DOCUMENT.write_text(filled(DOCUMENT.read_text("utf-8")), "utf-8")
