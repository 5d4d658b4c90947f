"""`/admin/logging`: the log level of the running service; the next start takes `LOG_LEVEL`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from actors.errors import InvalidChange
from actors.problems import shown, unknown_field
from proxy import log
from proxy.front.admin import json_object

if TYPE_CHECKING:
    from quart import Blueprint

    from proxy.front.admin import Answer


def add_to(api: Blueprint) -> None:
    api.add_url_rule("/logging", "get_logging", _get, methods=["GET"])
    api.add_url_rule("/logging", "put_logging", _put, methods=["PUT"])


async def _get() -> Answer:
    return {"level": log.level()}, 200


async def _put() -> Answer:
    level = _level(await json_object())
    log.set_level(level)
    return {"status": "success", "message": f"the log level is {level}"}, 200


def _level(document: dict[str, object]) -> str:
    problems = [unknown_field(field, ("level",)) for field in document if field != "level"]
    level = document.get("level")
    word = level.upper() if isinstance(level, str) else None
    if word not in log.LEVELS:
        given = f", not {shown(level)}" if "level" in document else ""
        problems.append(("level", f"must be one of {', '.join(log.LEVELS)}{given}"))
    if problems or word is None:
        raise InvalidChange(problems)
    return word
