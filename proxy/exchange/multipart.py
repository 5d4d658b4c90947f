"""Finding the `model` field of a multipart form without taking the form apart.

A form may put its file first, so the field may stand behind megabytes. Only what follows a
boundary line is looked at, and a boundary can't stand at the start of a line inside a part
(RFC 2046 section 5.1.1), so what is found is a field and never the content of a file.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias, assert_never

from proxy.errors import BadRequest

MAX_HEAD_BYTES: Final = 4096
MAX_PADDING_BYTES: Final = 64
MAX_VALUE_BYTES: Final = 1024

_PARAMETER: Final = rb'[ \t]*;[ \t]*%b[^\s=;"]+=(?:"(?:[^"\\\r\n]|\\.)*"|[^\s;"]*)'
_BOUNDARY: Final = re.compile(
    rb"multipart/form-data(?:%b)*" % (_PARAMETER % rb"(?!boundary=)")
    + rb'[ \t]*;[ \t]*boundary=(?:"([^"\\\r\n]{1,70})"|([^\s;"]{1,70}))[ \t]*(?:;.*)?',
    re.IGNORECASE,
)
_NAMES_MODEL: Final = re.compile(
    rb"\r\ncontent-disposition:[ \t]*form-data(?:%b)*" % (_PARAMETER % rb"(?!name=)")
    + rb'[ \t]*;[ \t]*name=(?:"model"|model)[ \t]*(?:;|\r\n|$)',
    re.IGNORECASE,
)

Place: TypeAlias = Literal["content", "boundary line", "head", "value", "end"]


@dataclass(frozen=True, slots=True)
class FormField:
    """A field's value and where it stands in the body: bytes `start` to `end`."""

    value: str
    start: int
    end: int


class ModelSearch:
    """Looks for the `model` field in a body that arrives in pieces, however it is cut.

    Memory: one part head. Cost: linear in the bytes.
    """

    def __init__(self, content_type: bytes) -> None:
        """Errors: `BadRequest` if this is no multipart form with a boundary."""
        match = _BOUNDARY.fullmatch(content_type)
        if match is None:
            raise BadRequest(
                "This operation takes a multipart/form-data body with a boundary; the "
                f"content-type was {content_type.decode('latin-1')[:200]!r}.",
                status=415,
            )
        self._delimiter = b"\r\n--" + (match[1] or match[2])
        # The first boundary line has no line before it: as if it had.
        self._window = b"\r\n"
        self._before = -2
        """Bytes of the body that lie before the window."""
        self._at = 0
        """How far the window has been read."""
        self._place: Place = "content"
        self._found: FormField | None = None

    def feed(self, piece: bytes) -> FormField | None:
        """The field once it is complete. Errors: `BadRequest` if its value can't be a name."""
        self._window = self._window[self._at :] + piece
        self._before += self._at
        self._at = 0
        while self._read_on():
            pass
        return self._found

    def _read_on(self) -> bool:
        """Goes to the next place; False if that takes more bytes."""
        place = self._place
        match place:
            case "content":
                return self._find_boundary()
            case "boundary line":
                return self._end_boundary_line()
            case "head":
                return self._read_head()
            case "value":
                return self._read_value()
            case "end":
                self._at = len(self._window)
                return False
            case _:
                assert_never(place)

    def _find_boundary(self) -> bool:
        at = self._window.find(self._delimiter, self._at)
        if at < 0:
            self._at = max(self._at, len(self._window) - len(self._delimiter) + 1)
            return False
        self._at = at + len(self._delimiter)
        self._place = "boundary line"
        return True

    def _end_boundary_line(self) -> bool:
        """Nothing but padding may follow, else it was no boundary line; after `--` the form is
        over."""
        rest = self._window[self._at : self._at + MAX_PADDING_BYTES]
        unpadded = rest.lstrip(b" \t")
        if unpadded.startswith(b"\r\n"):
            self._at += len(rest) - len(unpadded)
            self._place = "head"
        elif rest.startswith(b"--"):
            self._place = "end"
        elif len(rest) < MAX_PADDING_BYTES and (unpadded in (b"", b"\r") or rest == b"-"):
            return False
        else:
            self._place = "content"
        return True

    def _read_head(self) -> bool:
        """A head begins with the end of its boundary line, and a part may be nothing but head."""
        limit = self._at + MAX_HEAD_BYTES
        next_part = self._window.find(self._delimiter, self._at, limit)
        end = self._window.find(b"\r\n\r\n", self._at, limit if next_part < 0 else next_part + 2)
        if end < 0 and next_part < 0 and len(self._window) < limit:
            return False
        if end >= 0 and _NAMES_MODEL.search(self._window, self._at, end):
            self._at = end + 4
            self._place = "value"
        else:
            self._at = max(self._at, end + 2)
            self._place = "content"
        return True

    def _read_value(self) -> bool:
        limit = self._at + MAX_VALUE_BYTES + len(self._delimiter)
        end = self._window.find(self._delimiter, self._at, limit)
        if end < 0 and len(self._window) < limit:
            return False
        value = self._window[self._at : max(self._at, end)].decode("utf-8", "replace")
        if end < 0 or not value.isprintable() or "\ufffd" in value:
            raise BadRequest("The field `model` is no name of a model.", param="model")
        self._found = FormField(value, self._before + self._at, self._before + end)
        self._place = "end"
        return True
