"""Finding the `model` field of a multipart form without taking the form apart.

A form may put its file first, so the field may stand behind megabytes. The boundary cannot occur
inside a part (RFC 2046 section 5.1.1), so a match of "boundary, part head naming the field, value,
boundary" is the field and nothing else.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from proxy.errors import BadRequest

MAX_FIELD_BYTES: Final = 4096
"""A part head and a model name together; also how far pieces overlap in the search."""

_BOUNDARY: Final = re.compile(
    rb'multipart/form-data\s*;(?:[^"]*;)?\s*boundary=(?:"([^"]{1,70})"|([^\s;"]{1,70}))',
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class FormField:
    """A field's value and where it stands in the body: bytes `start` to `end`."""

    value: str
    start: int
    end: int


class ModelSearch:
    """Looks for the `model` field in a body that arrives in pieces."""

    def __init__(self, content_type: bytes) -> None:
        """Errors: `BadRequest` if this is no multipart form with a boundary."""
        match = _BOUNDARY.match(content_type)
        if match is None:
            raise BadRequest(
                "This operation takes a multipart/form-data body with a boundary; the "
                f"content-type was {content_type.decode('latin-1')[:200]!r}.",
                status=415,
            )
        boundary = re.escape(b"--" + (match[1] or match[2]))
        self._pattern = re.compile(
            boundary
            + rb'\r\n(?:[^\r\n]+\r\n)*?content-disposition:[^\r\n]*;[ \t]*name="?model"?'
            + rb"[ \t]*(?:;[^\r\n]*)?\r\n(?:[^\r\n]+\r\n)*\r\n([^\r\n]{1,256})\r\n"
            + boundary,
            re.IGNORECASE,
        )
        self._recent = b""
        self._offset = 0

    def feed(self, piece: bytes) -> FormField | None:
        """The field once it is complete."""
        window = self._recent + piece
        match = self._pattern.search(window)
        if match is None:
            keep = min(len(window), MAX_FIELD_BYTES)
            self._offset += len(window) - keep
            self._recent = window[len(window) - keep :]
            return None
        try:
            value = match[1].decode()
        except UnicodeDecodeError:
            raise BadRequest("The field `model` is not UTF-8.", param="model") from None
        return FormField(value, self._offset + match.start(1), self._offset + match.end(1))
