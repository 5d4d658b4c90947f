"""One request in progress: attempts until one is relayed or none is left.

Each attempt is made under a lease and settles it. As long as the client has got nothing, a failure
that another instance may not have is kept back and the next one is asked.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import inf
from typing import TYPE_CHECKING, Any, Final, Protocol

import trio

from actors.clock import wall_now
from actors.errors import InstanceCrashed
from actors.messages import CountFirst, Demand, Outcome, Refused
from actors.models import UnresolvedReference
from actors.policy.retry_budget import RetryBudget
from proxy.errors import ProxyError
from proxy.exchange import classify
from proxy.exchange.affinity import affinity
from proxy.exchange.attempt import takes_stream_options, upstream_request
from proxy.exchange.evidence import evidence
from proxy.exchange.headers import forwarded, is_event_stream, returned
from proxy.exchange.patience import patience
from proxy.exchange.ports import UpstreamFailure
from proxy.exchange.record import AttemptRecord
from proxy.exchange.refusals import refusal_error
from proxy.exchange.relay import CutShort, Relay, StreamRefused
from proxy.tokens.count import count as count_input
from proxy.tokens.output import EstimateRecord
from proxy.upstream.address import AddressBook

if TYPE_CHECKING:
    from collections.abc import Mapping

    from actors.lease import Lease, Leases
    from actors.messages import Evidence
    from proxy.exchange.call import Call
    from proxy.exchange.ports import (
        Headers,
        RequestReader,
        ResponseWriter,
        Upstream,
        UpstreamResponse,
    )
    from proxy.exchange.record import RequestRecord
    from proxy.exchange.usage import Usage
    from proxy.tokens.bounds import EstimateKind
    from proxy.tokens.output import Allowance

MAX_ERROR_BYTES: Final = 1024 * 1024
"""An error answer is kept whole, to be judged and perhaps relayed; none is near this size."""
_JSON: Final[Headers] = [(b"content-type", b"application/json")]
MAX_CRASHES: Final = 3
"""Instance crashes that one request puts up with before it is told."""


class InputCounter(Protocol):
    async def __call__(
        self, kind: EstimateKind, body: Mapping[str, Any], model: str, *, body_bytes: int
    ) -> int: ...


@dataclass(frozen=True, slots=True)
class Means:
    """What every request is served with. `max_wait_s`: how long one may wait for capacity.

    `count`: counts input tokens exactly, as `proxy.tokens.count.count` does.

    `without_stream_options`: addresses of upstreams that turned out not to take it.
    """

    leases: Leases
    upstream: Upstream
    allowance: Allowance
    max_wait_s: float
    addresses: AddressBook = field(default_factory=AddressBook)
    count: InputCounter = count_input
    estimates: EstimateRecord = field(default_factory=EstimateRecord)
    retry_budget: RetryBudget = field(default_factory=RetryBudget)
    without_stream_options: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Failed:
    """An attempt that gave the client nothing. `status` is None if there was no answer at all."""

    verdict: classify.Verdict
    instance: str
    status: int | None = None
    headers: Headers | None = None
    body: bytes = b""
    failure: UpstreamFailure | None = None


class Attempts:
    """One request in progress: attempts until one is relayed or none is left."""

    def __init__(
        self,
        means: Means,
        call: Call,
        request: RequestReader,
        writer: ResponseWriter,
        record: RequestRecord,
    ) -> None:
        self._means = means
        self._call = call
        self._writer = writer
        self._record = record
        self._headers = forwarded(request.headers)
        self._query = request.query
        self._excluded: frozenset[str] = frozenset()
        body = call.body
        self._affinity = (
            affinity(call.document, call.model, len(body)) if isinstance(body, bytes) else None
        )
        self._attempt_at = record.started_at
        wait_s, answer_s, self._priority = patience(request.headers, means.max_wait_s)
        self._wait_until = record.started_at + wait_s
        self._answer_until = inf if answer_s is None else record.started_at + answer_s
        means.retry_budget.request(record.started_at)

    async def run(self) -> None:
        last: Failed | None = None
        retries = 0
        while True:
            lease = await self._acquire(last)
            if lease is None:
                return
            with lease:
                failed = await self._attempt(lease)
                retry_count = lease.config.retry_count
            if failed is None:
                return
            if not failed.verdict.elsewhere:
                await self._relay_failure(failed)
                return
            last = _more_telling(last, failed)
            if retries >= retry_count or not self._may_retry():
                await self._relay_failure(last)
                return
            retries += 1
            if failed.verdict.exclude:
                self._excluded |= {failed.instance}

    def _may_retry(self) -> bool:
        """Whether the client still waits for an answer, and the service can afford a retry."""
        now = trio.current_time()
        return now < self._answer_until and self._means.retry_budget.take(now)

    async def _acquire(self, last: Failed | None) -> Lease | None:
        """A lease, or None once the client has been told `last` because nobody else can try.

        Errors: `ProxyError` if there is no instance and nothing better to tell.
        """
        demand, crashes, binding = self._call.demand, 0, self._call.binding
        started = trio.current_time()
        while True:
            try:
                answer = await self._means.leases.acquire(
                    demand,
                    self._wait_until,
                    self._excluded,
                    self._affinity,
                    self._priority,
                    only=None if binding is None else binding.instances,
                )
            except InstanceCrashed:
                crashes += 1
                if crashes == MAX_CRASHES:
                    raise refusal_error(Refused("unavailable"), demand.model, started) from None
                continue
            if not isinstance(answer, CountFirst):
                break
            demand = self._call.demand = await self._counted(demand)
        record = self._record
        record.wait_s += trio.current_time() - started
        record.demanded_input_tokens = demand.input_likely
        record.demanded_output_tokens = demand.output
        if isinstance(answer, Refused):
            if last is not None and answer.reason != "saturated":
                await self._relay_failure(last)
                return None
            told = refusal_error if binding is None else binding.refused
            raise told(answer, demand.model, trio.current_time())
        return answer

    async def _counted(self, demand: Demand) -> Demand:
        call = self._call
        assert isinstance(call.body, bytes)
        tokens = await self._means.count(
            call.operation.estimate, call.document, call.model, body_bytes=len(call.body)
        )
        return demand._replace(input_low=tokens, input_likely=tokens, input_high=tokens)

    # -- one attempt -----------------------------------------------------------------------

    async def _attempt(self, lease: Lease) -> Failed | None:
        """Sends and relays under the lease, and settles it. None once the client has its answer."""
        call, record = self._call, self._record
        started = self._attempt_at = trio.current_time()
        record.instance = lease.config.name
        record.attempts += 1
        ask_usage = (
            call.stream
            and call.operation.stream_usage
            and not call.asks_usage
            and takes_stream_options(lease.config)
            and lease.config.api_base not in self._means.without_stream_options
        )
        try:
            request = upstream_request(
                call,
                lease,
                self._headers,
                self._query,
                ask_usage=ask_usage,
                addresses=self._means.addresses,
            )
            response = await self._means.upstream.send(request)
            try:
                if response.status >= 300:
                    return await self._error_answer(lease, response, asked=ask_usage)
                relay = Relay(response, self._writer, record)
                seen = evidence(response.headers)
                if is_event_stream(response.headers):
                    if seen is not None:
                        lease.observe(seen)  # now: at the end of the stream it is history
                        seen = None
                    usage = await relay.stream(
                        drop_usage=ask_usage, ending=call.operation.ending, choices=call.choices
                    )
                else:
                    usage = await relay.whole()
            finally:
                await response.aclose()
        except UpstreamFailure as failure:
            return self._failed(
                lease,
                classify.failure(failure, latency_s=trio.current_time() - started),
                failure=failure,
            )
        except UnresolvedReference as missing:
            return self._failed(lease, classify.keyless(str(missing)))
        except StreamRefused as refused:
            status, headers, body = _as_answer(refused.error)
            verdict = self._judged(lease, status, headers, body)
            return self._failed(lease, verdict, status=status, headers=headers, body=body)
        except CutShort as cut:
            self._settle(lease, cut.usage, self._cut_outcome(lease, cut))
            record.code = "upstream_error" if cut.error is not None else "upstream_interrupted"
            return None
        latency_s = trio.current_time() - started
        self._settle(
            lease,
            usage,
            Outcome("success", status=response.status, reached=True, latency_s=latency_s),
            seen,
        )
        return None

    def _settle(
        self, lease: Lease, usage: Usage | None, outcome: Outcome, seen: Evidence | None = None
    ) -> None:
        self._close(lease, outcome, None if usage is None else usage.total, seen)
        if usage is None:
            return
        self._record.input_tokens, self._record.output_tokens = usage
        if outcome.kind == "success":
            call, means = self._call, self._means
            means.allowance.observe(call.model, usage.output)
            means.estimates.observe(call.model, call.demand.input_likely, usage.input)

    def _close(
        self, lease: Lease, outcome: Outcome, used_tokens: int | None, seen: Evidence | None
    ) -> None:
        """Settles the lease and remembers how it went."""
        lease.settle(outcome, used_tokens, seen)
        self._record.trail.append(
            AttemptRecord(
                lease.config.name, self._attempt_at, lease.tokens, outcome, used_tokens, seen
            )
        )

    async def _error_answer(
        self, lease: Lease, response: UpstreamResponse, *, asked: bool
    ) -> Failed:
        """`asked`: the request asked for usage on the client's behalf; an upstream that refuses
        to be asked is remembered, and gets the request again as the client sent it."""
        body = b""
        try:
            while len(body) < MAX_ERROR_BYTES and (piece := await response.read_chunk()):
                body += piece
        except UpstreamFailure:
            pass  # The status and what has come of the body tell more than the break.
        verdict = self._judged(lease, response.status, response.headers, body)
        failed = self._failed(
            lease, verdict, status=response.status, headers=response.headers, body=body
        )
        if asked and classify.rejects_stream_options(response.status, body):
            self._means.without_stream_options.add(lease.config.api_base)
            return replace(failed, verdict=replace(verdict, elsewhere=True))
        if self._call.unopened and classify.cannot_decrypt(response.status, body):
            return replace(failed, verdict=replace(verdict, elsewhere=True, exclude=True))
        return failed

    def _judged(self, lease: Lease, status: int, headers: Headers, body: bytes) -> classify.Verdict:
        return classify.answer(
            status,
            headers,
            body,
            wall_now=wall_now(),
            latency_s=trio.current_time() - self._attempt_at,
            secret=self._means.addresses.secret(lease.config),
        )

    def _cut_outcome(self, lease: Lease, cut: CutShort) -> Outcome:
        """An error that the upstream itself sent is judged like any other; a break is its fault."""
        if cut.error is not None:
            return self._judged(lease, *_as_answer(cut.error)).outcome
        latency_s = trio.current_time() - self._attempt_at
        return Outcome("instance_error", reason=cut.reason, reached=True, latency_s=latency_s)

    def _failed(
        self,
        lease: Lease,
        verdict: classify.Verdict,
        *,
        status: int | None = None,
        headers: Headers | None = None,
        body: bytes = b"",
        failure: UpstreamFailure | None = None,
    ) -> Failed:
        seen = None if headers is None else evidence(headers)
        self._close(lease, verdict.outcome, None if failure is not None else 0, seen)
        return Failed(verdict, lease.config.name, status, headers, body, failure)

    async def _relay_failure(self, failed: Failed) -> None:
        """Tells the client the failure that stays: as it came, or in our words if none came."""
        record = self._record
        if failed.status is None or failed.headers is None:
            binding = self._call.binding
            raise (unreachable if binding is None else binding.unreachable)(failed.failure)
        if failed.verdict.outcome.kind == "credential_error":
            # Not the client's key: it must not be sent looking for a mistake of its own.
            raise ProxyError(
                502,
                "The upstream did not accept this proxy's credentials.",
                type="server_error",
                code="upstream_authentication_failed",
            )
        record.status = failed.status
        record.first_byte_s = trio.current_time() - record.started_at
        headers = returned(failed.headers, failed.instance.encode(), record.id.encode())
        headers.append((b"x-proxy-attempts", b"%d" % record.attempts))
        await self._writer.respond(failed.status, headers, failed.body)


def _as_answer(error: dict[str, Any]) -> tuple[int, Headers, bytes]:
    status, body = classify.stream_error(error)
    return status, _JSON, body


def _more_telling(last: Failed | None, failed: Failed) -> Failed:
    """Of two failures the one that helps the client more: an answer before a broken connection,
    and of two answers the rate limit, whose hint says when to come back."""
    if last is None or last.status is None or failed.status == 429:
        return failed
    return last if last.status == 429 or failed.status is None else failed


def unreachable(failure: UpstreamFailure | None) -> ProxyError:
    """What the client is told when no answer came."""
    if failure is not None and failure.kind == "timeout":
        return ProxyError(
            504,
            "The upstream did not answer in time.",
            type="server_error",
            code="upstream_timeout",
        )
    return ProxyError(
        502,
        "The upstream could not be reached, or broke off before answering.",
        type="server_error",
        code="upstream_unreachable",
    )
