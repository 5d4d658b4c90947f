"""The data plane under an ASGI server: the same exchange, reached over HTTP/2 or HTTP/1.1.

`DataPlane` wraps an ASGI application and keeps for itself the requests whose path the exchange
knows. All other requests, WebSockets and the lifespan go through to the application.
"""

from __future__ import annotations

import contextlib
import logging
import re
from functools import partial
from typing import TYPE_CHECKING, Protocol, cast

import trio

from proxy.errors import BodyTooLarge, ProxyError, RequestTimeout
from proxy.exchange.headers import HOP_BY_HOP
from proxy.exchange.request_id import request_id
from proxy.server.head import target_too_long, too_many_headers
from proxy.server.limits import BODY_BYTES_PER_S, Limits

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from hypercorn.typing import (
        ASGIFramework,
        ASGIReceiveCallable,
        ASGIReceiveEvent,
        ASGISendCallable,
        ASGISendEvent,
        HTTPScope,
        Scope,
    )

    from proxy.exchange.ports import Headers, RequestReader, ResponseWriter
    from proxy.exchange.terms import Terms

    Handle = Callable[[RequestReader, ResponseWriter], Awaitable[None]]

logger = logging.getLogger("proxy.front")

LINGER_S = 2.0
"""How long an answer that came before the end of the request waits for that end. A connection
closed with unread bytes in it is reset, and a reset can destroy the answer on its way (RFC 9112
section 9.6); two seconds let a client notice the answer and stop, and bound what it costs."""

ENDING_S = 5.0
"""How long the last message of an answer may take once the client is known to be gone."""

_LIMITS = Limits()
"""For those that no setting changes."""

_FORBIDDEN_IN_VALUE = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_NAME = re.compile(rb"[a-z0-9!#$%&'*+.^_`|~-]+")
_NO_BODY = frozenset({204, 304})


class Exchange(Protocol):
    """The life of one request, as the front end sees it."""

    def matches(self, path: str) -> bool:
        """Whether `path` (decoded, without query) is one of its own. Never blocks."""
        ...

    async def handle(self, reader: RequestReader, writer: ResponseWriter) -> None:
        """Answers, or aborts a started answer. Raises nothing but `trio.Cancelled`."""
        ...


IN_ONE_LINE = bytes.maketrans(b"\r\n\0", b"   ")
"""HTTP/2 can carry header values that would break out of their line in HTTP/1.1. What must not be
passed on may be replaced by spaces (RFC 9110 section 5.5)."""


class Call:
    """One call of an ASGI application, in which a disconnect waits for the answer to end.

    Hypercorn reports every answered request as disconnected, from inside the `send` that ends
    the answer and before its own bookkeeping of the connection. An application that cancels
    itself upon that report cancels the bookkeeping, and the idle timer of the connection never
    starts again. So a disconnect that comes while the last message is on its way is passed on
    when that message has gone, or after `ENDING_S`.
    """

    __slots__ = ("_ended", "_ending", "_receive", "_send")

    def __init__(self, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        self._receive = receive
        self._send = send
        self._ending = False
        self._ended = trio.Event()

    @property
    def ended(self) -> bool:
        """Whether the server has taken the whole answer."""
        return self._ended.is_set()

    async def receive(self) -> ASGIReceiveEvent:
        message = await self._receive()
        if message["type"] == "http.disconnect" and self._ending:
            with trio.move_on_after(ENDING_S):
                await self._ended.wait()
        return message

    async def send(self, message: ASGISendEvent) -> None:
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            self._ending = True
            await self._send(message)
            self._ended.set()
        else:
            await self._send(message)


class BodyReader:
    """A `RequestReader` over ASGI messages.

    One task, `pump`, takes every message from the server, so that no piece of the body and no
    disconnect can be lost between two takers. It holds at most two messages (64 KiB each under
    Hypercorn) that nobody has read; beyond that the client has to wait.
    """

    __slots__ = (
        "_body_timeout_s", "_call", "_complete", "_inlet", "_left_bytes", "_limit_bytes",
        "_outlet", "_patience_s", "headers", "method", "path", "query", "terms",
    )  # fmt: skip

    def __init__(
        self, scope: HTTPScope, path: str, call: Call, *, limit_bytes: int, body_timeout_s: float
    ) -> None:
        self.method = scope["method"].upper()
        self.path = path
        self.query = scope["query_string"]
        self.terms: Terms | None = None
        self.headers: Headers = [
            (name, value.translate(IN_ONE_LINE)) for name, value in scope["headers"]
        ]
        self._call = call
        self._limit_bytes = limit_bytes
        too_large = declared_length(self.headers) > limit_bytes
        self._left_bytes = -1 if too_large else limit_bytes
        self._body_timeout_s = body_timeout_s
        self._patience_s = body_timeout_s
        self._complete = trio.Event()
        self._inlet, self._outlet = trio.open_memory_channel[bytes](1)

    async def pump(self) -> None:
        """Passes the body on as it is read; returns when the client has gone."""
        while True:
            message = await self._call.receive()
            if message["type"] != "http.request":
                return
            if chunk := message.get("body", b""):
                # Broken: nobody reads any more, so the rest of the body is thrown away.
                with contextlib.suppress(trio.BrokenResourceError):
                    await self._inlet.send(chunk)
            if not message.get("more_body", False):
                self._inlet.close()
                self._complete.set()

    async def read_chunk(self) -> bytes:
        """As `RequestReader.read_chunk`. The time limit counts the waits for the client only,
        all of them together: a body read slowly on our side is not the client's fault. What has
        come extends it, as under the listener's own engine."""
        if self._left_bytes < 0:
            raise BodyTooLarge(self._limit_bytes)
        began = trio.current_time()
        with trio.move_on_after(self._patience_s) as waiting:
            try:
                chunk = await self._outlet.receive()
            except trio.EndOfChannel:
                return b""
        if waiting.cancelled_caught:
            raise RequestTimeout(self._body_timeout_s)
        self._patience_s += len(chunk) / BODY_BYTES_PER_S - (trio.current_time() - began)
        self._left_bytes -= len(chunk)
        if self._left_bytes < 0:
            raise BodyTooLarge(self._limit_bytes)
        return chunk

    async def linger(self) -> None:
        """Throws away what is left of the body; waits for its end, at most `LINGER_S`.

        Also keeps Hypercorn alive: it reports the end of an answer through a queue of ten
        messages, and would wait for ever on one filled with a body that nobody takes.
        """
        self._outlet.close()
        if not self._complete.is_set():
            with trio.move_on_after(LINGER_S):
                await self._complete.wait()


class AnswerWriter:
    """A `ResponseWriter` over ASGI messages. The server leaves out the body where the method or
    the status forbids one, and waits in `send` while the client is slow."""

    __slots__ = ("_call", "_http1", "_reader", "started")

    def __init__(self, scope: HTTPScope, reader: BodyReader, call: Call) -> None:
        self._call = call
        self._reader = reader
        self._http1 = scope["http_version"] in ("1.0", "1.1")
        self.started = False

    async def respond(self, status: int, headers: Headers, body: bytes) -> None:
        framed = [header for header in headers if header[0] != b"content-length"]
        if status >= 200 and status not in _NO_BODY:
            framed.append((b"content-length", b"%d" % len(body)))
        await self.start(status, framed)
        await self.write(body)
        await self.finish()

    async def start(self, status: int, headers: Headers) -> None:
        assert not self.started, "one answer per request"
        self.started = True
        sendable = [header for header in headers if self._may_send(*header)]
        await self._call.send(
            {"type": "http.response.start", "status": status, "headers": sendable}
        )

    async def write(self, data: bytes) -> None:
        if data:
            await self._call.send({"type": "http.response.body", "body": data, "more_body": True})

    async def finish(self) -> None:
        await self._reader.linger()
        await self._call.send({"type": "http.response.body", "body": b"", "more_body": False})

    def abort(self) -> None:
        """Nothing to do here: the cut happens when the exchange returns without having finished.
        ASGI has no message for it; an answer without its last message makes the server close
        the connection, or reset the stream (`proxy.front.http2`)."""

    def _may_send(self, name: bytes, value: bytes) -> bool:
        """Not what frames a connection (ours to decide; RFC 9113 section 8.2.2 forbids it in
        HTTP/2), and nothing that could be read as a second header or a second answer."""
        if name in HOP_BY_HOP and not (self._http1 and name == b"connection"):
            return False
        if _FORBIDDEN_IN_VALUE.search(value) or not _NAME.fullmatch(name):
            logger.warning("left out a malformed response header of %d bytes", len(value))
            return False
        return True


class DataPlane:
    """ASGI middleware: `app.asgi_app = DataPlane(app.asgi_app, exchange, …)`."""

    def __init__(
        self,
        app: ASGIFramework,
        exchange: Exchange,
        *,
        max_request_bytes: int,
        body_timeout_s: float,
    ) -> None:
        self._app = app
        self._exchange = exchange
        self._max_request_bytes = max_request_bytes
        self._body_timeout_s = body_timeout_s

    async def __call__(
        self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable
    ) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        call = Call(receive, send)
        path = target_path(scope["path"])
        too_large = too_large_head(scope)
        if too_large is not None:
            await self._answer(partial(_refuse, too_large), scope, path, call)
        elif self._exchange.matches(path):
            await self._answer(self._exchange.handle, scope, path, call)
        else:
            await self._app(cast("HTTPScope", {**scope, "path": path}), call.receive, call.send)

    async def _answer(self, handle: Handle, scope: HTTPScope, path: str, call: Call) -> None:
        reader = BodyReader(
            scope,
            path,
            call,
            limit_bytes=self._max_request_bytes,
            body_timeout_s=self._body_timeout_s,
        )
        writer = AnswerWriter(scope, reader, call)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_cancel_when_client_goes, reader, call, nursery.cancel_scope)
            try:
                await handle(reader, writer)
                assert writer.started, "the exchange gave no answer"
            except Exception:
                failed = request_id(dict(reader.headers).get(b"x-request-id"))
                logger.exception("request %s failed", failed.decode())
                if not writer.started:
                    await _respond_with_failure(failed, writer)
            if not call.ended:
                await reader.linger()
            nursery.cancel_scope.cancel()


async def _cancel_when_client_goes(reader: BodyReader, call: Call, scope: trio.CancelScope) -> None:
    await reader.pump()
    # What the exchange does after its answer has gone out (settling, logging) is not cut off.
    if not call.ended:
        scope.cancel()


async def _refuse(error: ProxyError, _reader: RequestReader, writer: ResponseWriter) -> None:
    await writer.respond(error.status, error.headers(), error.body())


async def _respond_with_failure(request: bytes, writer: AnswerWriter) -> None:
    error = ProxyError(
        500,
        "The proxy failed on this request; its log says why.",
        type="server_error",
        code="internal_error",
    )
    headers = [*error.headers(), (b"x-request-id", request)]
    await writer.respond(error.status, headers, error.body())


def declared_length(headers: Headers) -> int:
    """`content-length` in bytes, 0 when there is none or it is no number (then the bytes that
    arrive are counted). More digits than any body has bytes count as the largest number."""
    for name, value in headers:
        if name == b"content-length" and value.isdigit():
            return int(value) if len(value) < 19 else 10**19
    return 0


def too_large_head(scope: HTTPScope) -> ProxyError | None:
    """What the engine says to such a head in HTTP/1.1; in HTTP/2 nobody has looked at it yet."""
    if len(list(scope["headers"])) > _LIMITS.header_count:
        return too_many_headers(_LIMITS)
    target_bytes = len(scope["raw_path"]) + len(b"?") + len(scope["query_string"])
    return target_too_long(_LIMITS) if target_bytes > _LIMITS.target_bytes else None


def target_path(path: str) -> str:
    """The path of a request target, which may be a whole URL or `*` (RFC 9112 section 3.2)."""
    if path.startswith("/"):
        return path
    return "/" + path.partition("://")[2].partition("/")[2]
