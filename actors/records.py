"""The text of the two files: one JSON object, keyed by instance name. Pure: opens no file.

Reading finds every problem rather than the first, and says where each one is.
"""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from pydantic import BaseModel, ValidationError

from actors.models import InstanceConfig, InstanceState, UnresolvedReference, resolve_key
from actors.problems import place, problems, shown, validated

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from actors.problems import M, Problem

TOP_LEVEL: Final = "top level"
_DEEPEST: Final = 100
"""Nesting beyond which Python's own JSON writer may give up where its reader did not."""


def read_configs(
    content: bytes, environ: Mapping[str, str] = os.environ
) -> tuple[dict[str, InstanceConfig], list[Problem]]:
    """The valid configurations in `content`, in its order, and what is wrong with the others.

    A key that is a `${NAME}` reference must resolve in `environ`; the record keeps the reference.
    """
    configs, found = _read(content, InstanceConfig)
    for name, config in configs.items():
        try:
            resolve_key(config.api_key, environ)
        except UnresolvedReference as error:
            found.append((place(name, "api_key"), f"{error}; set it, or write the key itself"))
    return configs, found


def read_states(content: bytes) -> tuple[dict[str, InstanceState], list[Problem]]:
    """The valid states in `content`, in its order, and what is wrong with the others."""
    return _read(content, InstanceState)


def written(records: Mapping[str, BaseModel | Mapping[str, Any]]) -> bytes:
    """The file that says `records`: fields in the model's order, then those it does not know."""
    text = json.dumps(records, indent=2, ensure_ascii=False, allow_nan=False, default=_plain)
    # A lone surrogate has no UTF-8 form; its backslash form is JSON's own escape for it.
    return text.encode("utf-8", "backslashreplace") + b"\n"


def _plain(record: Any) -> dict[str, Any]:
    return record.model_dump() if isinstance(record, BaseModel) else dict(record)


def _read(content: bytes, model: type[M]) -> tuple[dict[str, M], list[Problem]]:
    document, found = _parsed(content)
    records: dict[str, M] = {}
    for name, record in document.items():
        if not isinstance(record, dict):
            found.append((place(name), "must be a JSON object"))
            continue
        misnamed = record.get("name", name) != name
        if misnamed:
            found.append(
                (place(name, "name"), f"must equal the key {name!r}, not {shown(record['name'])}")
            )
        try:
            valid = validated(model, {**record, "name": name})
        except ValidationError as error:
            found += [(f"{place(name)}.{field}", why) for field, why in problems(error)]
        else:
            if not misnamed:
                records[name] = valid
    return records, found


def _parsed(content: bytes) -> tuple[dict[str, Any], list[Problem]]:
    try:
        text = content.decode("utf-8-sig")
        document = json.loads(text, object_pairs_hook=JsonObject)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        column = error.start - content.rfind(b"\n", 0, error.start)
        return {}, [(f"line {line}, column {column}", "is not UTF-8 text")]
    except json.JSONDecodeError as error:
        reason = error.msg if text.strip() else "the file is empty; write {} or delete it"
        return {}, [(f"line {error.lineno}, column {error.colno}", reason)]
    except RecursionError:
        return {}, [(TOP_LEVEL, "is nested too deeply")]
    except ValueError as error:  # an integer of thousands of digits
        return {}, [(TOP_LEVEL, str(error))]
    if not isinstance(document, dict):
        reason = f"must be one JSON object keyed by instance name, not {shown(document)}"
        return {}, [(TOP_LEVEL, reason)]
    return document, list(flaws(document))


class JsonObject(dict[str, Any]):
    """A JSON object that knows which of its keys were written more than once."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        counts = Counter(key for key, _ in pairs) if len(self) < len(pairs) else Counter()
        self.repeated = [key for key, times in counts.items() if times > 1]


def flaws(document: Any) -> Iterator[Problem]:
    """What Python's JSON reader lets pass and no record may hold."""
    pending: list[tuple[tuple[str | int, ...], Any]] = [((), document)]
    while pending:
        path, value = pending.pop()
        if len(path) > _DEEPEST:
            yield place(*path[:2]), "is nested too deeply"
        elif isinstance(value, JsonObject):
            for key in value.repeated:
                yield place(*path, key), "is written more than once; keep one of them"
            pending += [((*path, key), value[key]) for key in reversed(value)]
        elif isinstance(value, list):
            pending += [((*path, index), item) for index, item in enumerate(value)]
        elif isinstance(value, float) and not math.isfinite(value):
            yield place(*path), "must be a finite number"
