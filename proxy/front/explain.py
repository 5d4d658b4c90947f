"""Why a request goes where it goes: before it is sent, and after.

`POST /admin/route/explain` judges a request that nobody sends; `GET /admin/requests/{id}` tells how
a recent one went; `GET /admin/estimates` how good the estimates were. None holds content or keys.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final, Protocol

import trio

from actors.errors import ChangeRefused, InvalidChange
from actors.mailbox import MailboxClosed
from actors.messages import Demand
from actors.problems import shown, unknown_field
from proxy.exchange.operations import OPERATIONS
from proxy.front.admin import failure, json_object
from proxy.tokens.output import output_limit

if TYPE_CHECKING:
    from quart import Blueprint

    from actors.clock import WallClock
    from actors.messages import Explanation
    from proxy.exchange.attempts import Means
    from proxy.exchange.record import AttemptRecord, RecentRequests, RequestRecord
    from proxy.front.admin import Answer
    from proxy.tokens.bounds import EstimateKind

SUMMARY_FIELDS: Final = ("model", "input_tokens", "max_tokens")


class Explainer(Protocol):
    async def explain(self, demand: Demand, wait_until: float) -> Explanation: ...


class RouteExplanations:
    """The views."""

    def __init__(
        self,
        explainer: Explainer,
        recent: RecentRequests,
        means: Means,
        clock: WallClock,
    ) -> None:
        self._explainer = explainer
        self._recent = recent
        self._allowance = means.allowance
        self._count = means.count
        self._estimates = means.estimates
        self._clock = clock
        self._max_wait_s = means.max_wait_s

    def add_to(self, api: Blueprint) -> None:
        api.add_url_rule("/route/explain", "explain_route", self.explain, methods=["POST"])
        api.add_url_rule("/estimates", "get_estimates", self.estimates, methods=["GET"])
        api.add_url_rule("/requests/<identity>", "get_request", self.request, methods=["GET"])

    async def explain(self) -> Answer:
        demand = await self._demand(await json_object())
        now = trio.current_time()
        try:
            found = await self._explainer.explain(demand, now + self._max_wait_s)
        except (trio.WouldBlock, MailboxClosed):
            raise ChangeRefused("the router is too busy to explain itself; try again") from None
        return {
            "model": demand.model,
            "input_tokens": demand.input_likely,
            "output_tokens": demand.output,
            "answer": found.answer,
            "retry_at": self._epoch(found.retry_at),
            "waiting": found.waiting,
            "instances": [
                {
                    "name": judged.name,
                    "eligible": judged.obstacle is None,
                    "reason": judged.obstacle,
                    "until": self._epoch(judged.until),
                    "limit_tokens": judged.limit,
                    "order": judged.order,
                    "priority": judged.priority,
                    "weight": judged.weight,
                    "utilization_percentage": round(100 * judged.utilization, 2),
                }
                for judged in found.judgements
            ],
        }, 200

    async def estimates(self) -> Answer:
        """How the estimates of input tokens compare with what was reported, by model."""
        return {
            "models": {
                model: {name: round(value, 4) for name, value in asdict(accuracy).items()}
                for model, accuracy in self._estimates.snapshot().items()
            }
        }, 200

    async def request(self, identity: str) -> Answer:
        record = self._recent.find(identity)
        if record is None:
            return failure(f"no request with the id {identity!r} is remembered"), 404
        return self._told(record), 200

    async def _demand(self, document: dict[str, Any]) -> Demand:
        model = document.get("model")
        if not isinstance(model, str) or not model:
            raise InvalidChange([("model", f"must be a model's name, not {shown(model)}")])
        kind = _kind(document)
        if kind is None:
            return self._summary(model, document)
        tokens = await self._count(kind, document, model, body_bytes=len(str(document)))
        output = output_limit(kind, document)
        if output is None:
            output = self._allowance.expected(model)
        return Demand(model, tokens, tokens, tokens, output)

    def _summary(self, model: str, document: dict[str, Any]) -> Demand:
        problems = [
            unknown_field(field, SUMMARY_FIELDS)
            for field in document
            if field not in SUMMARY_FIELDS
        ]
        numbers: dict[str, int] = {}
        for field, default in (
            ("input_tokens", 0),
            ("max_tokens", self._allowance.expected(model)),
        ):
            value = document.get(field, default)
            if type(value) is not int or not 0 <= value <= 10**9:
                problems.append((field, f"must be a whole number from 0 on, not {shown(value)}"))
            else:
                numbers[field] = value
        if problems:
            raise InvalidChange(problems)
        tokens = numbers["input_tokens"]
        return Demand(model, tokens, tokens, tokens, numbers["max_tokens"])

    def _epoch(self, at: float | None) -> float | None:
        return None if at is None else round(self._clock.epoch(at), 3)

    def _told(self, record: RequestRecord) -> dict[str, Any]:
        return {
            "id": record.id,
            "at": self._epoch(record.started_at),
            "operation": record.operation,
            "model": record.model,
            "stream": record.stream,
            "status": record.status,
            "code": record.code or None,
            "waited_ms": round(record.wait_s * 1000, 1),
            "duration_ms": round(record.duration_s * 1000, 1),
            "first_byte_ms": (
                None if record.first_byte_s is None else round(record.first_byte_s * 1000, 1)
            ),
            "reservation": {
                "input_tokens": record.demanded_input_tokens,
                "output_tokens": record.demanded_output_tokens,
            },
            "usage": {
                "input_tokens": record.input_tokens,
                "output_tokens": record.output_tokens,
            },
            "attempts": [self._told_attempt(attempt) for attempt in record.trail],
        }

    def _told_attempt(self, attempt: AttemptRecord) -> dict[str, Any]:
        outcome = attempt.outcome
        return {
            "instance": attempt.instance,
            "at": self._epoch(attempt.started_at),
            "outcome": outcome.kind,
            "status": outcome.status,
            "reason": outcome.reason or None,
            "retry_after_s": outcome.bench_s,
            "latency_ms": None if outcome.latency_s is None else round(outcome.latency_s * 1000, 1),
            "reserved_tokens": attempt.reserved_tokens,
            "settled_tokens": attempt.settled_tokens,
            "limits_seen": None if attempt.evidence is None else attempt.evidence._asdict(),
        }


def _kind(document: dict[str, Any]) -> EstimateKind | None:
    """How a request body's input is counted; None for a summary in numbers."""
    for field, path in (
        ("messages", "chat/completions"),
        ("prompt", "completions"),
        ("input", "responses"),
    ):
        if field in document:
            return next(row.estimate for row in OPERATIONS if row.path == path)
    return None
