"""An errand in progress: attempts until one is relayed or none is left.

As `proxy.exchange.attempts`, without what concerns tokens: nothing is reserved, counted or learned.
"""

from __future__ import annotations

from functools import partial
from math import inf
from typing import TYPE_CHECKING

import trio

from actors.errors import InstanceCrashed
from actors.messages import CountFirst, Refused
from actors.models import UnresolvedReference
from proxy.bound.asking import LACKING, REFUSING, SERVED, aside, judged
from proxy.bound.binding import nobody
from proxy.bound.whereabouts import NOT_READABLE
from proxy.exchange import classify
from proxy.exchange.error_answer import ErrorAnswer, read_error
from proxy.exchange.failed import Failed, more_telling, tell
from proxy.exchange.headers import is_event_stream
from proxy.exchange.ports import UpstreamFailure
from proxy.exchange.record import AttemptRecord, beginning
from proxy.exchange.refusals import refusal_error
from proxy.exchange.relay import CutShort, Relay, StreamRefused

if TYPE_CHECKING:
    from actors.lease import Lease
    from actors.messages import Outcome
    from proxy.bound.binding import Binding
    from proxy.bound.errand import Errand
    from proxy.errors import ProxyError
    from proxy.exchange.attempts import Means
    from proxy.exchange.classify import Verdict
    from proxy.exchange.patience import Patience
    from proxy.exchange.ports import Headers, ResponseWriter
    from proxy.exchange.record import RequestRecord


class Carrying:
    """`binding`: to whom what the errand names binds it; None: to nobody that is known."""

    def __init__(
        self,
        means: Means,
        errand: Errand,
        binding: Binding | None,
        patience: Patience,
        writer: ResponseWriter,
        record: RequestRecord,
    ) -> None:
        self._means = means
        self._errand = errand
        self._binding = binding
        self._writer = writer
        self._record = record
        wait_s, answer_s, self._priority, _ = patience
        self._wait_until = record.started_at + wait_s
        self._answer_until = inf if answer_s is None else record.started_at + answer_s
        self._excluded: frozenset[str] = frozenset()
        means.retry_budget.request(record.started_at)

    async def run(self) -> bool:
        """Whether the upstream did what was asked; the client has its answer in any case.

        Errors: `ProxyError` for an answer of our own.
        """
        last: Failed | None = None
        while True:
            lease = await self._lease()
            if isinstance(lease, Refused):
                if last is None:
                    raise self._refusal(lease)
                break
            with lease:
                failed = await self._attempt(lease)
                retry_count = lease.config.retry_count
            if failed is None:
                return True
            self._excluded |= {failed.instance}
            self._come_last(failed)
            if not self._elsewhere(failed):
                last = failed
                break
            last = more_telling(last, failed)
            if len(self._excluded) > retry_count or not self._may_retry():
                break
        await tell(last, self._binding, self._writer, self._record)
        return False

    async def _lease(self) -> Lease | Refused:
        started = trio.current_time()
        try:
            answer = await self._means.leases.acquire(
                self._errand.demand,
                self._wait_until,
                self._excluded,
                priority=self._priority,
                avoided=self._means.missing.at(self._errand.place.resource.path, started),
                only=None if self._binding is None else self._binding.instances,
            )
        except InstanceCrashed:
            answer = Refused("unavailable")
        self._record.wait_s += trio.current_time() - started
        if isinstance(answer, Refused):
            self._record.refuse(answer)
        assert not isinstance(answer, CountFirst), "there is nothing to count"
        return answer

    def _refusal(self, refused: Refused) -> ProxyError:
        model, now = self._errand.model, trio.current_time()
        if self._binding is not None:
            return self._binding.refused(refused, model, now)
        return refusal_error(refused, model, now) if model else nobody(refused, now)

    def _may_retry(self) -> bool:
        now = trio.current_time()
        return now < self._answer_until and self._means.retry_budget.take(now)

    def _elsewhere(self, failed: Failed) -> bool:
        """Whether another instance may do it: if it can do it at all, and if this one has surely
        not done it, or does nothing that counts twice."""
        rule, place = failed.verdict.rule, self._errand.place
        if self._binding is not None and self._binding.instances <= self._excluded:
            return False
        if rule.kind in REFUSING or failed.status in LACKING:
            # Whoever makes something can do so elsewhere; and who has an upload can't be asked.
            anywhere = place.key is None or place.resource.family in NOT_READABLE
            return anywhere and self._binding is None and self._not_its_own(failed)
        return rule.elsewhere and (self._errand.method != "POST" or not rule.perhaps_done)

    def _not_its_own(self, failed: Failed) -> bool:
        """Whether what failed says nothing against the request itself."""
        return failed.verdict.elsewhere or failed.status in LACKING

    def _come_last(self, failed: Failed) -> None:
        """Who could not make this is asked last to make others: also if the client tries again
        because we may not."""
        place = self._errand.place
        if place.key is None and self._not_its_own(failed):
            now = trio.current_time()
            self._means.missing.note(place.resource.path, failed.instance, now)

    # -- one attempt -----------------------------------------------------------------------

    async def _attempt(self, lease: Lease) -> Failed | None:
        """Sends and relays under the lease, and settles it. None once the client has its answer."""
        record, name = self._record, lease.config.name
        record.instance = name
        record.attempts += 1
        started = trio.current_time()
        mask = partial(self._means.addresses.masked, lease.config)
        try:
            request = self._errand.request(lease, self._means.addresses)
            response = await self._means.upstream.send(request)
            try:
                if response.status >= 300:
                    answer = await read_error(response, mask)
                    return self._refused(lease, answer, started)
                relay = Relay(response, self._writer, record)
                if is_event_stream(response.headers):
                    record.stream = True
                    ending = self._errand.place.resource.stream_ending
                    await relay.stream(drop_usage=False, ending=ending, mask=mask)
                else:
                    await relay.whole()
            finally:
                await response.aclose()
        except UpstreamFailure as failure:
            latency_s = trio.current_time() - started
            verdict = classify.failure(failure, latency_s=latency_s)
            self._close(lease, aside(verdict), started)
            return Failed(verdict, name, failure=failure)
        except UnresolvedReference as missing:
            verdict = classify.keyless(str(missing))
            self._close(lease, aside(verdict), started)
            return Failed(verdict, name)
        except StreamRefused as refused:
            status, headers, body = classify.stream_error(refused.error)
            return self._refused(lease, ErrorAnswer(status, headers, mask(body)), started)
        except CutShort as cut:
            self._close(lease, self._cut(lease, cut), started)
            record.code = "upstream_error" if cut.error is not None else "upstream_interrupted"
            return None
        self._close(lease, SERVED._replace(status=response.status), started)
        return None

    def _refused(self, lease: Lease, answer: ErrorAnswer, started: float) -> Failed:
        verdict = self._judged(lease, *answer)
        self._close(lease, aside(verdict), started)
        return Failed(verdict, lease.config.name, *answer)

    def _judged(self, lease: Lease, status: int, headers: Headers, body: bytes) -> Verdict:
        return judged(status, headers, body, self._means.addresses.secret(lease.config))

    def _cut(self, lease: Lease, cut: CutShort) -> Outcome:
        if cut.error is None:
            return aside(classify.cut(cut.reason, latency_s=0.0))
        return aside(self._judged(lease, *classify.stream_error(cut.error)))

    def _close(self, lease: Lease, outcome: Outcome, started: float) -> None:
        """Settles the lease and remembers how it went."""
        lease.settle(outcome, 0)
        name = lease.config.name
        self._record.trail.append(
            AttemptRecord(name, started, lease.tokens, outcome, None, None, beginning(lease.met))
        )
