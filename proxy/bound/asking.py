"""Small questions of the proxy's own to an instance, and what an answer to a call without tokens
says of the instance."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import trio
from pydantic_core import from_json

from actors.clock import wall_now
from actors.errors import InstanceCrashed
from actors.lease import Lease
from actors.messages import NO_MODEL, Demand, Outcome
from actors.models import UnresolvedReference
from proxy.exchange import classify
from proxy.exchange.error_answer import read_error
from proxy.exchange.ports import UpstreamFailure, UpstreamRequest
from proxy.upstream.address import endpoint

if TYPE_CHECKING:
    from actors.messages import OutcomeKind
    from proxy.exchange.attempts import Means
    from proxy.exchange.ports import Headers, UpstreamResponse

SERVED: Final = Outcome("success", reached=True, aside=True)
"""Of a call without tokens."""
ANSWERED_PHASES: Final = ("status", "body")
NOTHING: Final = Demand(NO_MODEL, 0, 0, 0, 0)
"""What a call needs that uses no tokens."""
MAX_ANSWER_BYTES: Final = 8 * 1024 * 1024
MAX_WAIT_S: Final = 10.0
"""For one answer: many instances may have to be asked while a client waits."""
_HEADERS: Final[Headers] = [(b"accept", b"application/json"), (b"accept-encoding", b"identity")]
_BETA: Final = (b"openai-beta", b"assistants=v2")
"""Without it these families are not answered (openai-python, `resources/vector_stores`)."""
_BETA_FAMILIES: Final = frozenset({"assistants", "threads", "vector_stores"})


REFUSING: Final[frozenset[OutcomeKind]] = frozenset({"client_error", "unsupported", "model_error"})
"""What the failure table calls refusals of what was asked, as opposed to failures."""
LACKING: Final = (404, 405, 501)
"""Of an address that every upstream should have: this one does not have it."""


class Answered(NamedTuple):
    """`status`: None if there was no usable answer. `kind`: what the failure table makes of it."""

    instance: str
    status: int | None
    headers: Headers
    body: bytes
    kind: OutcomeKind

    @property
    def succeeded(self) -> bool:
        return self.kind == "success"

    @property
    def conclusive(self) -> bool:
        """Whether it says that what was asked for can't be had there. A failure, a limit and a
        refused key say nothing of it."""
        return self.kind in REFUSING


class Asking:
    """Asks instances on the proxy's own behalf; each question is a lease without tokens."""

    def __init__(self, means: Means) -> None:
        self._means = means

    async def lease(
        self, only: frozenset[str] | None = None, excluded: frozenset[str] = frozenset()
    ) -> Lease | None:
        """The next in the strategy's order that takes it now; None if there is no such."""
        try:
            answer = await self._means.leases.acquire(
                NOTHING, trio.current_time(), excluded, only=only
            )
        except InstanceCrashed:
            return None
        return answer if isinstance(answer, Lease) else None

    async def get(self, lease: Lease, path: str, query: bytes = b"") -> Answered:
        """Asks under the lease, and settles it. Errors: none but cancellation."""
        name = lease.config.name
        with lease:
            started = trio.current_time()
            try:
                status, headers, body = await self._exchange(lease, path, query)
            except UpstreamFailure as failure:
                latency_s = trio.current_time() - started
                verdict = classify.failure(failure, latency_s=latency_s)
            except UnresolvedReference as missing:
                verdict = classify.keyless(str(missing))
            else:
                if status < 300:
                    lease.settle(SERVED._replace(status=status), 0)
                    return Answered(name, status, headers, body, "success")
                secret = self._means.addresses.secret(lease.config)
                verdict = judged(status, headers, body, secret)
                lease.settle(aside(verdict), 0)
                return Answered(name, status, headers, body, verdict.rule.kind)
            lease.settle(aside(verdict), 0)
        return Answered(name, None, [], b"", verdict.rule.kind)

    async def _exchange(self, lease: Lease, path: str, query: bytes) -> tuple[int, Headers, bytes]:
        config = lease.config
        wait_s = min(config.timeout_seconds, MAX_WAIT_S)
        beta = [_BETA] if path.partition("/")[0] in _BETA_FAMILIES else []
        request = UpstreamRequest(
            config,
            "GET",
            endpoint(config, path, None, query),
            [*_HEADERS, *beta, self._means.addresses.auth_header(config)],
            b"",
            wait_s,
            wait_s,
            wait_s,
        )
        response = await self._means.upstream.send(request)
        try:
            if response.status >= 300:
                return await read_error(response, partial(self._means.addresses.masked, config))
            return response.status, response.headers, await _read_all(response, MAX_ANSWER_BYTES)
        finally:
            await response.aclose()


async def _read_all(response: UpstreamResponse, most_bytes: int) -> bytes:
    """The whole body. Errors: `UpstreamFailure`, also if there is more of it."""
    pieces: list[bytes] = []
    size = 0
    while piece := await response.read_chunk():
        size += len(piece)
        if size > most_bytes:
            raise UpstreamFailure("body", "other", "the answer is too long", answered=True)
        pieces.append(piece)
    return b"".join(pieces)


def judged(status: int, headers: Headers, body: bytes, secret: bytes) -> classify.Verdict:
    """What the failure table says of an answer to a call without tokens."""
    return classify.answer(status, headers, body, wall_now=wall_now(), latency_s=0.0, secret=secret)


def aside(verdict: classify.Verdict) -> Outcome:
    """What the end of a call without tokens says of its instance: that it can't be reached, or
    does not answer; of an answer only for people that it was a failure.

    Other refusals have nothing to do with inference (a limit on uploads, a key that may not read
    files, an API that it lacks), and keep nothing from there.
    """
    outcome, status = verdict.outcome, verdict.outcome.status
    if verdict.rule.phase not in ANSWERED_PHASES:
        return outcome
    if status is not None and status < 500 and status != 408:
        outcome = outcome._replace(kind="client_error", bench_s=None, limit=None)
    return outcome._replace(aside=True)


def json_object(body: bytes) -> dict[str, Any]:
    """The JSON object that `body` is; empty if it is none."""
    try:
        document = from_json(body)
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}
