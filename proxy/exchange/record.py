"""What is remembered of one request, for its line in the log and for whoever asks why it went as
it did. No content, no keys."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import TYPE_CHECKING, Final

from actors.messages import NOTHING

if TYPE_CHECKING:
    from actors.messages import Evidence, Met, Outcome, Refused

REMEMBERED: Final = 10_000
"""The last requests that can be asked about; some ten megabytes."""
MAX_MET: Final = 10
"""Instances of which is remembered why they did not take a request, for each decision."""


@dataclass(slots=True)
class AttemptRecord:
    """One try at one instance. `reserved_tokens`: by its lease. `settled_tokens`: what it used, as
    reported or as counted until it was cut short; None if neither is known. `evidence`: the limits
    that its answer's headers told of. `met`: what kept instances from taking it, by their names,
    until this one did."""

    instance: str
    started_at: float
    reserved_tokens: int
    outcome: Outcome
    settled_tokens: int | None
    evidence: Evidence | None
    met: Met = field(default_factory=lambda: NOTHING)


@dataclass(slots=True)
class RequestRecord:
    """Filled in while the request lives; durations in seconds on the trio clock.

    `status`: what the client got; 499 if it went away first. `wait_s`: spent waiting for leases.
    `first_byte_s`: from the start to the first byte of the answer. `refused`: the router's last
    word, if that was no.
    """

    id: str
    started_at: float
    operation: str = ""
    model: str = ""
    stream: bool = False
    instance: str = ""
    attempts: int = 0
    status: int = 499
    code: str = ""
    wait_s: float = 0.0
    first_byte_s: float | None = None
    duration_s: float = 0.0
    input_tokens: int | None = None
    output_tokens: int | None = None
    demanded_input_tokens: int = 0
    demanded_output_tokens: int = 0
    trail: list[AttemptRecord] = field(default_factory=list)
    refused: Refused | None = None

    def refuse(self, refused: Refused) -> None:
        """Takes note of the router's no."""
        self.refused = replace(refused, met=beginning(refused.met))


def beginning(met: Met) -> Met:
    """As much of it as is remembered."""
    return met if len(met) <= MAX_MET else dict(islice(met.items(), MAX_MET))


class RecentRequests:
    """The records of the last requests, by id. Of two with one id (clients may choose it) the
    later one is kept."""

    def __init__(self, limit: int = REMEMBERED) -> None:
        self._limit = limit
        self._records: OrderedDict[str, RequestRecord] = OrderedDict()

    def add(self, record: RequestRecord) -> None:
        self._records.pop(record.id, None)
        self._records[record.id] = record
        if len(self._records) > self._limit:
            self._records.popitem(last=False)

    def find(self, identity: str) -> RequestRecord | None:
        return self._records.get(identity)
