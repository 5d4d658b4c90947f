"""What a request really used, as its answer reports it."""

from __future__ import annotations

import json
import re
from typing import Any, Final, NamedTuple

from pydantic_core import from_json

WHOLE_PARSE_BYTES: Final = 64 * 1024
"""Answers up to this size are parsed whole (tens of microseconds); of larger ones, mostly
embeddings, only the usage object is read."""
USAGE_WINDOW_BYTES: Final = 4 * 1024
"""How far from either end of a large answer its usage is looked for."""

_USAGE_KEY: Final = re.compile(rb'"usage"\s*:\s*(?=\{)')
_DECODER: Final = json.JSONDecoder()


class Usage(NamedTuple):
    """In tokens."""

    input: int
    output: int

    @property
    def total(self) -> int:
        return self.input + self.output


def from_object(usage: object) -> Usage | None:
    """From a `usage` object in either vocabulary (chat: prompt/completion, responses:
    input/output). None if it is not one."""
    if not isinstance(usage, dict):
        return None
    given = usage.get("prompt_tokens", usage.get("input_tokens"))
    made = usage.get("completion_tokens", usage.get("output_tokens", 0))
    if type(given) is not int or type(made) is not int or given < 0 or made < 0:
        return None
    return Usage(given, made)


def from_document(document: object) -> Usage | None:
    """From a parsed answer or stream event; responses' events carry it in their `response`."""
    if not isinstance(document, dict):
        return None
    found = from_object(document.get("usage"))
    if found is None:
        response = document.get("response")
        if isinstance(response, dict):
            found = from_object(response.get("usage"))
    return found


def from_body(body: bytes) -> Usage | None:
    """From a complete JSON answer. Never raises; None if there is none to be found."""
    if len(body) <= WHOLE_PARSE_BYTES:
        try:
            return from_document(from_json(body))
        except ValueError:
            return None
    return from_ends(body[:USAGE_WINDOW_BYTES], body[-USAGE_WINDOW_BYTES:])


def from_ends(head: bytes, tail: bytes) -> Usage | None:
    """From the first and last bytes of an answer that is too large to be parsed for this.

    An unescaped `"usage":{` cannot stand inside a JSON string, so what is found is a key.
    """
    for window in (tail, head):
        for match in _USAGE_KEY.finditer(window):
            text = window[match.end() :].decode("utf-8", "replace")
            found = from_object(_leading_object(text))
            if found is not None:
                return found
    return None


def _leading_object(text: str) -> Any:
    try:
        return _DECODER.raw_decode(text)[0]
    except ValueError:
        return None
