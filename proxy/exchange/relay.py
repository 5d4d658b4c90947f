"""Passing an upstream's answer to the client, whole or as a stream.

Until the first byte goes out a failure is the exchange's to absorb (`UpstreamFailure` or
`StreamRefused` is raised); after it the client is told, by an explicit error event in a stream and
by a closed connection otherwise (`CutShort` is raised).
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import trio
from pydantic_core import from_json

from proxy.exchange.decoding import DecodedResponse, content_coding, decodable
from proxy.exchange.headers import header, returned
from proxy.exchange.ports import UpstreamFailure
from proxy.exchange.preamble import MAX_HELD_BYTES, MAX_HELD_S, furthest
from proxy.exchange.sse import EventScanner
from proxy.exchange.usage import USAGE_WINDOW_BYTES, SoFar, Usage, from_body, from_ends

if TYPE_CHECKING:
    from collections.abc import Callable

    from proxy.exchange.ports import Headers, ResponseWriter, UpstreamResponse
    from proxy.exchange.record import RequestRecord
    from proxy.exchange.sse import Ending, Fault

HELD_BYTES: Final = 64 * 1024
"""A plain answer up to this size is read to its end before its first byte goes out, so that a
break in it can still be absorbed, and leaves in one write."""

_BREAKS: Final[dict[Fault | None, tuple[str, str]]] = {
    None: ("upstream_interrupted", "The upstream broke off in the middle of the stream."),
    "event too long": ("upstream_event_too_long", "The upstream sent an event without end."),
    "malformed event": ("upstream_malformed_event", "The upstream sent an event that is no JSON."),
}
"""What broke a stream → the code and the words in which the client is told."""


class StreamRefused(Exception):
    """The stream brought an error before any output. `error`: its error object."""

    def __init__(self, error: dict[str, Any]) -> None:
        super().__init__("error event before any output")
        self.error = error


class CutShort(Exception):
    """The answer broke after its first byte; the client has been told. `reason`: for operators.

    `error`: the error object, if the upstream itself ended it with one.
    """

    def __init__(self, reason: str, error: dict[str, Any] | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.error = error


class Relay:
    """One answer on its way to one client. What it has used can be asked at any time."""

    __slots__ = ("_record", "_response", "_scanner", "_usage", "_writer")

    def __init__(
        self, response: UpstreamResponse, writer: ResponseWriter, record: RequestRecord
    ) -> None:
        self._response = response
        self._writer = writer
        self._record = record
        self._usage: Usage | None = None
        self._scanner: EventScanner | None = None

    @property
    def counted(self) -> bool:
        """Whether it is a stream whose events were counted."""
        return self._scanner is not None

    def so_far(self, input_tokens: int) -> SoFar:
        """What is not reported yet is counted: `input_tokens`, and each event with output as a
        token. A plain answer counts once it is whole."""
        scanner, usage, complete, output = self._scanner, self._usage, True, 0
        if scanner is not None:
            usage, complete, output = scanner.usage, scanner.done, max(0, scanner.output_events)
        if usage is not None:
            return SoFar(usage, reported=True, complete=complete)
        return SoFar(Usage(input_tokens, output), reported=False, complete=False)

    def _headers(self) -> Headers:
        record = self._record
        record.first_byte_s = trio.current_time() - record.started_at
        record.status = self._response.status
        return returned(self._response.headers, record.instance.encode(), record.id.encode())

    # -- whole answers ---------------------------------------------------------------------

    async def whole(self, *, made: bool = False) -> Usage | None:
        """Relays byte for byte; the upstream side keeps the time (`UpstreamRequest.whole_s`).

        `made`: the answer was made by the upstream and not brought to it, like a file: one that
        should be JSON and is not counts as broken.
        Errors: `UpstreamFailure` before the first byte, `CutShort` after it.
        """
        read = self._response.read_chunk
        body = await read()
        piece = body and await read()
        if piece:
            pieces = [body]
            held_bytes = len(body)
            while piece and held_bytes < HELD_BYTES:
                pieces.append(piece)
                held_bytes += len(piece)
                piece = await read()
            body = b"".join(pieces)
            if piece:
                return await self._long(body, piece)
        usage = from_body(body)
        # An object with usage in it that ends as an object does is not read for this.
        whole = usage is not None and body[:1] == b"{" and body[-1:] == b"}"
        if made and not whole and self._is_json() and not _is_document(body):
            raise UpstreamFailure("body", "protocol", "the answer is no JSON", answered=True)
        self._usage = usage
        await self._writer.respond(self._response.status, self._headers(), body)
        return usage

    def _is_json(self) -> bool:
        """Whether the answer has to be a JSON document in plain text. A web page is none: it comes
        from something that stands in between."""
        headers = self._response.headers
        content_type = header(headers, b"content-type") or b""
        return (
            content_type.partition(b";")[0].strip().lower() in (b"application/json", b"text/html")
            and self._response.status not in (204, 205)
            and not content_coding(headers)
        )

    async def _long(self, head: bytes, piece: bytes) -> Usage | None:
        """Relays piece by piece, beginning with the two that have been read."""
        headers = self._headers()
        length = header(self._response.headers, b"content-length")
        if length is not None:
            headers.append((b"content-length", length))
        await self._writer.start(self._response.status, headers)
        if head:
            await self._writer.write(head)
        tail = head[-USAGE_WINDOW_BYTES:]
        try:
            while piece:
                tail = (tail + piece)[-USAGE_WINDOW_BYTES:]
                await self._writer.write(piece)
                piece = await self._response.read_chunk()
        except UpstreamFailure as failure:
            self._writer.abort()
            raise CutShort(str(failure)) from failure
        self._usage = from_ends(head, tail)
        await self._writer.finish()
        return self._usage

    # -- streams ---------------------------------------------------------------------------

    async def stream(
        self,
        *,
        drop_usage: bool,
        ending: Ending = "choices",
        choices: int = 1,
        mask: Callable[[bytes], bytes] = bytes,
    ) -> Usage | None:
        """Relays event by event as they arrive. The arguments: see `EventScanner`.

        A stream in a coding that can't be undone is passed on as it is, unread.
        Errors: `UpstreamFailure` or `StreamRefused` before the first byte, `CutShort` after it.
        """
        coding = content_coding(self._response.headers)
        if decodable(coding):
            self._response = DecodedResponse(self._response, coding)
        elif coding:
            piece = await self._response.read_chunk()
            return await self._long(b"", piece)
        self._scanner = scanner = EventScanner(
            ending, choices=choices, drop_usage=drop_usage, mask=mask
        )
        held, open_ = await self._preamble(scanner)
        await self._writer.start(self._response.status, self._headers())
        if held:
            await self._writer.write(held)
        broken: str | None = None
        try:
            if open_:
                await self._events(scanner)
        except UpstreamFailure as failure:
            broken = str(failure)
        if scanner.error is not None:
            broken = _describe(scanner.error)
        elif scanner.done:
            broken = None  # Whatever it was, it took nothing from the answer.
        else:
            broken = scanner.fault or broken or "stream ended early"
            await self._writer.write(error_event(scanner.fault, scanner.sequence_number))
        await self._writer.finish()
        if broken is not None:
            raise CutShort(broken, scanner.error)
        return scanner.usage

    async def _preamble(self, scanner: EventScanner) -> tuple[bytes, bool]:
        """Holds events until the first real output. Returns what was held, and whether more may
        come."""
        held = b""
        # Reading is what is cut short when the time is up, so nothing that was read is lost.
        with trio.CancelScope() as patience:
            while len(held) <= MAX_HELD_BYTES:
                piece = await self._response.read_chunk()
                events = scanner.feed(piece) if piece else scanner.finish()
                reached, start_up_bytes = furthest(events)
                scanner.discount(events[:start_up_bytes])
                if reached == "error":
                    raise StreamRefused(scanner.error or {})
                if events and not held:
                    patience.deadline = trio.current_time() + MAX_HELD_S
                held += events
                if reached == "output":
                    return held, bool(piece)
                if scanner.fault is not None:
                    raise UpstreamFailure("body", "protocol", scanner.fault, answered=True)
                if not piece:
                    if scanner.done:
                        return held, False
                    raise UpstreamFailure(
                        "body", "reset", "the stream ended before any output", answered=True
                    )
        return held, True

    async def _events(self, scanner: EventScanner) -> None:
        """Passes events on until the upstream has closed, or has told an error, or can't be
        followed."""
        read, write = self._response.read_chunk, self._writer.write
        while scanner.error is None and scanner.fault is None:
            piece = await read()
            events = scanner.feed(piece) if piece else scanner.finish()
            if events:
                await write(events)
            if not piece:
                return


def _is_document(body: bytes) -> bool:
    try:
        from_json(body)
    except ValueError:
        return False
    return True


def error_event(fault: Fault | None, sequence_number: int) -> bytes:
    """An SSE error event that chat and responses clients both take for one.

    It has the fields of the responses API's error event, and the `error` object at which the
    official SDK raises on any stream (openai-python, `_streaming.py`).
    """
    code, what = _BREAKS[fault]
    fields = {"code": code, "message": f"{what} The answer is incomplete.", "param": None}
    event = {
        "type": "error",
        **fields,
        "sequence_number": sequence_number,
        "error": {"type": "server_error", **fields},
    }
    return b"event: error\ndata: " + json.dumps(event).encode() + b"\n\n"


def _describe(error: dict[str, Any]) -> str:
    code, message = error.get("code") or error.get("type"), error.get("message")
    return f"error event: {code}: {message}"[:300]
