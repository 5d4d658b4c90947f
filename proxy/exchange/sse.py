"""Reading a stream of server-sent events while it passes.

One scan per piece: as long as a piece is a run of whole and ordinary events without usage or
error, it is handed on as it came and nothing is built from it. Format: WHATWG HTML, "Server-sent
events", "Parsing an event stream".
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from pydantic_core import from_json

from proxy.exchange.usage import Usage, from_document

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MAX_EVENT_BYTES: Final = 8 * 1024 * 1024
"""One event holds at the most a partial image in base64; chat events have a few hundred bytes."""

Ending: TypeAlias = Literal["choices", "response", "close"]
"""How a stream shows that it is complete: by a finish reason for each choice or `[DONE]`; by a
terminal responses event; not at all, the connection just ends."""
Fault: TypeAlias = Literal["event too long", "malformed event"]

_BLANK_LINES: Final = (b"\n\n", b"\r\n\r\n")
_BLANK_LINE: Final = re.compile(rb"(?<=[\r\n])(?:\r\n|\r(?=[^\n]))|(?<=\n)\n")
"""The end of an empty line, thus of an event. A CR that comes last decides nothing yet: an LF may
follow it."""
_LINE_END: Final = re.compile(rb"\r\n|\n|\r")
_UNNAMED: Final = re.compile(rb"(?:data: \{[^\n]*\}\n\n)+"), 2
_NAMED: Final = re.compile(rb"(?:event: [^\n]*\ndata: \{[^\n]*\}\n\n)+"), 3
_PLAIN: Final = {"choices": _UNNAMED, "response": _NAMED, "close": _UNNAMED}
"""A run of events as nearly all upstreams write them, if no CR is in it, and how many lines each
has. What begins and ends as an object is taken for one."""
_ORDINARY: Final = re.compile(
    rb"(?:(?:(?:event: [^\r\n]*\r?\n)?data: (?:\{[^\r\n]*\}|\[DONE\])|:[^\r\n]*)\r?\n\r?\n)+"
)
"""The same with CRLF, with comments and with the end mark, named or not."""
_EVENT_NAME: Final = re.compile(rb"(?:^|(?<=[\r\n]))event: ?([^\r\n]*)")
_DATA_LINE: Final = re.compile(rb"(?:^|[\r\n])data(?:[:\r\n]|$)")
"""Of an event that is one, even if its data are empty."""
_DONE: Final = re.compile(rb"(?:^|[\r\n])data: ?\[DONE\]")
_TERMINAL: Final = re.compile(rb'"type"\s*:\s*"response\.(?:completed|failed|incomplete)"')


class EventScanner:
    """Takes the bytes of a stream in any pieces, gives whole events, and remembers what they told.

    What it gives and remembers is the same however the bytes are cut into pieces. Never raises.
    Memory: one unfinished event. Cost: linear in the bytes, whatever their pieces.
    """

    __slots__ = (
        "_choices_left", "_drop_usage", "_ending", "_held", "_lines", "_mask", "_plain", "done",
        "error", "fault", "output_events", "sequence_number", "usage",
    )  # fmt: skip

    def __init__(
        self,
        ending: Ending = "choices",
        *,
        choices: int = 1,
        drop_usage: bool = False,
        mask: Callable[[bytes], bytes] = bytes,
    ) -> None:
        """`choices`: how many of them end in a finish reason. `drop_usage`: the usage chunk was
        asked for by the proxy and is kept from the client. `mask`: takes out of an error event
        what the client must not see."""
        self._ending = ending
        self._plain, self._lines = _PLAIN[ending]
        self._choices_left = choices
        self._drop_usage = drop_usage
        self._mask = mask
        self._held = bytearray()
        self.sequence_number = 0
        """Of the next event of a response; else 0."""
        self.output_events = 0
        """Passed on with output in them, about one token each: those with a delta of a response,
        others with an object. See `discount`."""
        self.usage: Usage | None = None
        self.error: dict[str, Any] | None = None
        """Of an error event or of `response.failed`, the last event that is passed on."""
        self.fault: Fault | None = None
        """Why nothing after this is passed on: the stream can't be followed any further."""
        self.done = False
        """Whether the answer is complete. A connection that ends before that has cut it short."""

    def feed(self, piece: bytes) -> bytes:
        """The whole events that `piece` completes, as they came; b"" if it completes none."""
        held = self._held
        if not held and piece.endswith(_BLANK_LINES):
            return self._pass(piece)
        # An event begins after a blank line: what looks back from its start must find one.
        known = bytes(held[-2:]) if len(held) > 1 else b"\n" + held
        cut = _last_event_end(known + piece) - len(known)
        if cut < 0:
            held += piece
            passed = b""
        else:
            passed = self._pass(bytes(held) + piece[:cut])
            held[:] = piece[cut:]
        if len(held) > MAX_EVENT_BYTES:
            self.fault = self.fault or "event too long"
        if self.fault is not None or self.error is not None:
            held.clear()
        return passed

    def discount(self, start_up: bytes) -> None:
        """These events, passed on before any other, had no output in them."""
        self.output_events -= self._outputs(start_up)

    def finish(self) -> bytes:
        """What is left when the upstream has closed: an event that lacks only its blank line.

        Half an event is dropped: a client can't make anything of it.
        """
        if self._ending == "close":
            self.done = self.fault is None
        data = bytes(self._held)
        self._held.clear()
        if (b"\n" + data).endswith((b"\n\r", b"\r\r")):
            return self._pass(data)
        if _DONE.search(data) or event_document(data) is not None:
            return self._pass(data.rstrip(b"\r\n") + b"\n\n")
        return b""

    def _pass(self, data: bytes) -> bytes:
        if self.fault is not None or self.error is not None:
            return b""
        bare = data.find(b"\r") < 0  # `in` would take twice as long, here and below.
        plain = bare and self._plain.fullmatch(data)
        if not (plain or _ORDINARY.fullmatch(data)):
            return b"".join(self._examined(data))
        told_at = self._told_at(data)
        if told_at < 0:
            self._look_for_end(data, marks=not plain)
            return data
        # Most often usage comes last: only from there on is it worth looking at each event.
        start = data.rfind(b"\n\n", 0, told_at) + 2 if bare else 1
        if start == 1:
            return b"".join(self._examined(data))
        told_nothing = data[:start]
        self._look_for_end(told_nothing, marks=not plain)
        return told_nothing + b"".join(self._examined(data[start:]))

    def _told_at(self, data: bytes) -> int:
        """Before this place there is neither usage nor an error in it; -1: nowhere is. Two
        searches in the usual case."""
        places = [data.find(b'_tokens"')]
        if data.find(b"error") >= 0 and (
            data.count(b'"error"') != data.count(b'"error":null') + data.count(b'"error": null')
            or b"event: error" in data
            or b"event:error" in data
        ):
            places.append(data.find(b"error"))
        if self._ending == "response":
            places.append(data.find(b'"response.failed"'))
        return min((place for place in places if place >= 0), default=-1)

    def _look_for_end(self, data: bytes, *, marks: bool) -> None:
        """Counts, too. `marks`: it is not plain; there may be a `[DONE]` in it, and comments."""
        ending = self._ending
        if marks:
            events, outputs = data.count(b"\n\n") or data.count(b"\r\n\r\n"), self._outputs(data)
        else:  # in a third of the time that counting blank lines takes
            events = (len(data) - len(data.replace(b"\n", b""))) // self._lines
            outputs = data.count(b'.delta"') if ending == "response" else events
        if ending == "choices":
            reasons = data.count(b'"finish_reason":"') + data.count(b'"finish_reason": "')
            if reasons:
                outputs -= reasons  # Such an event brings the reason and no output.
                self._choices_left -= reasons
                self.done = self.done or self._choices_left <= 0
        elif ending == "response":
            self.sequence_number += events
            self.done = self.done or (
                (b'.completed"' in data or b'.failed"' in data or b'.incomplete"' in data)
                and _TERMINAL.search(data) is not None
            )
        if self.error is None:
            self.output_events += outputs
        if marks and not self.done and b"[DONE]" in data:
            self.done = _DONE.search(data) is not None

    def _outputs(self, data: bytes) -> int:
        if self._ending == "response":
            return data.count(b'.delta"')
        later = data.count(b"\ndata: {") + data.count(b"\ndata:{")
        return later + data.startswith((b"data: {", b"data:{"))

    def _examined(self, data: bytes) -> Iterator[bytes]:
        """Event by event what is to be passed on."""
        for event in split_events(data):
            telling = self._told_at(event) >= 0
            if telling:
                document = event_document(event)
                self.error = event_error(event, document)
                usage = from_document(document)
                self.usage = usage or self.usage
                if usage and document and document.get("choices") == []:
                    self.done = True  # It comes when all choices have been made.
                    if self._drop_usage and self.error is None:
                        continue
            unread = telling or not _ORDINARY.fullmatch(event)
            if self.error is None and unread and _is_malformed(event):
                self.fault = "malformed event"
                return
            self._look_for_end(event, marks=True)
            if self.error is not None:
                yield self._mask(event)
                return
            yield event


def _is_malformed(event: bytes) -> bool:
    """Whether it has data that no client can read: neither JSON nor `[DONE]`."""
    data = _event_data(event).strip()
    if not data or data.startswith(b"[DONE]"):
        return False
    try:
        json.loads(data)
    except (ValueError, RecursionError):
        return True
    return False


def _last_event_end(data: bytes) -> int:
    """Where the last whole event ends; 0 if none does. A first line end is no blank line."""
    if b"\r" not in data:
        return data.rfind(b"\n\n") + 2 if b"\n\n" in data else 0
    end = 0
    for match in _BLANK_LINE.finditer(data):
        end = match.end()
    return end


def split_events(data: bytes) -> Iterator[bytes]:
    """The events of a run of whole ones, each with what ends it; also a last one without. Blank
    lines beyond that are events of their own."""
    start = len(data) - len(data.lstrip(b"\r\n"))
    if start:
        yield data[:start]
    if b"\r" in data:
        for match in _BLANK_LINE.finditer(data, start):
            yield data[start : match.end()]
            start = match.end()
    else:
        # A blank line may follow the one that ended the event before: look back by one.
        while (second := data.find(b"\n\n", max(start - 1, 0)) + 1) > 0:
            yield data[start : second + 1]
            start = second + 1
    if start < len(data):
        yield data[start:]


def event_document(event: bytes) -> dict[str, Any] | None:
    """The JSON object in the event's data lines, or None."""
    try:
        document = from_json(_event_data(event))
    except ValueError:
        return None
    return document if isinstance(document, dict) else None


def event_error(event: bytes, document: dict[str, Any] | None) -> dict[str, Any] | None:
    """The error object that an event brings, `document` being its JSON object; None for all
    other events.

    Seen in the wild: an `error` object or text (chat), `type: error` with the fields beside it
    (responses), `response.failed`, and anything in an event named `error`.
    """
    if document is not None:
        error = document.get("error")
        if not error and isinstance(response := document.get("response"), dict):
            error = response.get("error")
        if error:
            return error if isinstance(error, dict) else {"message": str(error)}
        if document.get("type") == "response.failed":
            return {"code": "server_error", "message": "The response failed."}
        if document.get("type") == "error":
            return document
    named = b"error" in event and _EVENT_NAME.findall(event)[-1:] == [b"error"]
    if named and _DATA_LINE.search(event):  # without one it is no event
        return document or {"message": _event_data(event).decode("utf-8", "replace")}
    return None


def _event_data(event: bytes) -> bytes:
    return b"\n".join(
        line[5:].removeprefix(b" ") for line in _LINE_END.split(event) if line.startswith(b"data:")
    )
