"""One client connection: HTTP/1.1 requests in, answers out, one after the other, in one task."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, NoReturn, Protocol

import trio

from proxy.errors import BodyTooLarge, ProxyError, RequestTimeout
from proxy.server.answer import Answer, encode_refusal
from proxy.server.head import (
    HEAD_END,
    HTTP2_PREFACE,
    HeadReader,
    check_beginning,
    head_too_large,
    without_upgrade,
)
from proxy.server.one_request import OneRequest
from proxy.server.request import Request

if TYPE_CHECKING:
    from proxy.exchange.ports import RequestReader, ResponseWriter
    from proxy.server.head import Head
    from proxy.server.limits import Limits

LOG = logging.getLogger(__name__)

APOLOGY_S = 1.0
"""How long a client may take to receive the last answer of a server that is stopping."""


class Exchange(Protocol):
    """What serves the requests of the data plane."""

    def matches(self, path: str, /) -> bool:
        """Whether a request for this decoded path is for the exchange. Never blocks."""
        ...

    async def handle(self, reader: RequestReader, writer: ResponseWriter, /) -> None:
        """Answers one request. A `ProxyError` that it raises becomes the answer, if none has
        begun; it is cancelled when the client goes."""
        ...


class Host(Protocol):
    """What a connection needs to know of the server that it belongs to."""

    limits: Limits
    exchange: Exchange
    draining: bool
    """The server is stopping: no connection is kept for another request."""
    now: float
    """Trio time, up to a second old: enough to tell how long a connection has been idle."""
    date: bytes
    """The `date` header line, up to a second old."""

    async def take_over(
        self, connection: Connection, stream: trio.abc.Stream, received: bytes
    ) -> None:
        """Serves a connection that asks for something other than the exchange until it ends, as
        if `received` had not been read from `stream` yet."""
        ...


class Wire(Protocol):
    """The way to end a connection without waiting."""

    def hang_up(self, *, reset: bool = False) -> None:
        """Closes at once. `reset`: such that the client sees an error. Never blocks."""
        ...


def _internal_error() -> ProxyError:
    return ProxyError(500, "The proxy failed to answer.", type="server_error", code="internal")


def _shutting_down() -> ProxyError:
    return ProxyError(
        503, "The proxy is shutting down.",
        type="server_error", code="shutting_down", retry_after_s=1.0, close=True,
    )  # fmt: skip


class Connection:
    """Serves one client.

    A request is read, answered by the exchange in this very task, and only then is the next one
    looked at, so pipelined answers keep their order. The task waits once per request. Everything
    that ends a connection early (the client's departure, an idle limit, a drain) cancels `scope`;
    there is one scope per connection, because one per request would cost as much as two task
    switches.
    """

    def __init__(self, stream: trio.abc.Stream, wire: Wire, host: Host) -> None:
        self.scope = trio.CancelScope()
        self.limits = host.limits
        self.received = b""
        """Read from the client and not used yet."""
        self.idle_since: float | None = None
        """Trio time since when the client has owed a request; None while one is in hand."""
        self._stream = stream
        self._wire = wire
        self.host = host
        self._answer: Answer | None = None
        self.closing = host.draining
        """Whether the request in hand, or else the next one, is the last."""
        self._departed = False
        self._ended = False

    async def serve(self) -> None:
        """Serves requests until the connection is over, and closes it.

        Errors: none of the client's or the exchange's making; those are logged where they need be.
        """
        try:
            with self.scope:
                await self._serve_requests()
                await self._stream.aclose()
            if self.scope.cancelled_caught:
                await self._apologize()
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            LOG.debug("client connection ended: %s", error)
        except Exception:
            LOG.exception("client connection failed")
        finally:
            self.hang_up()

    def depart(self) -> None:
        """The client has gone: whatever is done for it is cancelled. Never blocks.

        What the exchange still does after a complete answer is its own book-keeping and goes on.
        """
        self.closing = self._departed = True
        if self._answer is None or not self._answer.complete:
            self.scope.cancel()

    def retire(self) -> None:
        """The request in hand is finished, and no other is begun. Never blocks."""
        self.closing = True
        if self.idle_since is not None:
            self.end()

    def end(self) -> None:
        """The server is done with this client: whatever is done for it is cancelled, and a request
        whose answer has not begun gets a 503. Never blocks."""
        self._ended = True
        self.scope.cancel()

    def hang_up(self, *, reset: bool = False) -> None:
        """Closes the socket at once. Never blocks."""
        self._wire.hang_up(reset=reset)

    async def send(self, data: bytes) -> None:
        """Sends all of `data`. A checkpoint when the client is slow, else now and then.

        A client that can't be reached any more cancels this connection: it raises `Cancelled`.
        """
        try:
            await self._stream.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            await self._gone()

    async def receive(self) -> bytes:
        """The next bytes of a body. A checkpoint. As `send` when the client has gone."""
        try:
            data = await self._stream.receive_some()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            await self._gone()
        if not data:
            await self._gone()
        return bytes(data)

    async def _gone(self) -> NoReturn:
        self.depart()
        await trio.lowlevel.checkpoint()
        raise trio.BrokenResourceError("the client has gone")

    async def _shake_hands(self, stream: trio.SSLStream[trio.abc.Stream]) -> bool:
        """Whether the client wants HTTP/1.1. Errors: `trio.BrokenResourceError`."""
        with trio.move_on_after(self.limits.head_timeout_s) as patience:
            await stream.do_handshake()
        if patience.cancelled_caught:
            raise trio.BrokenResourceError("no TLS handshake in time")
        protocol: str | None = stream.selected_alpn_protocol()
        return protocol != "h2"

    async def _serve_requests(self) -> None:
        host = self.host
        heads = HeadReader(self.limits)
        if isinstance(self._stream, trio.SSLStream) and not await self._shake_hands(self._stream):
            await self._hand_over(b"", None)
            return
        while True:
            try:
                raw = await self._read_head()
                if not raw:
                    return
                head = None if raw == HTTP2_PREFACE else heads.read(raw)
                if head is not None and head.content_length > self.limits.body_bytes:
                    raise BodyTooLarge(self.limits.body_bytes)
            except ProxyError as error:
                await self._refuse(error)
                return
            if head is None or head.websocket or not host.exchange.matches(head.path):
                await self._hand_over(raw, head)
                return
            if not await self._serve_request(head):
                return

    async def _read_head(self) -> bytes:
        """The next request's head; b"" when the client is done with the connection.

        Errors: `ProxyError` when there is a beginning that won't become a proper head.
        """
        received = self.received
        if received:
            # The head may be here already; a client that pipelines must not starve the others.
            await trio.lowlevel.checkpoint()
        elif self.host.draining:
            return b""
        else:
            self.idle_since = self.host.now
            received = bytes(await self._stream.receive_some())
            self.idle_since = None
        if self._ended or not received:
            return b""
        end = received.find(HEAD_END)
        if end < 0:
            received = await self._read_rest_of_head(received)
            end = received.find(HEAD_END)
            if end < 0:
                return b""
        end += len(HEAD_END)
        if end > self.limits.head_bytes:
            raise head_too_large(self.limits)
        self.received = received[end:]
        return received[:end]

    async def _read_rest_of_head(self, received: bytes) -> bytes:
        """More of what begins with `received`, until it has a whole head or the client ends."""
        searched = 0
        with trio.move_on_after(self.limits.head_timeout_s):
            while received.find(HEAD_END, max(0, searched - 3)) < 0:
                check_beginning(received, max(0, searched - 1), self.limits)
                searched = len(received)
                data = await self._stream.receive_some()
                if not data:
                    break
                received += data
            return received
        raise RequestTimeout(self.limits.head_timeout_s)

    async def _serve_request(self, head: Head) -> bool:
        """Answers one request. Whether the connection can carry another one."""
        request = Request(head, self)
        answer = self._answer = Answer(head, request, self)
        try:
            await self.host.exchange.handle(request, answer)
        except ProxyError as error:
            await self._answer_failure(answer, error)
        except Exception:
            LOG.exception("request failed")
            await self._answer_failure(answer, _internal_error())
        else:
            if not answer.complete:
                LOG.error("request left without a complete answer")
                await self._answer_failure(answer, _internal_error())
        if not answer.keep_alive or self._departed:
            return False
        if not request.complete:
            try:
                await request.skip()
            except ProxyError:
                return False
        self._answer = None
        return True

    async def _answer_failure(self, answer: Answer, error: ProxyError) -> None:
        if answer.started:
            answer.abort()
        else:
            await answer.respond(error.status, error.headers(), error.body())

    async def _refuse(self, error: ProxyError) -> None:
        LOG.debug("request refused: %s", error)
        await self.send(encode_refusal(error))

    async def _apologize(self) -> None:
        """Tells a client whose request a drain has cut short that it may come again."""
        answer = self._answer
        if answer is not None and not answer.started and not self._departed:
            with trio.move_on_after(APOLOGY_S):
                await self._stream.send_all(encode_refusal(_shutting_down()))
                await self._stream.aclose()

    async def _hand_over(self, raw: bytes, head: Head | None) -> None:
        received, self.received = self.received, b""
        stream = self._stream
        if head is not None and not head.websocket:
            raw = without_upgrade(raw)
            stream = one = OneRequest(stream, head)
            received = one.take(received)
        await self.host.take_over(self, stream, raw + received)
