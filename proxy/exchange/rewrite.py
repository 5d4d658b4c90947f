"""The JSON body of a request with a few of its top-level fields changed.

Where possible the new values are put into the text and all else stays byte for byte; otherwise
the document is written anew.
"""

from __future__ import annotations

import json
import re
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from proxy.errors import BadRequest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_OBJECT_START: Final = re.compile(rb"[ \t\r\n]*\{")
_MODEL_KEY: Final = b'"model"'
_TEXT_VALUE: Final = re.compile(rb'[ \t\r\n]*:[ \t\r\n]*("[^"\\]*+(?:\\.[^"\\]*+)*+")', re.DOTALL)
_ESCAPED_LETTER: Final = b"\\u006"
"""What a key must contain to be `model` and not look like it. No serializer writes this."""


def with_fields(body: bytes, document: Mapping[str, Any], fields: Mapping[str, Any]) -> bytes:
    """`body`, of which `document` is the value, with these top-level fields set.

    Errors: `BadRequest` if the document must be written anew and can't be, because it holds a
    number too large for a float.
    """
    text: bytes | None = body
    for name, value in fields.items():
        if text is not None:
            text = _spliced(text, document, name, _dump(value))
    if text is not None:
        return text
    try:
        return _dump({**document, **fields})
    except ValueError:
        raise BadRequest("The request body holds a number that is out of range.") from None


def _spliced(body: bytes, document: Mapping[str, Any], name: str, value: bytes) -> bytes | None:
    """`body` with one field set; None if the text alone doesn't show where."""
    if name not in document:
        start = _OBJECT_START.match(body)
        if start is None or not document:
            return None
        return b'%b"%b":%b,%b' % (body[: start.end()], name.encode(), value, body[start.end() :])
    if name == "model" and type(document["model"]) is str and _ESCAPED_LETTER not in body:
        found = list(islice(_model_values(body), 2))
        if len(found) == 1:
            return body[: found[0][0]] + value + body[found[0][1] :]
    return None


def _model_values(body: bytes) -> Iterator[tuple[int, int]]:
    """Where the texts stand that are values of a key `model`, at any depth.

    A key's first quote never follows a backslash, and inside a string all quotes do.
    """
    at = body.find(_MODEL_KEY)
    while at >= 0:
        value = _TEXT_VALUE.match(body, at + len(_MODEL_KEY))
        if value is not None and body[at - 1 : at] != b"\\":
            yield value.span(1)
        at = body.find(_MODEL_KEY, at + len(_MODEL_KEY))


def _dump(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
