"""One request in progress: attempts until one is relayed or none is left.

Each attempt is made under a lease and settles it. As long as the client has got nothing, a failure
that another instance may not have is kept back and the next one is asked.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any, Final, Protocol

import trio

from actors.clock import wall_now
from actors.errors import InstanceCrashed
from actors.lease import CANCELLED_BEFORE_SENDING
from actors.messages import CountFirst, Demand, Outcome, Refused
from actors.models import UnresolvedReference
from actors.policy.retry_budget import RetryBudget
from proxy.exchange import classify
from proxy.exchange.affinity import affinity
from proxy.exchange.attempt import surface, upstream_request, usage_learned
from proxy.exchange.error_answer import read_error
from proxy.exchange.evidence import evidence
from proxy.exchange.failed import Failed, more_telling, tell
from proxy.exchange.headers import is_event_stream
from proxy.exchange.missing_operations import MissingOperations
from proxy.exchange.ports import UpstreamFailure
from proxy.exchange.refusals import refusal_error
from proxy.exchange.relay import CutShort, Relay, StreamRefused
from proxy.exchange.settlement import Settlement
from proxy.exchange.unaskable import Unaskable
from proxy.tokens.count import count as count_at_once
from proxy.tokens.output import EstimateRecord
from proxy.upstream.address import AddressBook

if TYPE_CHECKING:
    from collections.abc import Mapping

    from actors.lease import Lease, Leases
    from proxy.exchange.attempt import Surface
    from proxy.exchange.call import Call
    from proxy.exchange.ports import Headers, ResponseWriter, Upstream, UpstreamResponse
    from proxy.exchange.record import RequestRecord
    from proxy.exchange.terms import Terms
    from proxy.tokens.bounds import EstimateKind
    from proxy.tokens.output import Allowance

MAX_CRASHES: Final = 3
"""Instance crashes that one request puts up with before it is told."""


class InputCounter(Protocol):
    async def __call__(
        self, kind: EstimateKind, body: Mapping[str, Any], model: str, *, body_bytes: int
    ) -> int: ...


@dataclass(frozen=True, slots=True)
class Means:
    """What every request is served with. `max_wait_s`: how long one may wait for capacity.

    `count`: counts input tokens exactly, as `proxy.tokens.count.count` does. By itself that holds
    up the event loop, which a virtual clock doesn't notice; a service has a process for it.
    """

    leases: Leases
    upstream: Upstream
    allowance: Allowance
    max_wait_s: float
    addresses: AddressBook = field(default_factory=AddressBook)
    count: InputCounter = count_at_once
    estimates: EstimateRecord = field(default_factory=EstimateRecord)
    retry_budget: RetryBudget = field(default_factory=RetryBudget)
    unaskable: Unaskable = field(default_factory=Unaskable)
    missing: MissingOperations = field(default_factory=MissingOperations)


class Attempts:
    """One request in progress: attempts until one is relayed or none is left."""

    def __init__(
        self,
        means: Means,
        call: Call,
        terms: Terms,
        query: bytes,
        writer: ResponseWriter,
        record: RequestRecord,
    ) -> None:
        self._means = means
        self._call = call
        self._writer = writer
        self._record = record
        self._headers = terms.forwarded
        self._query = query
        self._excluded: frozenset[str] = frozenset()
        self._avoided = means.missing.at(call.operation.path, record.started_at)
        self._unasked = means.unaskable.at(record.started_at)
        self._suspect: Surface | None = None
        body = call.body
        self._affinity = (
            affinity(call.document, call.model, len(body)) if isinstance(body, bytes) else None
        )
        self._attempt_at = record.started_at
        wait_s, answer_s, self._priority, self._again = terms.patience
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
                if last is not None and not self._may_retry_on(lease):
                    lease.settle(CANCELLED_BEFORE_SENDING)
                    self._excluded |= {lease.config.name}
                    continue
                failed = await self._attempt(lease)
                retry_count = lease.config.retry_count
            if failed is None:
                return
            if failed.ours:
                continue
            if not failed.verdict.elsewhere:
                await self._relay_failure(failed)
                return
            last = more_telling(last, failed)
            if retries >= retry_count or trio.current_time() >= self._answer_until:
                await self._relay_failure(last)
                return
            retries += 1
            if failed.verdict.exclude:
                self._excluded |= {failed.instance}
            else:
                self._avoided |= {failed.instance}

    def _may_retry_on(self, lease: Lease) -> bool:
        """A retry elsewhere, at a sound instance, can't make an outage worse: what that instance
        takes is bounded by its own limits. Any other one has to be within the budget."""
        tried = {attempt.instance for attempt in self._record.trail}
        if lease.sound and lease.config.name not in tried:
            return True
        return self._means.retry_budget.take(trio.current_time())

    async def _acquire(self, last: Failed | None) -> Lease | None:
        """A lease, or None once the client has been told `last` because nobody else can try.

        Errors: `ProxyError` if there is no instance and nothing better to tell.
        """
        demand, crashes, binding = self._call.demand, 0, self._call.binding
        started = trio.current_time()
        # It has had its turn: at another instance, it need not queue up behind newer requests.
        retrying = self._record.attempts > 0
        while True:
            try:
                answer = await self._means.leases.acquire(
                    demand,
                    self._wait_until,
                    self._excluded,
                    self._affinity,
                    self._priority - retrying,
                    self._avoided,
                    again=self._again and not retrying,
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
        now = self._attempt_at = trio.current_time()
        record.wait_s += now - started
        record.demanded_input_tokens = demand.input_likely
        record.demanded_output_tokens = demand.output
        if isinstance(answer, Refused):
            record.refuse(answer)
            if last is not None and answer.reason != "saturated":
                await self._relay_failure(last)
                return None
            told = refusal_error if binding is None else binding.refused
            raise told(answer, demand.model, now)
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
        settlement = Settlement(self._means, call, record, lease, self._attempt_at)
        record.instance = lease.config.name
        record.attempts += 1
        learned = usage_learned(call, lease.config, self._unasked)
        ask_usage = learned == "by asking"
        try:
            request = upstream_request(
                call,
                lease,
                self._headers,
                self._query,
                ask_usage=ask_usage,
                addresses=self._means.addresses,
            )
            settlement.stage = "sent"
            response = await self._means.upstream.send(request)
            try:
                if response.status >= 300:
                    settlement.stage = "refused"
                    return await self._error_answer(settlement, response, asked=ask_usage)
                settlement.relay = relay = Relay(response, self._writer, record)
                settlement.seen = seen = evidence(response.headers)
                if is_event_stream(response.headers):
                    if seen is not None:
                        lease.observe(seen)  # now: at the end of the stream it is history
                        seen = None
                    usage = await relay.stream(
                        drop_usage=ask_usage,
                        ending=call.operation.ending,
                        choices=call.choices,
                        mask=partial(self._means.addresses.masked, lease.config),
                    )
                else:
                    usage = await relay.whole(made=True)
            finally:
                await response.aclose()
        except UpstreamFailure as failure:
            latency_s = trio.current_time() - settlement.started_at
            verdict = classify.failure(failure, latency_s=latency_s)
            settlement.failed(verdict.outcome, failure)
            return Failed(verdict, record.instance, failure=failure)
        except UnresolvedReference as missing:
            return self._refused(settlement, classify.keyless(str(missing)))
        except StreamRefused as refused:
            status, headers, body = classify.stream_error(refused.error)
            verdict = self._judged(settlement, status, headers, body)
            return self._refused(settlement, verdict, status=status, headers=headers, body=body)
        except CutShort as cut:
            settlement.cut_short(self._cut_outcome(settlement, cut))
            record.code = "upstream_error" if cut.error is not None else "upstream_interrupted"
            return None
        except BaseException:
            settlement.interrupted()
            raise
        if self._suspect is not None and self._suspect == surface(lease.config):
            self._means.unaskable.note(self._suspect, settlement.started_at)
        outcome = Outcome(
            "success",
            status=response.status,
            reached=True,
            latency_s=trio.current_time() - settlement.started_at,
            request_id=record.id,
        )
        settlement.succeeded(outcome, usage, seen, by_counting=learned == "by counting")
        return None

    async def _error_answer(
        self, settlement: Settlement, response: UpstreamResponse, *, asked: bool
    ) -> Failed:
        """`asked`: the request asked for usage on the client's behalf. Who seems to refuse to be
        asked gets it again as the client sent it, and is believed if it succeeds."""
        mask = partial(self._means.addresses.masked, settlement.lease.config)
        status, headers, body = await read_error(response, mask)
        verdict = self._judged(settlement, status, headers, body)
        failed = self._refused(settlement, verdict, status=status, headers=headers, body=body)
        if asked and classify.rejects_stream_options(status, body):
            self._suspect = surface(settlement.lease.config)
            self._unasked |= {self._suspect}
            return replace(failed, ours=True)
        if self._call.unopened and classify.cannot_decrypt(status, body):
            return replace(
                failed, verdict=replace(verdict, rule=verdict.rule._replace(elsewhere=True))
            )
        return failed

    def _judged(
        self, settlement: Settlement, status: int, headers: Headers, body: bytes
    ) -> classify.Verdict:
        return classify.answer(
            status,
            headers,
            body,
            wall_now=wall_now(),
            latency_s=trio.current_time() - settlement.started_at,
            secret=self._means.addresses.secret(settlement.lease.config),
        )

    def _cut_outcome(self, settlement: Settlement, cut: CutShort) -> Outcome:
        """An error that the upstream itself sent is judged like any other; a break is its fault."""
        if cut.error is not None:
            return self._judged(settlement, *classify.stream_error(cut.error)).outcome
        latency_s = trio.current_time() - settlement.started_at
        return classify.cut(cut.reason, latency_s=latency_s).outcome

    def _refused(
        self,
        settlement: Settlement,
        verdict: classify.Verdict,
        *,
        status: int | None = None,
        headers: Headers | None = None,
        body: bytes = b"",
    ) -> Failed:
        config = settlement.lease.config
        settlement.refused(verdict.outcome, None if headers is None else evidence(headers))
        if body:
            body = self._means.addresses.masked(config, body)
        return Failed(verdict, config.name, status, headers, body)

    async def _relay_failure(self, failed: Failed) -> None:
        await tell(failed, self._call.binding, self._writer, self._record)
