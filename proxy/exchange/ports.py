"""What the exchange is given: a request to read, a writer for the answer, an upstream to send to.

Three protocols keep the life of a request free of Quart, Hypercorn, httpx and sockets. Their
implementations: `proxy/server/` and `proxy/front/` for the first two, `proxy/upstream/` for the
third, fakes in the tests.

Header lists: `(name, value)` pairs of bytes; names are lower-case, values without surrounding
spaces, order and repetitions as received.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

if TYPE_CHECKING:
    from actors.models import InstanceConfig
    from proxy.exchange.terms import Terms

Headers: TypeAlias = list[tuple[bytes, bytes]]


class RequestReader(Protocol):
    """One request, its head already read.

    The task that runs the exchange is cancelled when the client goes away; nothing here reports
    a disconnect in another way.
    """

    method: str
    """Upper case."""
    path: str
    """Percent-decoded path without the query; begins with `/`."""
    query: bytes
    """Without the `?`; empty if there is none."""
    headers: Headers
    terms: Terms | None
    """What the exchange has found out from the head alone and left here; None at first. A request
    whose head says the same as the one before it on its connection may bring that one's."""

    async def read_chunk(self) -> bytes:
        """The next piece of the body, of any size; b"" when it is complete, and ever after.

        Errors: `BodyTooLarge` (`proxy.errors`) as soon as the size limit is known to be passed,
        before anything is buffered beyond it; `RequestTimeout` when the client stops sending.
        """
        ...


class ResponseWriter(Protocol):
    """The answer to one request. The order is: `respond` alone, or `start`, `write`*, `finish`."""

    started: bool
    """Whether any byte of the answer has been handed over: then no other status is possible."""

    async def respond(self, status: int, headers: Headers, body: bytes) -> None:
        """A complete answer in one go. The writer adds `content-length`."""
        ...

    async def start(self, status: int, headers: Headers) -> None:
        """Sends the head at once. A `content-length` in `headers` is kept and holds for what
        follows; without one the writer frames the body itself."""
        ...

    async def write(self, data: bytes) -> None:
        """Sends `data` at once; waits while the client is slow (backpressure)."""
        ...

    async def finish(self) -> None:
        """The body is complete."""
        ...

    def abort(self) -> None:
        """Gives up in the middle of a body: the connection is closed so that the client sees that
        the answer is cut. Never blocks."""
        ...


class UploadBody(Protocol):
    """A request body that is not in memory as a whole. Each attempt reads it from the start."""

    @property
    def length(self) -> int | None:
        """In bytes; None when the client did not say: then it is sent chunked."""
        ...

    def rewind(self) -> None:
        """The next `read_chunk` begins at the first byte again. Never blocks."""
        ...

    async def read_chunk(self) -> bytes:
        """b"" at the end. Errors: as `RequestReader.read_chunk`."""
        ...


@dataclass(slots=True)
class UpstreamRequest:
    """One attempt, ready to be written to a connection of `config`'s instance.

    `url`: absolute, ASCII, with the query. `headers` lack `host`, `content-length`,
    `transfer-encoding` and `connection`: the upstream side adds those.
    `timeout_s`: from sending to the head of the answer, connecting included.
    `silence_s`: the longest wait for the next piece of the body.
    `whole_s`: from sending to the end of the body, unless that is an event stream, which may last
    as long as it is not silent; None: no such limit.
    Waiting for the next piece of an `UploadBody`, or for who reads the answer, counts towards none.
    """

    config: InstanceConfig
    method: str
    url: str
    headers: Headers
    body: bytes | UploadBody
    timeout_s: float
    silence_s: float
    whole_s: float | None = None


Phase: TypeAlias = Literal["connect", "send", "head", "body"]
"""Where an attempt failed: connecting (TLS included), sending, waiting for the head, or reading
the body."""

FailureKind: TypeAlias = Literal["refused", "reset", "timeout", "tls", "dns", "protocol", "other"]


class UpstreamFailure(Exception):
    """The upstream side could not complete an exchange; the one exception that it raises.

    `answered`: whether any byte of an answer had arrived. The text names no key and no content.
    """

    def __init__(
        self, phase: Phase, kind: FailureKind, detail: str, *, answered: bool = False
    ) -> None:
        super().__init__(f"{phase}: {kind}: {detail}")
        self.phase = phase
        self.kind = kind
        self.detail = detail
        self.answered = answered


class UpstreamResponse(Protocol):
    """An answer whose head has arrived. Must be closed with `aclose`, whatever happens."""

    status: int
    headers: Headers

    async def read_chunk(self) -> bytes:
        """The next piece of the body as it arrives, transfer coding removed, content coding not;
        b"" when it is complete. Errors: `UpstreamFailure` with phase "body"."""
        ...

    async def aclose(self) -> None:
        """Gives the connection back if the body was read to its end, else closes it. Does its
        work even in a cancelled scope, without waiting."""
        ...


class Upstream(Protocol):
    """Connections to all instances."""

    async def send(self, request: UpstreamRequest) -> UpstreamResponse:
        """Sends and waits for the head of the answer. Errors: `UpstreamFailure`."""
        ...

    async def forget(self, instance: str) -> None:
        """The instance is gone or its address has changed: close its idle connections; those in
        use finish first."""
        ...
