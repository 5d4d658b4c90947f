"""Passing an upstream's answer to the client, whole or as a stream.

Until the first byte goes out a failure is the exchange's to absorb (`Broken` is raised); after
it, the client is told: by an explicit error event in a stream, by a closed connection otherwise.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import trio

from proxy.exchange.headers import header, returned
from proxy.exchange.ports import UpstreamFailure
from proxy.exchange.preamble import MAX_HELD_BYTES, stage
from proxy.exchange.sse import EventScanner, OversizedEvent, split_events
from proxy.exchange.usage import USAGE_WINDOW_BYTES, Usage, from_body, from_ends

if TYPE_CHECKING:
    from proxy.exchange.ports import Headers, ResponseWriter, UpstreamResponse
    from proxy.exchange.record import RequestRecord

HELD_BYTES: Final = 64 * 1024
"""A plain answer up to this size is read to its end before its first byte goes out, so that a
break in it can still be absorbed, and leaves in one write."""


class StreamRefused(Exception):
    """The stream brought an error before any output. `error`: its error object."""

    def __init__(self, error: dict[str, Any]) -> None:
        super().__init__("error event before any output")
        self.error = error


class CutShort(Exception):
    """The answer broke after its first byte; the client has been told. `reason`: for operators.

    `usage`: what the stream had reported by then. `events`: how many it had delivered.
    """

    def __init__(self, reason: str, usage: Usage | None = None, events: int = 0) -> None:
        super().__init__(reason)
        self.reason = reason
        self.usage = usage
        self.events = events


class Relay:
    """One answer on its way to one client."""

    def __init__(
        self, response: UpstreamResponse, writer: ResponseWriter, record: RequestRecord
    ) -> None:
        self._response = response
        self._writer = writer
        self._record = record

    def _headers(self) -> Headers:
        self._record.first_byte_s = trio.current_time() - self._record.started_at
        self._record.status = self._response.status
        return returned(
            self._response.headers, self._record.instance.encode(), self._record.id.encode()
        )

    # -- whole answers ---------------------------------------------------------------------

    async def whole(self, deadline: float) -> Usage | None:
        """Relays byte for byte; `deadline`: trio time by which the answer must be complete.

        Errors: `UpstreamFailure` before the first byte, `CutShort` after it.
        """
        head = await self._read(deadline)
        piece = head and await self._read(deadline)
        while piece and len(head) < HELD_BYTES:
            head += piece
            piece = await self._read(deadline)
        if not piece:
            await self._writer.respond(self._response.status, self._headers(), head)
            return from_body(head)
        return await self._long(head, piece, deadline)

    async def _read(self, deadline: float) -> bytes:
        with trio.move_on_at(deadline):
            return await self._response.read_chunk()
        raise UpstreamFailure("body", "timeout", "the answer was not complete in time")

    async def _long(self, head: bytes, piece: bytes, deadline: float) -> Usage | None:
        headers = self._headers()
        length = header(self._response.headers, b"content-length")
        if length is not None:
            headers.append((b"content-length", length))
        await self._writer.start(self._response.status, headers)
        await self._writer.write(head)
        tail = head
        try:
            while piece:
                tail = (tail + piece)[-USAGE_WINDOW_BYTES:]
                await self._writer.write(piece)
                piece = await self._read(deadline)
        except UpstreamFailure as failure:
            self._writer.abort()
            raise CutShort(str(failure)) from failure
        await self._writer.finish()
        return from_ends(head[:USAGE_WINDOW_BYTES], tail)

    # -- streams ---------------------------------------------------------------------------

    async def stream(self, *, drop_usage: bool) -> Usage | None:
        """Relays event by event as they arrive.

        Errors: `UpstreamFailure` or `StreamRefused` before the first byte, `CutShort` after it.
        """
        scanner = EventScanner(drop_usage=drop_usage)
        held, piece = await self._preamble(scanner)
        await self._writer.start(self._response.status, self._headers())
        if held:
            await self._writer.write(held)
        try:
            while piece:
                piece = await self._response.read_chunk()
                events = scanner.feed(piece) if piece else scanner.finish()
                if events:
                    await self._writer.write(events)
                if scanner.error is not None:
                    break
        except UpstreamFailure as failure:
            await self._end_with_error(scanner, str(failure), "upstream_interrupted")
        except OversizedEvent:
            await self._end_with_error(scanner, "event too long", "upstream_event_too_long")
        if scanner.error is None and not scanner.done:
            await self._end_with_error(scanner, "stream ended early", "upstream_interrupted")
        await self._writer.finish()
        if scanner.error is not None:
            raise CutShort(_describe(scanner.error), scanner.usage, scanner.events)
        return scanner.usage

    async def _preamble(self, scanner: EventScanner) -> tuple[bytes, bytes]:
        """Holds events until the first real output. Returns what was held, and the last piece
        read (b"" if the stream has ended)."""
        held = b""
        while True:
            piece = await self._response.read_chunk()
            try:
                events = scanner.feed(piece) if piece else scanner.finish()
            except OversizedEvent as error:
                raise UpstreamFailure("body", "protocol", "an event is too long") from error
            if events:
                reached = stage_of(events)
                if reached == "error":
                    raise StreamRefused(scanner.error or {})
                held += events
                if reached == "output":
                    return held, piece
            if not piece:
                if scanner.done:
                    return held, b""
                raise UpstreamFailure("body", "reset", "the stream ended before any output")
            if len(held) > MAX_HELD_BYTES:
                return held, piece

    async def _end_with_error(self, scanner: EventScanner, reason: str, code: str) -> None:
        """The explicit end of a stream that broke: an error event, then a proper close."""
        await self._writer.write(error_event(code, scanner.events))
        await self._writer.finish()
        raise CutShort(reason, scanner.usage, scanner.events)


def stage_of(events: bytes) -> str:
    """The furthest stage that a run of events reaches, an error before an output winning."""
    for event in split_events(events):
        reached = stage(event)
        if reached != "preamble":
            return reached
    return "preamble"


def error_event(code: str, sequence_number: int) -> bytes:
    """An SSE error event that chat and responses clients both take for one.

    The official SDK raises on any event whose data has an `error` object (openai-python,
    `_streaming.py`).
    """
    message = "The upstream broke off in the middle of the stream. The answer is incomplete."
    error = {"type": "server_error", "code": code, "message": message, "param": None}
    data = {"type": "error", "error": error, "sequence_number": sequence_number}
    return b"event: error\ndata: " + json.dumps(data).encode() + b"\n\n"


def _describe(error: dict[str, Any]) -> str:
    code, message = error.get("code") or error.get("type"), error.get("message")
    return f"error event: {code}: {message}"[:300]
