"""Reads the answers of one connection: bytes in, heads and body pieces out. No I/O.

httptools (llhttp in its strict mode) does the parsing. What is added here: bounds, the two rules
for answers without a body that a parser can't know (HEAD, CONNECT), the end by closing, and the
refusal of what llhttp leaves to its caller.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from httptools import HttpParserError, HttpResponseParser

if TYPE_CHECKING:
    from collections.abc import Callable

    from proxy.exchange.ports import FailureKind, Headers

HEAD_BYTES: Final = 65_536
"""Interim answers, status line and headers together; Azure's are 1 to 2 KB."""
HEADERS: Final = 200
FRAMING_BYTES: Final = 65_536
"""How much may arrive in a row without a byte of the body: chunk extensions, trailers."""


class Refused(Exception):
    """Raised inside parser callbacks; the text says what is wrong with the answer."""


class Answer:
    """The answer that is being read. `expect` begins the next one.

    `status` and `headers` hold from `head_complete` on; header names are lower-case. `failed`
    says what ended it before its time, as (kind, detail); body pieces that came before stay
    available. `keep`: the connection may carry another request once this one is `complete`.
    `started`: a byte of it has arrived.
    """

    __slots__ = (
        "_bodiless", "_fields", "_framing_bytes", "_head_bytes", "_interim", "_parser", "_pieces",
        "_until_close", "complete", "failed", "head_complete", "headers", "keep", "on_body",
        "on_header", "started", "status",
    )  # fmt: skip

    def __init__(self) -> None:
        self._parser: HttpResponseParser | None = None
        self._pieces: list[bytes] = []
        self._fields: Headers = []
        self._bodiless = False
        # Called once per piece and once per header line: no attribute look-ups, and no Python
        # frame at all for the former.
        self.on_body = self._pieces.append
        self.on_header = _collector(self._fields)

    def expect(self, method: str) -> None:
        """Forgets the last answer and awaits the one to a `method` request."""
        if self._parser is None or self._bodiless:
            # After a head without its body the parser would go on looking for that body.
            self._parser = HttpResponseParser(self)
        self._bodiless = method == "HEAD" or method == "CONNECT"
        self._interim = False
        self._until_close = False
        self._head_bytes = 0
        self._framing_bytes = 0
        self._fields.clear()
        self._pieces.clear()
        self.started = False
        self.status = 0
        self.headers: Headers = []
        self.head_complete = False
        self.complete = False
        self.keep = False
        self.failed: tuple[FailureKind, str] | None = None

    def feed(self, data: bytes) -> None:
        """Reads on. Never raises: see `failed`."""
        self.started = True
        if self.head_complete:
            self._parse(data)
            self._count_framing(len(data))
            return
        room = HEAD_BYTES - self._head_bytes
        self._head_bytes += len(data)
        self._parse(data[:room])
        if len(data) > room:
            self._parse_beyond(data[room:])

    def _parse_beyond(self, data: bytes) -> None:
        """What follows the first `HEAD_BYTES`: it must not be head any more."""
        if self.head_complete:
            self._parse(data)
        elif self.failed is None:
            self.failed = ("protocol", f"the head is larger than {HEAD_BYTES} bytes")

    def _parse(self, data: bytes) -> None:
        if self.failed is not None:
            return
        assert self._parser is not None
        try:
            self._parser.feed_data(data)
        except HttpParserError as error:
            if self.complete:
                self.keep = False  # Something follows that nobody asked for.
            elif isinstance(error.__context__, Refused):
                self.failed = ("protocol", str(error.__context__))
            else:
                self.failed = ("protocol", str(error))
        if self._bodiless and self.complete and self._pieces:
            self._pieces.clear()
            self.keep = False

    def _count_framing(self, received_bytes: int) -> None:
        if self._pieces or self.complete:
            self._framing_bytes = 0
            return
        self._framing_bytes += received_bytes
        if self._framing_bytes > FRAMING_BYTES and self.failed is None:
            self.failed = ("protocol", "too much framing without content")

    def end(self) -> None:
        """Nothing more will come. That completes a body that lasts until then."""
        if self.complete or self.failed is not None:
            return
        if self._until_close:
            self.complete = True
        else:
            self.failed = ("reset", "the connection was closed too early")

    def take(self) -> bytes:
        """The body pieces read since the last call, as one; b"" if there are none."""
        pieces = self._pieces
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        return data

    def discard(self) -> None:
        """Lets go of the parser, which otherwise only the garbage collector could free."""
        self._parser = None

    # The rest is called by the parser. What `on_header` collects after the head is the trailer,
    # which nobody reads; `FRAMING_BYTES` bounds it.

    def on_message_begin(self) -> None:
        if self.complete:
            raise Refused("more than one answer")

    def on_headers_complete(self) -> None:
        assert self._parser is not None
        status = self._parser.get_status_code()
        headers = self._fields[:]
        self._fields.clear()
        if status < 200:
            if status < 100 or status == 101:
                raise Refused(f"status {status} was not asked for")
            self._interim = True
            return
        if len(headers) > HEADERS:
            raise Refused(f"more than {HEADERS} headers")
        codings = [value for name, value in headers if name == b"transfer-encoding"]
        if codings and (len(codings) > 1 or codings[0].lower() != b"chunked"):
            raise Refused("a transfer coding that was not asked for")
        self.keep = self._parser.should_keep_alive()
        self.status = status
        self.headers = headers
        if not self.keep:
            self._examine_last(chunked=bool(codings))
        self.head_complete = True
        if self._bodiless:
            self.complete = True

    def _examine_last(self, *, chunked: bool) -> None:
        """The rarer case, an answer after which the connection ends: why does it?"""
        assert self._parser is not None
        if self._parser.get_http_version() not in ("1.1", "1.0"):
            raise Refused("not HTTP/1.1")
        self._until_close = (
            not chunked
            and self.status not in (204, 304)
            and all(name != b"content-length" for name, _ in self.headers)
        )

    def on_message_complete(self) -> None:
        if self._interim:
            self._interim = False
        else:
            self.complete = True


def _collector(fields: Headers) -> Callable[[bytes, bytes], None]:
    append = fields.append

    def collect(name: bytes, value: bytes) -> None:
        append((name.lower(), value.strip()))

    return collect
