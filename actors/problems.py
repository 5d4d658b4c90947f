"""Strict validation of one record, and its problems in words: which field, what is wrong, what
would be right.

A value that may hold a secret is never repeated.
"""

from __future__ import annotations

import difflib
import re
import reprlib
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar

from pydantic import BaseModel, ValidationError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pydantic_core import ErrorDetails

M = TypeVar("M", bound=BaseModel)

Problem: TypeAlias = tuple[str, str]
"""(the place, as `place` writes it; what is wrong there and what would be right)."""

_UNSHOWN: Final = frozenset({"api_key", "api_base", "proxy_url"})
"""Fields whose values stay out of messages; an address can carry a password."""

_WORDING: Final = {
    ("name", "string_pattern_mismatch"): "must be 1 to 64 letters, digits, '.', '_' or '-'",
    ("api_version", "string_pattern_mismatch"): "must be a version such as 2024-10-21",
    ("*", "string_unicode"): "must be valid Unicode text",
    ("*", "tuple_type"): "must be a list",
    ("*", "dict_type"): "must be an object",
}
"""(field or "*", kind of error): where pydantic's own words would not help an operator."""

_SHORT: Final = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 60


def validated(model: type[M], record: Mapping[str, Any]) -> M:
    """The model of `record`, without conversion between types: "50" is no integer, nor is true.

    An integer does for a float, and a list for a tuple, because JSON knows no tuples.
    Errors: pydantic's `ValidationError`, which `problems` puts into words.
    """
    return model.model_validate(
        {
            field: tuple(value) if isinstance(value, list) and _is_tuple(model, field) else value
            for field, value in record.items()
        },
        strict=True,
    )


def _is_tuple(model: type[BaseModel], field: str) -> bool:
    return field in model.model_fields and isinstance(model.model_fields[field].default, tuple)


def problems(error: ValidationError) -> list[Problem]:
    """One entry for each value at fault, in the order of the model's fields."""
    return [
        (place(*_path(details)), _sentence(details)) for details in error.errors(include_url=False)
    ]


def _path(details: ErrorDetails) -> tuple[str | int, ...]:
    """Where it is. An error of a field that the model doesn't declare has its name as the type."""
    return details["loc"] or (details["type"],)


def _sentence(details: ErrorDetails) -> str:
    kind, field = details["type"], str(_path(details)[0])
    if kind == "missing":
        return "is missing, and it has no default"
    wording = _WORDING.get((field, kind)) or _WORDING.get(("*", kind)) or _in_our_words(details)
    return wording if field in _UNSHOWN else f"{wording}, not {shown(details['input'])}"


def _in_our_words(details: ErrorDetails) -> str:
    return re.sub(r"^\w+ should\b", "must", details["msg"].removeprefix("Value error, "))


def place(*path: str | int) -> str:
    """`path` as a person writes it: `azure2.supported_models[0]`. Bounded and printable."""
    written = ""
    for step in path:
        if step == "[key]":  # pydantic's mark that the key is at fault, not the value under it
            continue
        if isinstance(step, int):
            written += f"[{step}]"
        else:
            name = step[:80] if step.isprintable() and step else ascii(step[:80])
            written += f".{name}" if written else name
    return written


def unknown_field(field: str, known: Iterable[str]) -> Problem:
    """Names the known field that was probably meant."""
    known = list(known)
    close = difflib.get_close_matches(field[:80], known, n=1)
    remedy = f"did you mean {close[0]}?" if close else f"the fields are {', '.join(known)}"
    return place(field), f"is not a known field; {remedy}"


def shown(value: object) -> str:
    """`value` as a message may repeat it: short, in JSON's words, and nothing nested."""
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case dict():
            return "an object"
        case list() | tuple():
            return "a list"
        case _:
            return _SHORT.repr(value)
