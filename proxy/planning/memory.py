"""A client's side of the exchange without a network."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from proxy.exchange.headers import header
from proxy.planning import prompts

if TYPE_CHECKING:
    from proxy.exchange.exchange import Exchange
    from proxy.exchange.ports import Headers
    from proxy.exchange.terms import Terms
    from proxy.planning.arrivals import Ask

_JSON = (b"content-type", b"application/json")


class Reply(NamedTuple):
    """What a client sees first of an answer. `retry_after_s`: what it was told to wait."""

    status: int
    retry_after_s: float | None


class MemoryClient:
    """Asks an exchange directly."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    async def ask(self, ask: Ask, number: int, request_id: str, retries: int) -> Reply:
        """Returns when the whole answer is there. `number`: unlike that of any other prompt.

        `retries`: how often it has been asked before; the official SDKs tell that too.
        """
        headers = [
            _JSON,
            (b"x-request-id", request_id.encode()),
            (b"x-stainless-retry-count", b"%d" % retries),
        ]
        request = _Request(prompts.path(ask.model), headers, prompts.body(ask, number))
        writer = _Writer()
        await self._exchange.handle(request, writer)
        return Reply(writer.status, _retry_after_s(writer.headers))


def _retry_after_s(headers: Headers) -> float | None:
    told = header(headers, b"retry-after-ms")
    return None if told is None else int(told) / 1000


class _Request:
    """See `proxy.exchange.ports.RequestReader`."""

    __slots__ = ("_body", "headers", "method", "path", "query", "terms")

    def __init__(self, path: str, headers: Headers, body: bytes) -> None:
        self.method = "POST"
        self.path = path
        self.query = b""
        self.headers = headers
        self.terms: Terms | None = None
        self._body = body

    async def read_chunk(self) -> bytes:
        body, self._body = self._body, b""
        return body


class _Writer:
    """Keeps the head of the answer. See `proxy.exchange.ports.ResponseWriter`."""

    __slots__ = ("headers", "started", "status")

    def __init__(self) -> None:
        self.started = False
        self.status = 0
        self.headers: Headers = []

    async def respond(self, status: int, headers: Headers, body: bytes) -> None:
        del body
        await self.start(status, headers)

    async def start(self, status: int, headers: Headers) -> None:
        self.started = True
        self.status, self.headers = status, headers

    async def write(self, data: bytes) -> None:
        """A client reads as fast as it is given."""

    async def finish(self) -> None:
        """Nothing is buffered."""

    def abort(self) -> None:
        """There is no connection to close."""
