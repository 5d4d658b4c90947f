"""Everything that an upstream can do to a call, drawn at random between exchange and resource.

`Weather` stands where the connection pool stands otherwise. What it does to a call is one of the
faults below; which of them strike an instance, and how often, is that instance's `Storm`.
"""

from __future__ import annotations

import gzip
import json
import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import trio

from proxy.exchange.headers import is_event_stream
from proxy.exchange.ports import (
    FailureKind,
    Headers,
    Phase,
    UpstreamFailure,
    UpstreamRequest,
    UpstreamResponse,
)
from proxy.simulator.upstream import SimulatedUpstream

AT_FAULT: Final = "a client that is at fault"
"""In a request: whoever gets it answers that the client has made a mistake."""

JSON: Final = (b"content-type", b"application/json")
HTML: Final = (b"content-type", b"text/html")


@dataclass
class Told:
    """A complete answer that is no success."""

    status: int
    body: bytes = b""
    headers: Headers = field(default_factory=list)


def told(status: int, code: str | None, message: str, *headers: tuple[bytes, bytes]) -> Told:
    error = {"code": code, "message": message, "type": None, "param": None}
    return Told(status, json.dumps({"error": error}).encode(), [JSON, *headers])


# -- answers instead of the work ---------------------------------------------------------------

FAILING: Final = (
    told(500, "InternalServerError", "Backend returned unexpected response."),
    told(408, "Timeout", "The operation was timeout."),
    told(409, "Conflict", "The resource is busy."),
    told(503, "ServiceUnavailable", "Temporarily unable.", (b"retry-after", b"5")),
    told(500, "quoting", "Not with {key}.", (b"x-debug", b"{key}")),
    told(500, "quoting", "Not with {key}.", (b"content-encoding", b"gzip")),
    Told(502, b"<html><h1>502 Bad Gateway</h1></html>", [HTML]),
    Told(504, b"", [(b"content-length", b"0")]),
    Told(529, b'{"error": "overloaded"}', [JSON]),
    Told(520, b'{"error": {"code": 520, "mess', [JSON]),
    Told(302, b"", [(b"location", b"https://login.example/")]),
)
REFUSING: Final = (
    told(401, "401", "Access denied due to invalid subscription key."),
    told(401, "invalid_api_key", "Incorrect API key provided: {key}."),
    told(402, "billing", "No credit."),
    told(403, "403", "Key {key} may not be used here."),
)
MISSING: Final = (
    told(404, "DeploymentNotFound", "The API deployment for this resource does not exist."),
    told(404, "model_not_found", "The model does not exist."),
    told(400, "BadRequest", "API version not supported"),
)
AT_FAULT_ANSWERS: Final = (
    told(400, "content_filter", "The response was filtered."),
    told(400, "context_length_exceeded", "This model's maximum context length is 8 tokens."),
    told(404, "404", "Resource not found"),
    told(413, None, "Too large."),
    told(400, "bad", "Not with {key}.", (b"x-debug", b"{key}")),
    told(400, "bad", "Not with {key}.", (b"content-encoding", b"gzip")),
    told(422, None, "Unprocessable."),
    Told(415, b"no", [(b"content-type", b"text/plain")]),
)
QUOTA_BODIES: Final = (
    ("429", "Requests to X have exceeded token rate limit.{}"),
    ("429", "Requests to X have exceeded call rate limit.{}"),
    ("RateLimitReached", "Your requests have exceeded the token rate limit for your S0 tier.{}"),
    ("no_capacity", "The system is currently experiencing high demand.{}"),
    ("rate_limit_reached", "Requests have exceeded the throughput limit.{}"),
    ("rate_limit_exceeded", "Rate limit reached on tokens per min.{}"),
)
QUOTA_HINTS: Final[tuple[tuple[str, tuple[tuple[bytes, bytes], ...]], ...]] = (
    ("", ()),
    ("", ((b"retry-after-ms", b"1500"), (b"retry-after", b"2"))),
    ("", ((b"x-ms-retry-after-ms", b"700"),)),
    ("", ((b"retry-after", b"7"),)),
    ("", ((b"retry-after", b"Fri, 15 Jan 2027 08:00:30 GMT"),)),
    ("", ((b"retry-after", b"86400"),)),
    ("", ((b"retry-after", b"-3"), (b"retry-after-ms", b"soon"))),
    ("", ((b"retry-after", b"9" * 40),)),
    ("", ((b"x-ratelimit-reset-tokens", b"6m0s"), (b"x-ratelimit-reset-requests", b"120ms"))),
    ("", ((b"x-ratelimit-remaining-tokens", b"0"), (b"x-ratelimit-limit-tokens", b"1000"))),
    ("", ((b"x-ratelimit-limit-tokens", b"-1"), (b"x-ratelimit-remaining-tokens", b"-1"))),
    ("", ((b"x-rate-limit-reset-tokens", b"12"),)),
    (" Please retry after 20 seconds.", ()),
    (" Please try again in 1m2.5s.", ()),
)


def quota(rng: random.Random) -> Told:
    (code, message), (words, headers) = rng.choice(QUOTA_BODIES), rng.choice(QUOTA_HINTS)
    return told(429, code, message.format(words), *headers)


ANSWERS: Final[dict[str, Callable[[random.Random], Told]]] = {
    "failing": lambda rng: rng.choice(FAILING),
    "quota": quota,
    "refusing": lambda rng: rng.choice(REFUSING),
    "missing": lambda rng: rng.choice(MISSING),
}

# -- no answer at all --------------------------------------------------------------------------

BREAKS: Final[tuple[tuple[Phase, FailureKind, str], ...]] = (
    ("connect", "refused", "nobody listens"),
    ("connect", "dns", "no such host"),
    ("connect", "tls", "not the certificate"),
    ("connect", "other", "too many connections are in use"),
    ("send", "reset", "reset while sending"),
    ("head", "reset", "reset"),
    ("head", "protocol", "no HTTP"),
)
HANGS: Final[tuple[tuple[Phase, FailureKind, str], ...]] = (
    ("connect", "timeout", "no connection in time"),
    ("send", "timeout", "not sent in time"),
    ("head", "timeout", "nothing came in time"),
)
"""After all of the time that the request allows."""

# -- a body that goes wrong --------------------------------------------------------------------


def error_event(kind: str, code: str, **headers: str) -> bytes:
    error = {"type": kind, "code": code, "message": "{key}", "headers": headers, "param": None}
    event = {"type": "error", "error": error, "sequence_number": 3}
    return b"event: error\ndata: " + json.dumps(event).encode() + b"\n\n"


ERROR_EVENTS: Final = (
    error_event("server_error", "server_error"),
    error_event("too_many_requests", "no_capacity", **{"retry-after-ms": "2500"}),
    error_event("too_many_requests", "rate_limit_reached"),
    error_event("forbidden", "403"),
    error_event("unheard_of", "unheard_of"),
)
BODIES: Final = ("cut", "stall", "error event", "malformed", "early end", "garbage", "torn")
"""A reset; silence; an event that tells an error; one that is no JSON; an end too soon; a body
that is not what was asked for; a body in single bytes, which is no fault."""

FAULTS: Final = ("break", "hang", *ANSWERS, *BODIES)
HARMLESS: Final = "torn"
SINGLE_BYTES: Final = 300
"""So many come alone."""


@dataclass(frozen=True)
class Storm:
    """`faults`: each call meets one of them with this `probability`."""

    faults: tuple[str, ...] = ()
    probability: float = 0.0


CALM: Final = Storm()


def a_storm(rng: random.Random) -> Storm:
    kinds = rng.sample(FAULTS, rng.choice((1, 1, 3, len(FAULTS))))
    return Storm(tuple(kinds), rng.choice((0.1, 0.3, 0.5, 1.0)))


class Weather:
    """See `proxy.exchange.ports.Upstream`. `storms`: by instance; nothing strikes the others.

    `open`: answers that have not been closed. `struck`: by fault.
    """

    def __init__(self, upstream: SimulatedUpstream, rng: random.Random) -> None:
        self.storms: dict[str, Storm] = {}
        self.open = 0
        self.struck: dict[str, int] = {}
        self._upstream = upstream
        self._rng = rng

    def _strike(self, request: UpstreamRequest) -> str | None:
        storm = self.storms.get(request.config.name, CALM)
        if self._rng.random() >= storm.probability:
            return None
        fault = self._rng.choice(storm.faults)
        self.struck[fault] = self.struck.get(fault, 0) + 1
        return fault

    async def send(self, request: UpstreamRequest) -> UpstreamResponse:
        rng, fault = self._rng, self._strike(request)
        if fault == "hang":
            await trio.sleep(request.timeout_s)
            raise UpstreamFailure(*rng.choice(HANGS))
        await trio.sleep(rng.choice((0.0, 0.0, rng.uniform(0.0, 0.5))))
        if fault == "break":
            raise UpstreamFailure(*rng.choice(BREAKS), answered=rng.random() < 0.2)
        if fault in ANSWERS:
            return Answer(self, request, answer=ANSWERS[fault](rng))
        if isinstance(request.body, bytes) and AT_FAULT.encode() in request.body:
            return Answer(self, request, answer=rng.choice(AT_FAULT_ANSWERS))
        response = await self._upstream.send(request)
        return Answer(self, request, response=response, fault=fault)

    async def forget(self, instance: str) -> None:
        await self._upstream.forget(instance)


class Answer:
    """Open from the moment at which it is made: whoever has it owes its `aclose`."""

    def __init__(
        self,
        weather: Weather,
        request: UpstreamRequest,
        *,
        answer: Told | None = None,
        response: UpstreamResponse | None = None,
        fault: str | None = None,
    ) -> None:
        source: Any = response if answer is None else answer
        self.status: int = source.status
        self.headers: Headers = source.headers
        weather.open += 1
        self._weather = weather
        self._closed = False
        self._key = request.config.api_key.encode()
        self._response = response
        self.headers = [(name, value.replace(b"{key}", self._key)) for name, value in self.headers]
        self._told = [] if answer is None else [answer.body.replace(b"{key}", self._key)]
        if (b"content-encoding", b"gzip") in self.headers:
            self._told = [gzip.compress(body) for body in self._told]
        self._fault = fault
        self._stream = is_event_stream(self.headers)
        self._after = weather._rng.randrange(6) if self._stream else 0
        """Pieces that come before the fault: within the preamble, or after the first output."""
        self._early = self._after == 0
        self._silence_s = request.silence_s
        whole_s = math.inf if request.whole_s is None or self._stream else request.whole_s
        self._ends_at = trio.current_time() + whole_s
        self._torn = b""
        self._bytes_left = SINGLE_BYTES

    async def read_chunk(self) -> bytes:
        if self._response is None:
            await trio.lowlevel.checkpoint()
            return self._told.pop() if self._told else b""
        if self._fault == HARMLESS:
            return await self._single_byte()
        if self._fault is not None and self._after == 0:
            return await self._go_wrong()
        self._after -= 1
        return await self._response.read_chunk()

    async def _single_byte(self) -> bytes:
        assert self._response is not None
        if not self._torn:
            self._torn = await self._response.read_chunk()
        if self._bytes_left == 0:
            rest, self._torn = self._torn, b""
            return rest
        self._bytes_left -= 1
        byte, self._torn = self._torn[:1], self._torn[1:]
        return byte

    async def _go_wrong(self) -> bytes:
        assert self._response is not None
        fault, self._fault = self._fault, None
        match fault:
            case "stall":
                await trio.sleep(min(self._silence_s, self._ends_at - trio.current_time()))
                raise UpstreamFailure("body", "timeout", "nothing came in time", answered=True)
            case "error event" if self._stream:
                quoted = self._key if self._early else b"***"
                return self._weather._rng.choice(ERROR_EVENTS).replace(b"{key}", quoted)
            case "malformed" if self._stream:
                return b'data: {"choices":[{"delta":\n\n'
            case "early end" if self._stream:
                return b""
            case "garbage":
                await self._response.aclose()
                self._response = None
                return b"<html>Welcome to nginx</html>"
            case _:
                raise UpstreamFailure("body", "reset", "the connection was cut", answered=True)

    async def aclose(self) -> None:
        if self._response is not None:
            await self._response.aclose()
        if not self._closed:
            self._closed = True
            self._weather.open -= 1
