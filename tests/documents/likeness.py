"""Whether a documented answer is what was printed, but for what differs each time.

Times, identifiers, durations, sizes and counts of a running minute differ; everything else counts.
A line `...` in a text stands for lines that are left out.
"""

from __future__ import annotations

import json
import re
from typing import Any

_VOLATILE_FIELDS = re.compile(
    r"(.*_)?(at|ms|id|until|used|time)|created|timestamp|utilization_percentage"
)
"""JSON fields of which only the type counts."""

_VOLATILE = (
    (re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|\+00:00)"), "<time>"),
    (re.compile(r"\d{8}T\d{6}\.\d{6}Z"), "<moment>"),
    (re.compile(r"\b[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT"), "<date>"),
    (re.compile(r"\b1[5-9]\d{8}(\.\d+)?\b"), "<epoch>"),
    (re.compile(r"\b[0-9a-f]{12}-[0-9a-f]{8}\b"), "<id>"),
    (re.compile(r"\b[0-9a-f]{32,64}\b"), "<hex>"),
    (re.compile(r"(_ms=|_seconds=|_sum\S* |_bytes |in |after )\d+(\.\d+)?\b"), r"\1<number>"),
    (re.compile(r"\b\d+(\.\d+)?(e-\d+)? (seconds|s|ms|bytes)\b"), r"<number> \3"),
    (re.compile(r"(?<![\w-])[\w-]{43}(?![\w-])"), "<key>"),
)
_LEFT_OUT = "..."


def like(documented: str, printed: str, language: str) -> bool:
    if language == "json":
        try:
            return _like_json(json.loads(documented), json.loads(printed))
        except ValueError:
            return False
    return _like_lines(_lines(documented), _lines(printed))


def shown(printed: str, documented: str, language: str) -> str:
    """`printed` as a page shows it. What `documented` leaves out stays left out."""
    if language == "json":
        try:
            return _pretty(json.loads(printed)) + "\n"
        except ValueError:
            return printed
    if like(documented, printed, language):
        return documented
    return "\n".join(line.rstrip() for line in printed.strip().split("\n")) + "\n"


def _like_json(documented: Any, printed: Any) -> bool:
    match documented, printed:
        case dict(), dict():
            return list(documented) == list(printed) and all(
                _of_one_kind(documented[name], printed[name])
                if _VOLATILE_FIELDS.fullmatch(name)
                else _like_json(documented[name], printed[name])
                for name in documented
            )
        case list(), list():
            return len(documented) == len(printed) and all(map(_like_json, documented, printed))
        case str(), str():
            return _steady(documented) == _steady(printed)
    return type(documented) is type(printed) and documented == printed


def _of_one_kind(documented: Any, printed: Any) -> bool:
    kinds = {int: "number", float: "number"}
    return kinds.get(type(documented), type(documented)) == kinds.get(type(printed), type(printed))


def _lines(text: str) -> list[str]:
    return [_steady(line.rstrip()) for line in text.strip().split("\n")]


def _steady(text: str) -> str:
    for pattern, name in _VOLATILE:
        text = pattern.sub(name, text)
    return text


def _like_lines(documented: list[str], printed: list[str]) -> bool:
    if not documented:
        return not printed
    if documented[0] == _LEFT_OUT:
        rests = range(len(printed) + 1)
        return any(_like_lines(documented[1:], printed[rest:]) for rest in rests)
    return (
        bool(printed) and documented[0] == printed[0] and _like_lines(documented[1:], printed[1:])
    )


def _pretty(value: Any, indent: int = 0, room: int = 92) -> str:
    """JSON with a line for whatever fits into one."""
    line = json.dumps(value, ensure_ascii=False)
    if len(line) <= room or not isinstance(value, dict | list) or not value:
        return line
    pad = " " * (indent + 2)
    if isinstance(value, dict):
        parts = [
            f"{pad}{json.dumps(name)}: "
            + _pretty(each, indent + 2, room - 4 - len(json.dumps(name)))
            for name, each in value.items()
        ]
    else:
        parts = [pad + _pretty(each, indent + 2, room - 2) for each in value]
    opening, closing = "{}" if isinstance(value, dict) else "[]"
    return f"{opening}\n" + ",\n".join(parts) + f"\n{' ' * indent}{closing}"
