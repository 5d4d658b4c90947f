"""Why a request goes where it goes: before it is sent, and after.

`POST /admin/route/explain` judges a request that nobody sends; `GET /admin/requests/{id}` tells how
a recent one went; `GET /admin/estimates` how good the estimates were. None holds content or keys.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Protocol

import trio
from quart import request

from actors.errors import ChangeRefused
from actors.mailbox import MailboxClosed
from proxy.front.admin import body_bytes, failure, json_object_in
from proxy.front.question import Questions

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from quart import Blueprint

    from actors.clock import WallClock
    from actors.messages import Acquire, Demand, Explanation, Met, Refused
    from proxy.bound.binding import Binding
    from proxy.exchange.attempts import Means
    from proxy.exchange.call import Call
    from proxy.exchange.ports import Headers
    from proxy.exchange.record import AttemptRecord, RecentRequests, RequestRecord
    from proxy.front.admin import Answer


class Explainer(Protocol):
    async def explain(self, ask: Acquire) -> Explanation: ...


class RouteExplanations:
    """The views."""

    def __init__(
        self,
        explainer: Explainer,
        recent: RecentRequests,
        means: Means,
        clock: WallClock,
        known: Callable[[Mapping[str, Any]], Binding | None],
    ) -> None:
        """`known`: see `Questions`."""
        self._explainer = explainer
        self._recent = recent
        self._questions = Questions(means, known)
        self._count = means.count
        self._estimates = means.estimates
        self._clock = clock

    def add_to(self, api: Blueprint) -> None:
        api.add_url_rule("/route/explain", "explain_route", self.explain, methods=["POST"])
        api.add_url_rule("/estimates", "get_estimates", self.estimates, methods=["GET"])
        api.add_url_rule("/requests/<identity>", "get_request", self.request, methods=["GET"])

    async def explain(self) -> Answer:
        body = await body_bytes()
        path, now = request.args.get("path"), trio.current_time()
        question = self._questions.read(path, _headers(), body, json_object_in(body), now)
        ask, call = question.ask, question.call
        found = await self._found(ask)
        if found.answer == "count_first" and call is not None:
            ask = ask._replace(demand=await self._counted(call, len(body)))
            found = await self._found(ask)
        return {
            "model": ask.demand.model,
            "operation": None if call is None else call.operation.path,
            "input_tokens": ask.demand.input_likely,
            "output_tokens": ask.demand.output,
            "answer": question.refused or found.answer,
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

    async def _found(self, ask: Acquire) -> Explanation:
        try:
            return await self._explainer.explain(ask)
        except (trio.WouldBlock, MailboxClosed):
            raise ChangeRefused("the router is too busy to explain itself; try again") from None

    async def _counted(self, call: Call, body_bytes: int) -> Demand:
        tokens = await self._count(
            call.operation.estimate, call.document, call.model, body_bytes=body_bytes
        )
        return call.demand._replace(input_low=tokens, input_likely=tokens, input_high=tokens)

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
            "refusal": None if record.refused is None else self._told_refusal(record.refused),
        }

    def _told_refusal(self, refused: Refused) -> dict[str, Any]:
        return {
            "reason": refused.reason,
            "retry_at": self._epoch(refused.retry_at),
            "obstacles": self._told_met(refused.met),
        }

    def _told_met(self, met: Met) -> list[dict[str, Any]]:
        return [
            {
                "instance": name,
                "reason": obstacle.reason,
                "until": self._epoch(obstacle.until),
                "limit_tokens": obstacle.limit,
            }
            for name, obstacle in met.items()
        ]

    def _told_attempt(self, attempt: AttemptRecord) -> dict[str, Any]:
        outcome = attempt.outcome
        return {
            "instance": attempt.instance,
            "obstacles": self._told_met(attempt.met),
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


def _headers() -> Headers:
    """The question's own, which stand for the request's."""
    return [
        (name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in request.headers
    ]
