"""Reads a document of unknown origin, JSON or YAML, into plain values. Pure: opens no file.

It is given by people and has been anywhere, so it is bounded, and read strictly: what two readers
could take for two different things is refused.
"""

from __future__ import annotations

import json
from typing import Final

from actors.errors import BrokenFile
from actors.records import TOP_LEVEL, JsonObject, flaws

MAX_BYTES: Final = 16 * 1024 * 1024
"""Of JSON, read in a third of a second; ten thousand instances are less."""
MAX_YAML_BYTES: Final = 1024 * 1024
"""YAML is read a hundred times more slowly."""

_YAML_SUFFIXES: Final = (".yaml", ".yml")
_UNREADABLE_NUMBER: Final = "holds a number that can't be read"


def read_document(content: bytes, name: str) -> object:
    """The value that `content` says: objects, lists, texts, numbers, booleans and null.

    JSON, or YAML if `name` ends like it or `content` is no JSON. A date in YAML stays the text
    that it is. Cost: seconds for a megabyte of YAML.
    Errors: `BrokenFile`, with `name` as its path; no value of the document is repeated in it.
    """
    if len(content) > MAX_BYTES:
        raise BrokenFile(name, TOP_LEVEL, f"is larger than {MAX_BYTES} bytes")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise BrokenFile(name, f"line {line}", "is not UTF-8 text") from None
    begins = text.lstrip()[:1]
    if not begins:
        raise BrokenFile(name, TOP_LEVEL, "the document is empty")
    if name.lower().endswith(_YAML_SUFFIXES) or begins not in "{[":
        return _yaml(text, name)
    try:
        return _json(text, name)
    except json.JSONDecodeError as error:
        broken = BrokenFile(name, _position(error.lineno, error.colno), error.msg)
    try:
        return _yaml(text, name)
    except BrokenFile:
        raise broken from None


def _json(text: str, name: str) -> object:
    """Errors: `json.JSONDecodeError` if it is no JSON; `BrokenFile` for JSON that is unusable."""
    try:
        document = json.loads(text, object_pairs_hook=JsonObject)
    except json.JSONDecodeError:
        raise
    except RecursionError:
        raise BrokenFile(name, TOP_LEVEL, "is nested too deeply") from None
    except ValueError:  # an integer of thousands of digits
        raise BrokenFile(name, TOP_LEVEL, _UNREADABLE_NUMBER) from None
    for place, reason in flaws(document):
        raise BrokenFile(name, place or TOP_LEVEL, reason)
    return document


def _yaml(text: str, name: str) -> object:
    if len(text) > MAX_YAML_BYTES:
        raise BrokenFile(name, TOP_LEVEL, f"is larger than {MAX_YAML_BYTES} bytes; convert to JSON")
    # Here, because the library costs a tenth of the start and is needed once in a lifetime.
    import yaml

    from actors.plain_yaml import PlainLoader

    try:
        return yaml.load(text, Loader=PlainLoader)  # noqa: S506 - a SafeLoader, made stricter
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = TOP_LEVEL if mark is None else _position(mark.line + 1, mark.column + 1)
        raise BrokenFile(name, where, error.problem or "is not valid YAML") from None
    except yaml.YAMLError:  # a character that YAML does not allow
        raise BrokenFile(name, TOP_LEVEL, "is not valid YAML") from None
    except RecursionError:
        raise BrokenFile(name, TOP_LEVEL, "is nested too deeply") from None
    except ValueError:
        raise BrokenFile(name, TOP_LEVEL, _UNREADABLE_NUMBER) from None


def _position(line: int, column: int) -> str:
    return f"line {line}, column {column}"
