"""Remembering who made what, from answers on their way to clients.

Only what stands where the API puts an id is taken: an answer repeats much that a client wrote.
What is remembered is known before the client has read it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from proxy.bound.asking import json_object
from proxy.bound.ids import made_by, sealed_in
from proxy.exchange.headers import is_event_stream
from proxy.exchange.sse import event_document, split_events

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from proxy.bound.owners import Owners
    from proxy.exchange.ports import Headers, ResponseWriter
    from proxy.exchange.record import RequestRecord
    from proxy.exchange.resources import Key

MAX_KEPT_BYTES: Final = 4 * 1024 * 1024
"""Of a long answer; what is made stands at its beginning, but encrypted items anywhere."""
MAX_EVENTS: Final = 16
"""Events of a stream that may come before the one that names what is made."""

_SEALED: Final = b'"encrypted_content"'
_NAME: Final = rb'"id":\s*"([A-Za-z0-9][A-Za-z0-9_.=-]{0,199})"'
_FIRST_ID: Final = re.compile(rb"\s*\{\s*" + _NAME)
"""An answer that begins with its id, as they do: then nothing has to be parsed."""
_CREATED: Final = re.compile(
    rb'(?:event: response\.created\n)?data: \{"type":\s*"response\.created",\s*'
    rb'(?:"sequence_number":\s*\d+,\s*)?"response":\s*\{\s*' + _NAME
)


class Notes:
    """A `ResponseWriter` that passes everything on, and notes whom `record` names as owner."""

    __slots__ = ("_kept", "_owners", "_record", "_stream", "_succeeds", "_writer", "started")

    def __init__(self, writer: ResponseWriter, record: RequestRecord, owners: Owners) -> None:
        self._writer = writer
        self._record = record
        self._owners = owners
        self.started = False
        self._succeeds = self._stream = False
        self._kept: bytearray | None = bytearray()

    async def respond(self, status: int, headers: Headers, body: bytes) -> None:
        self.started = True
        if 200 <= status < 300:
            self._note(self._in_answer(body))
        await self._writer.respond(status, headers, body)

    async def start(self, status: int, headers: Headers) -> None:
        self.started = True
        self._succeeds = 200 <= status < 300
        self._stream = is_event_stream(headers)
        await self._writer.start(status, headers)

    async def write(self, data: bytes) -> None:
        if self._succeeds:
            if self._stream:
                self._note(self._in_events(data))
            elif self._kept is not None:
                self._keep(data)
        await self._writer.write(data)

    async def finish(self) -> None:
        if self._kept:
            self._note(self._in_answer(bytes(self._kept)))
        await self._writer.finish()

    def abort(self) -> None:
        self._writer.abort()

    def _keep(self, data: bytes) -> None:
        assert self._kept is not None
        self._kept += data
        if len(self._kept) > MAX_KEPT_BYTES:
            self._kept = None

    def _note(self, keys: Iterable[Key]) -> None:
        for key in keys:
            self._owners.remember(key, self._record.instance)

    def _in_answer(self, body: bytes) -> Iterator[Key]:
        raise NotImplementedError

    def _in_events(self, data: bytes) -> Iterator[Key]:
        """`data`: whole events."""
        raise NotImplementedError


class ResponseNotes(Notes):
    """Of a new response: its id if it is stored, and the encrypted items that it brings."""

    __slots__ = ("_events_left", "_opened", "_stored")

    def __init__(
        self,
        writer: ResponseWriter,
        record: RequestRecord,
        owners: Owners,
        *,
        stored: bool,
        opened: tuple[Key, ...],
    ) -> None:
        """`stored`: the upstream keeps it. `opened`: encrypted items of the request, of which
        nobody knows who made them; an answer proves who can read them."""
        super().__init__(writer, record, owners)
        self._stored = stored
        self._opened = opened
        self._events_left = MAX_EVENTS

    def _in_answer(self, body: bytes) -> Iterator[Key]:
        yield from self._opened
        first = _FIRST_ID.match(body)
        if first is not None and self._stored:
            yield f"responses/{first[1].decode()}"
        if (first is None and self._stored) or _SEALED in body:
            yield from self._told(json_object(body))

    def _in_events(self, data: bytes) -> Iterator[Key]:
        if self._opened:
            yield from self._opened
            self._opened = ()
        if self._stored and self._events_left:
            first = _CREATED.match(data)
            if first is not None:
                self._events_left = 0
                yield f"responses/{first[1].decode()}"
            else:
                yield from self._in_first_events(data)
        if _SEALED in data:
            for event in split_events(data):
                if _SEALED in event:
                    document = event_document(event) or {}
                    if document.get("type") == "response.output_item.done":
                        yield from sealed_in({"output": [document.get("item")]})

    def _in_first_events(self, data: bytes) -> Iterator[Key]:
        for event in split_events(data):
            self._events_left = max(0, self._events_left - 1)
            response = (event_document(event) or {}).get("response")
            if isinstance(response, dict):
                self._events_left = 0
                yield from made_by(response, (("id", "responses"),))
            if not self._events_left:
                return

    def _told(self, document: dict[str, Any]) -> Iterator[Key]:
        if self._stored:
            yield from made_by(document, (("id", "responses"),))
        yield from sealed_in(document)


class MadeNotes(Notes):
    """Of whatever else is made or shown: the fields that hold ids."""

    __slots__ = ("_events_left", "_makes")

    def __init__(
        self,
        writer: ResponseWriter,
        record: RequestRecord,
        owners: Owners,
        makes: tuple[tuple[str, str], ...],
    ) -> None:
        """`makes`: see `proxy.bound.ids.made_by`."""
        super().__init__(writer, record, owners)
        self._makes = makes
        self._events_left = MAX_EVENTS

    def _in_answer(self, body: bytes) -> Iterator[Key]:
        yield from made_by(json_object(body), self._makes)

    def _in_events(self, data: bytes) -> Iterator[Key]:
        if not self._events_left:
            return
        for event in split_events(data):
            document = event_document(event) or {}
            self._events_left -= 1
            found = list(made_by(document.get("response") or document, self._makes))
            if found or not self._events_left:
                self._events_left = 0
                yield from found
                return
