"""Options of an admin request, as query parameters."""

from __future__ import annotations

from typing import Final

from quart import request

from actors.errors import InvalidChange
from actors.problems import shown, unknown_field

_WORDS: Final = {"1": True, "true": True, "0": False, "false": False}


def switches(*names: str) -> tuple[bool, ...]:
    """The values of these parameters, False where one is not given.

    Errors: `InvalidChange` for any other parameter, so that a mistyped `dry_run` is not taken for
    none, and for values other than `true`, `false`, `1`, `0`.
    """
    given = request.args
    problems = [unknown_field(name, names) for name in given if name not in names]
    problems += [
        (name, f"must be true or false, not {shown(given[name])}")
        for name in names
        if name in given and given[name].lower() not in _WORDS
    ]
    if problems:
        raise InvalidChange(problems)
    return tuple(_WORDS[given.get(name, "0").lower()] for name in names)
