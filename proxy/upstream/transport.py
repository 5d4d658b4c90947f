"""The pool under `httpx`: for everything that speaks HTTP but is not the request path.

httpx's own pool is not used because it loses connection slots when a request is cancelled while
it waits for one (encode/httpcore#1093); in this one nobody waits.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import httpx

from proxy.exchange.ports import UpstreamFailure
from proxy.upstream.environment import origin_of
from proxy.upstream.head import head, opening
from proxy.upstream.pool import OriginPool, PoolLimits

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from proxy.exchange.ports import UploadBody
    from proxy.upstream.origin import Origin
    from proxy.upstream.pool import Dialer
    from proxy.upstream.response import Response
    from proxy.upstream.watch import Watch

_OURS = frozenset({b"host", b"content-length", b"transfer-encoding", b"connection"})


class PoolTransport(httpx.AsyncBaseTransport):
    """Give it to `httpx.AsyncClient(transport=…)`. httpx's timeouts hold: `connect` and `read`
    together until the head, `read` for each wait after that; `write` and `pool` say nothing here.
    Proxies come from the environment.
    """

    def __init__(
        self,
        dialer: Dialer,
        watch: Watch,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        """`watch` must be running when the first request is sent."""
        self._dialer = dialer
        self._watch = watch
        self._environ = environ
        self._pools: dict[Origin, OriginPool] = {}

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Errors: those of httpx (`httpx.TransportError`)."""
        call = await _call(request)
        target = request.url.raw_path.decode("ascii")
        headers = [
            (name.lower(), value)
            for name, value in request.headers.raw
            if name.lower() not in _OURS
        ]
        try:
            pool = self._pool(str(request.url.copy_with(userinfo=b"")))
            start = opening(pool.origin, call.method, target)
            response = await pool.send(call, head(start, call.method, headers, call.body))
        except UpstreamFailure as failure:
            raise _httpx_error(failure, request) from failure
        return httpx.Response(
            response.status, headers=response.headers, stream=_AnswerStream(response, request)
        )

    def _pool(self, url: str) -> OriginPool:
        origin = origin_of(url, self._environ)
        pool = self._pools.get(origin)
        if pool is None:
            pool = OriginPool(origin, self._dialer, self._watch, PoolLimits())
            self._pools[origin] = pool
        return pool

    async def aclose(self) -> None:
        """Idle connections are closed, those in use finish. Not a checkpoint."""
        while self._pools:
            self._pools.popitem()[1].retire()


class _AnswerStream(httpx.AsyncByteStream):
    """Its own iterator rather than an async generator, which would be left to the garbage
    collector when a reader stops early."""

    def __init__(self, response: Response, request: httpx.Request) -> None:
        self._response = response
        self._request = request

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        try:
            data = await self._response.read_chunk()
        except UpstreamFailure as failure:
            raise _httpx_error(failure, self._request) from failure
        if not data:
            raise StopAsyncIteration
        return data

    async def aclose(self) -> None:
        await self._response.aclose()


class _RequestStream:
    """A request body that httpx produces piece by piece: an `UploadBody` that can be read once."""

    def __init__(self, stream: httpx.AsyncByteStream, length: int | None) -> None:
        self.length = length
        self._pieces = stream.__aiter__()
        self._begun = False

    def rewind(self) -> None:
        if self._begun:
            raise UpstreamFailure("send", "reset", "the body can't be sent a second time")

    async def read_chunk(self) -> bytes:
        self._begun = True
        while True:  # noqa: ASYNC913 - what it iterates over waits
            try:
                piece = await anext(self._pieces)
            except StopAsyncIteration:
                return b""
            if piece:
                return piece


@dataclass(slots=True)
class _Call:
    method: str
    body: bytes | UploadBody
    timeout_s: float
    silence_s: float
    whole_s: float | None = None


async def _call(request: httpx.Request) -> _Call:
    timeout = request.extensions.get("timeout", {})
    connect_s, read_s = _seconds(timeout.get("connect")), _seconds(timeout.get("read"))
    return _Call(request.method, await _body(request), connect_s + read_s, read_s)


async def _body(request: httpx.Request) -> bytes | _RequestStream:
    """The body in one piece if httpx has it so, else as a stream."""
    stream = request.stream
    assert isinstance(stream, httpx.AsyncByteStream)
    if isinstance(stream, httpx.ByteStream):
        return b"".join([piece async for piece in stream])
    length = request.headers.get("content-length")
    return _RequestStream(stream, int(length) if length is not None else None)


def _seconds(timeout: float | None) -> float:
    return math.inf if timeout is None else timeout


def _httpx_error(failure: UpstreamFailure, request: httpx.Request) -> httpx.TransportError:
    error: type[httpx.TransportError]
    match failure.phase, failure.kind:
        case "connect", "timeout":
            error = httpx.ConnectTimeout
        case "connect", _:
            error = httpx.ConnectError
        case "send", "timeout":
            error = httpx.WriteTimeout
        case _, "timeout":
            error = httpx.ReadTimeout
        case "send", _:
            error = httpx.WriteError
        case _, "reset":
            error = httpx.ReadError
        case _:
            error = httpx.RemoteProtocolError
    return error(str(failure), request=request)
