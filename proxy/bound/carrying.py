"""An errand in progress: attempts until one is relayed or none is left.

As `proxy.exchange.attempts`, without what concerns tokens: nothing is reserved, counted or learned.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

import trio

from actors.errors import InstanceCrashed
from actors.messages import CountFirst, Outcome, Refused
from actors.models import UnresolvedReference
from proxy.bound.asking import outcome, read_all
from proxy.bound.binding import nobody
from proxy.bound.whereabouts import NOT_READABLE
from proxy.exchange import classify
from proxy.exchange.attempts import MAX_ERROR_BYTES
from proxy.exchange.headers import is_event_stream, returned
from proxy.exchange.ports import UpstreamFailure
from proxy.exchange.record import AttemptRecord, beginning
from proxy.exchange.refusals import last_word, refusal_error
from proxy.exchange.relay import CutShort, Relay, StreamRefused

if TYPE_CHECKING:
    from actors.lease import Lease
    from proxy.bound.binding import Binding
    from proxy.bound.errand import Errand
    from proxy.errors import ProxyError
    from proxy.exchange.attempts import Means
    from proxy.exchange.patience import Patience
    from proxy.exchange.ports import Headers, ResponseWriter, UpstreamResponse
    from proxy.exchange.record import RequestRecord

_JSON: Final[Headers] = [(b"content-type", b"application/json")]
_NOT_ALLOWED: Final = (401, 402, 403)
_LACKING: Final = (404, 405, 501)
"""Of an address that every upstream should have: this one does not have it."""


@dataclass(frozen=True, slots=True)
class _Failed:
    """`status`: None if there was no answer at all; then `failure` says why, if it is known."""

    instance: str
    status: int | None = None
    headers: Headers | None = None
    body: bytes = b""
    failure: UpstreamFailure | None = None


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
        self._priority = patience.priority
        self._wait_until = record.started_at + patience.wait_s
        means.retry_budget.request(record.started_at)

    async def run(self) -> bool:
        """Whether the upstream did what was asked; the client has its answer in any case.

        Errors: `ProxyError` for an answer of our own.
        """
        excluded: frozenset[str] = frozenset()
        last: _Failed | None = None
        while True:
            lease = await self._lease(excluded)
            if isinstance(lease, Refused):
                if last is None:
                    raise self._refusal(lease)
                await self._tell(last)
                return False
            with lease:
                last = await self._attempt(lease)
                retry_count = lease.config.retry_count
            if last is None:
                return True
            if not self._elsewhere(last) or len(excluded) >= retry_count or not self._may_retry():
                await self._tell(last)
                return False
            excluded |= {last.instance}

    async def _lease(self, excluded: frozenset[str]) -> Lease | Refused:
        only = None if self._binding is None else self._binding.instances
        started = trio.current_time()
        try:
            answer = await self._means.leases.acquire(
                self._errand.demand,
                self._wait_until,
                excluded,
                priority=self._priority,
                only=only,
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
        return self._means.retry_budget.take(trio.current_time())

    def _elsewhere(self, failed: _Failed) -> bool:
        """Whether another instance may do better: if it may do it at all."""
        status, place = failed.status, self._errand.place
        if self._binding is not None:
            return False
        if status is None or status >= 500 or status in (408, 429) or status in _NOT_ALLOWED:
            return True
        # Whoever makes something can do so elsewhere; and who has an upload can't be asked.
        anywhere = place.key is None or place.resource.family in NOT_READABLE
        return anywhere and status in _LACKING

    # -- one attempt -----------------------------------------------------------------------

    async def _attempt(self, lease: Lease) -> _Failed | None:
        """Sends and relays under the lease, and settles it. None once the client has its answer."""
        record, name = self._record, lease.config.name
        record.instance = name
        record.attempts += 1
        started = trio.current_time()
        try:
            request = self._errand.request(lease, self._means.addresses)
            response = await self._means.upstream.send(request)
            try:
                if response.status >= 300:
                    return await self._refused(lease, response, started)
                relay = Relay(response, self._writer, record)
                if is_event_stream(response.headers):
                    record.stream = True
                    ending = self._errand.place.resource.stream_ending
                    mask = partial(self._means.addresses.masked, lease.config)
                    await relay.stream(drop_usage=False, ending=ending, mask=mask)
                else:
                    await relay.whole()
            finally:
                await response.aclose()
        except UpstreamFailure as failure:
            latency_s = trio.current_time() - started
            self._close(lease, classify.failure(failure, latency_s=latency_s).outcome, started)
            return _Failed(name, failure=failure)
        except UnresolvedReference as missing:
            self._close(lease, classify.keyless(str(missing)).outcome, started)
            return _Failed(name)
        except StreamRefused as refused:
            status, body = classify.stream_error(refused.error)
            self._close(lease, self._judged(lease, status, _JSON, body), started)
            return _Failed(name, status, _JSON, self._means.addresses.masked(lease.config, body))
        except CutShort as cut:
            self._close(lease, self._cut(lease, cut), started)
            record.code = "upstream_error" if cut.error is not None else "upstream_interrupted"
            return None
        self._close(lease, Outcome("success", status=response.status, reached=True), started)
        return None

    async def _refused(self, lease: Lease, response: UpstreamResponse, started: float) -> _Failed:
        try:
            body = await read_all(response, MAX_ERROR_BYTES)
        except UpstreamFailure:
            body = b""  # The status tells more than the break.
        self._close(lease, self._judged(lease, response.status, response.headers, body), started)
        body = self._means.addresses.masked(lease.config, body)
        return _Failed(lease.config.name, response.status, response.headers, body)

    def _judged(self, lease: Lease, status: int, headers: Headers, body: bytes) -> Outcome:
        return outcome(status, headers, body, self._means.addresses.secret(lease.config))

    def _cut(self, lease: Lease, cut: CutShort) -> Outcome:
        if cut.error is None:
            return Outcome("instance_error", reason=cut.reason, reached=True)
        status, body = classify.stream_error(cut.error)
        return self._judged(lease, status, _JSON, body)

    def _close(self, lease: Lease, outcome: Outcome, started: float) -> None:
        """Settles the lease and remembers how it went."""
        lease.settle(outcome, 0)
        name = lease.config.name
        self._record.trail.append(
            AttemptRecord(name, started, lease.tokens, outcome, None, None, beginning(lease.met))
        )

    async def _tell(self, failed: _Failed) -> None:
        """Tells the client a failure: as it came, or in our words if none came."""
        record, binding = self._record, self._binding
        if failed.status is None or failed.headers is None:
            if binding is not None:
                raise binding.unreachable(failed.failure)
            raise last_word("unreachable", failed.failure)
        if failed.status in _NOT_ALLOWED:
            raise last_word("credentials", None)
        record.status = failed.status
        record.first_byte_s = trio.current_time() - record.started_at
        headers = returned(failed.headers, failed.instance.encode(), record.id.encode())
        headers.append((b"x-proxy-attempts", b"%d" % record.attempts))
        await self._writer.respond(failed.status, headers, failed.body)
