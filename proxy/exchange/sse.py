"""Reading a stream of server-sent events while it passes.

One scan per piece: as long as a piece is a run of whole events without usage or error, it is
handed on as it came and nothing is built from it. Format: WHATWG HTML, "Server-sent events",
"Parsing an event stream".
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from pydantic_core import from_json

from proxy.exchange.usage import Usage, from_document

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_EVENT_BYTES: Final = 8 * 1024 * 1024
"""One event holds at the most a partial image in base64; chat events have a few hundred bytes."""

_EVENT_END: Final = re.compile(rb"(?:\r\n|\n|\r(?!\n)){2}")
_TELLING: Final = re.compile(rb'"(?:usage|error)"\s*:\s*\{|^event:[ ]?error', re.MULTILINE)
_LINE_END: Final = re.compile(rb"\r\n|\n|\r")
_END_HINTS: Final = (b"[DONE]", b'"finish_reason":"', b'"finish_reason": "', b'"response.')
"""What to look for before the expression below is worth its time."""
_END: Final = re.compile(
    rb'^data: ?\[DONE\]|"finish_reason": ?"'
    rb'|"type"\s*:\s*"response\.(?:completed|failed|incomplete)"',
    re.MULTILINE,
)


class OversizedEvent(Exception):
    """An event is longer than `MAX_EVENT_BYTES`."""


class EventScanner:
    """Takes the bytes of a stream in any pieces, gives whole events, and remembers what they told.

    `drop_usage`: the usage chunk was asked for by the proxy and is kept from the client.
    Memory: one unfinished event.
    """

    __slots__ = ("_drop_usage", "_held", "done", "error", "events", "usage")

    def __init__(self, *, drop_usage: bool = False) -> None:
        self._drop_usage = drop_usage
        self._held = b""
        self.events = 0
        """Events passed on."""
        self.usage: Usage | None = None
        self.error: dict[str, Any] | None = None
        """The `error` object of an error event, or of `response.failed`."""
        self.done = False
        """Whether the answer's own end was seen: a finish reason, `[DONE]`, or a terminal
        responses event. A connection that closes before that has cut the answer short."""

    def feed(self, piece: bytes) -> bytes:
        """The whole events that `piece` completes, as they came; b"" if it completes none.

        Errors: `OversizedEvent`.
        """
        data = self._held + piece if self._held else piece
        if data.endswith(b"\n\n") and b"\r" not in data:
            self._held = b""
        else:
            cut = _last_event_end(data)
            self._held = data[cut:]
            if len(self._held) > MAX_EVENT_BYTES:
                raise OversizedEvent
            data = data[:cut]
            if not data:
                return b""
        return self._pass(data)

    def finish(self) -> bytes:
        """What is left when the upstream has closed: an event that lacks only its blank line.

        Half an event is dropped: a client can't make anything of it.
        """
        data, self._held = self._held, b""
        if b"[DONE]" in data or event_document(data) is not None:
            return self._pass(data.rstrip(b"\r\n") + b"\n\n")
        return b""

    def _pass(self, data: bytes) -> bytes:
        if not self.done and any(hint in data for hint in _END_HINTS):
            self.done = _END.search(data) is not None
        if (b'"usage"' in data or b"error" in data) and _TELLING.search(data):
            return b"".join(self._tell(data))
        self.events += data.count(b"\n\n") or 1
        return data

    def _tell(self, data: bytes) -> Iterator[bytes]:
        """Event by event; only for pieces that may tell something."""
        for event in split_events(data):
            document = event_document(event) if _TELLING.search(event) else None
            if document is not None:
                usage = from_document(document)
                self.usage = usage or self.usage
                self.error = _error(document) or self.error
                if usage and self._drop_usage and document.get("choices") == []:
                    continue
            self.events += 1
            yield event


def _last_event_end(data: bytes) -> int:
    """Where the last whole event ends; 0 if none does."""
    if b"\r" not in data:
        return data.rfind(b"\n\n") + 2 if b"\n\n" in data else 0
    end = 0
    for match in _EVENT_END.finditer(data):
        end = match.end()
    return end


def split_events(data: bytes) -> Iterator[bytes]:
    start = 0
    for match in _EVENT_END.finditer(data):
        yield data[start : match.end()]
        start = match.end()
    if start < len(data):
        yield data[start:]


def event_document(event: bytes) -> dict[str, Any] | None:
    """The JSON object in the event's data lines, or None."""
    lines = [
        line[5:].removeprefix(b" ") for line in _LINE_END.split(event) if line.startswith(b"data:")
    ]
    try:
        document = from_json(b"\n".join(lines))
    except ValueError:
        return None
    return document if isinstance(document, dict) else None


def _error(document: dict[str, Any]) -> dict[str, Any] | None:
    error = document.get("error")
    if error is None and isinstance(response := document.get("response"), dict):
        error = response.get("error")
    if error is None and document.get("type") == "error":
        error = document
    return error if isinstance(error, dict) else None
