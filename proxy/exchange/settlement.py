"""The settlement that an attempt owes for its lease.

Whatever the way out, it is settled at what the upstream reported, else at what was counted so far,
and put on the request's record.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, TypeAlias

import trio

from actors.lease import CANCELLED_BEFORE_SENDING
from actors.messages import Outcome
from proxy.exchange.record import AttemptRecord, beginning

if TYPE_CHECKING:
    from actors.lease import Lease
    from actors.messages import Evidence
    from proxy.exchange.attempts import Means
    from proxy.exchange.call import Call
    from proxy.exchange.ports import UpstreamFailure
    from proxy.exchange.record import RequestRecord
    from proxy.exchange.relay import Relay
    from proxy.exchange.usage import Usage

Stage: TypeAlias = Literal["not sent", "sent", "refused", "settled"]

_INTERRUPTED: Final = Outcome("cancelled")
_NOT_SENT_WHOLE: Final = ("connect", "send")


class Settlement:
    """Of one attempt, begun at `started_at` (trio time). One of the methods that
    settle is called, once; `interrupted` also after it."""

    __slots__ = ("_call", "_means", "_record", "lease", "relay", "seen", "stage", "started_at")

    def __init__(
        self, means: Means, call: Call, record: RequestRecord, lease: Lease, started_at: float
    ) -> None:
        self._means = means
        self._call = call
        self._record = record
        self.lease = lease
        self.started_at = started_at
        self.stage: Stage = "not sent"
        """How far the upstream can have come: `sent` as soon as it may have got any of it."""
        self.relay: Relay | None = None
        """Of the answer, as soon as there is one that is no refusal."""
        self.seen: Evidence | None = None
        """What the answer's head has said of limits."""

    def succeeded(
        self, outcome: Outcome, usage: Usage | None, evidence: Evidence | None, *, by_counting: bool
    ) -> None:
        """`usage`: as reported. `evidence`: what was seen, unless the instance has been told.
        `by_counting`: nobody could be asked for it, so each event of a
        stream stands for a token."""
        call, means, complete = self._call, self._means, True
        known = usage
        if known is None and self.relay is not None and self.relay.counted:
            known, complete = self.relay.so_far(call.demand.input_likely).usage, by_counting
        self._close(outcome, None if known is None else known.total, evidence, complete=complete)
        if known is not None and complete:
            means.allowance.observe(call.model, -(-known.output // call.generated))
        if usage is not None:
            self._record.input_tokens, self._record.output_tokens = usage
            means.estimates.observe(call.model, call.demand.input_likely, usage.input)

    def refused(self, outcome: Outcome, evidence: Evidence | None) -> None:
        """The upstream has said no, or could not be asked: nothing was used."""
        if evidence is not None:
            self.seen = evidence
        self._close(outcome, 0, evidence)

    def failed(self, outcome: Outcome, failure: UpstreamFailure) -> None:
        """It broke before the client had got anything."""
        if failure.phase in _NOT_SENT_WHOLE:
            self._close(outcome, 0, complete=False)
        else:
            self.cut_short(outcome)

    def cut_short(self, outcome: Outcome) -> None:
        """What was used until now is known; whether the upstream went on is not."""
        input_likely = self._call.demand.input_likely
        if self.relay is None:
            self._close(outcome, input_likely, complete=False)
            return
        usage, reported, complete = self.relay.so_far(input_likely)
        self._close(outcome, usage.total, complete=complete)
        if reported:
            self._record.input_tokens, self._record.output_tokens = usage

    def interrupted(self) -> None:
        """The client has gone, or the service stops."""
        match self.stage:
            case "not sent":
                self._close(CANCELLED_BEFORE_SENDING, 0)
            case "refused":
                self._close(_INTERRUPTED, 0)
            case "sent":
                self.cut_short(_INTERRUPTED)
            case "settled":
                pass

    def _close(
        self,
        outcome: Outcome,
        used_tokens: int | None,
        evidence: Evidence | None = None,
        *,
        complete: bool = True,
    ) -> None:
        record, lease, self.stage = self._record, self.lease, "settled"
        if outcome.kind != "success":
            outcome = outcome._replace(request_id=record.id)
        lease.settle(outcome, used_tokens, evidence, complete=complete)
        name = lease.config.name
        if outcome.kind == "unsupported":
            operation = self._call.operation.path
            self._means.missing.note(operation, name, trio.current_time())
        met = beginning(lease.met)
        record.trail.append(
            AttemptRecord(name, self.started_at, lease.tokens, outcome, used_tokens, self.seen, met)
        )
