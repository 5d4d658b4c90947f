"""The life of one request: read → lease → attempt → relay → settle.

The exchange owns no task and no socket. It runs in the task of the connection, which is cancelled
when the client goes away; every lease is settled on the way out, whatever the way.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import trio

from proxy.errors import MethodNotAllowed, NotFound, ProxyError
from proxy.exchange.attempts import Attempts, Means
from proxy.exchange.call import read_call
from proxy.exchange.operations import is_data_plane
from proxy.exchange.record import RequestRecord
from proxy.exchange.request_id import request_id
from proxy.exchange.terms import given_id, read_terms

if TYPE_CHECKING:
    from collections.abc import Callable

    from proxy.bound.bound import Bound
    from proxy.exchange.client_keys import ClientKeys
    from proxy.exchange.models import ModelList
    from proxy.exchange.operations import Target
    from proxy.exchange.ports import RequestReader, ResponseWriter
    from proxy.exchange.terms import Terms

_log = logging.getLogger("proxy.exchange")


class Exchange:
    """Answers data-plane requests; one object for the whole service."""

    def __init__(
        self,
        *,
        means: Means,
        models: ModelList,
        keys: ClientKeys,
        max_running: int,
        record: Callable[[RequestRecord], None],
        bound: Bound | None = None,
    ) -> None:
        """`max_running`: requests in progress, waiting ones included; one more is refused.

        `record` is called once per request, when it is over; it must not block. `bound`: without
        it nothing is known of what instances keep, and every request goes where the strategy
        likes.
        """
        self._means = means
        self._models = models
        self._keys = keys
        self._max_running = max_running
        self._running = 0
        self._record = record
        self._bound = bound

    @property
    def running(self) -> int:
        """Requests in progress, waiting ones included."""
        return self._running

    def matches(self, path: str) -> bool:
        """Whether `handle` answers for this path."""
        return is_data_plane(path)

    async def handle(self, request: RequestReader, writer: ResponseWriter) -> None:
        """Answers one request. Raises nothing but cancellation."""
        now = trio.current_time()
        terms = request.terms
        identity = request_id(given_id(request) if terms is None else terms.given_id)
        record = RequestRecord(identity.decode(), now)
        self._running += 1
        try:
            try:
                await self._answer(request, writer, record)
            except ProxyError as error:
                await _tell(error, writer, record)
            except Exception:  # noqa: BLE001 - the client still gets an answer
                _log.exception("request %s failed", record.id)
                await _tell(_internal_error(), writer, record)
        finally:
            self._running -= 1
            record.duration_s = trio.current_time() - now
            self._record(record)

    async def _answer(
        self, request: RequestReader, writer: ResponseWriter, record: RequestRecord
    ) -> None:
        terms = request.terms
        if terms is None:
            terms = request.terms = read_terms(request, self._keys, self._means.max_wait_s)
        if self._running > self._max_running:
            raise _too_many_running(self._max_running)
        target = terms.target
        if target is None or target.operation is None:
            await self._answer_about(target, terms, request, writer, record)
            return
        _expect_method(request, "POST")
        call = await read_call(request, target, self._means.allowance)
        try:
            record.operation, record.model = call.operation.path, call.model
            record.stream = call.stream
            if call.operation.kept and self._bound is not None:
                writer = await self._bound.bind(call, terms.patience, writer, record)
            await Attempts(self._means, call, terms, request.query, writer, record).run()
        finally:
            call.close()

    async def _answer_about(
        self,
        target: Target | None,
        terms: Terms,
        request: RequestReader,
        writer: ResponseWriter,
        record: RequestRecord,
    ) -> None:
        """Answers a request that asks no model for anything: about models, or what is kept."""
        if target is not None and target.models is not None:
            _expect_method(request, "GET", "HEAD")
            body = await self._models.answer(target.models)
            record.status = 200
            identity = (b"x-request-id", record.id.encode())
            await writer.respond(200, [(b"content-type", b"application/json"), identity], body)
        elif target is not None and target.place is not None and self._bound is not None:
            _expect_method(request, *target.place.resource.methods)
            await self._bound.serve(request, writer, record, target.place, terms)
        else:
            raise NotFound(
                f"Unknown request URL: {request.method} {request.path}.", code="unknown_url"
            )


def _internal_error() -> ProxyError:
    return ProxyError(
        500,
        "The proxy failed to process the request. The reason is in its log.",
        type="server_error",
        code="internal_error",
    )


def _too_many_running(limit: int) -> ProxyError:
    return ProxyError(
        503,
        f"The proxy has {limit} requests in progress, the most that it takes "
        "(MAX_CONCURRENT_REQUESTS). Please retry in a moment.",
        type="server_error",
        code="too_many_requests_in_progress",
        retry_after_s=1.0,
    )


def _expect_method(request: RequestReader, *allowed: str) -> None:
    if request.method not in allowed:
        raise MethodNotAllowed(request.method, allowed)


async def _tell(error: ProxyError, writer: ResponseWriter, record: RequestRecord) -> None:
    record.code = error.code or ""
    if writer.started:
        writer.abort()
        return
    record.status = error.status
    headers = error.headers()
    headers.append((b"x-request-id", record.id.encode()))
    if record.attempts:
        headers.append((b"x-proxy-attempts", b"%d" % record.attempts))
    await writer.respond(error.status, headers, error.body())
