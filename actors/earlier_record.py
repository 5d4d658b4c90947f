"""One instance as the earlier system recorded it, settings and runtime values mixed, taken apart.

Tolerant where the meaning is clear, and then it says what it took for what; anything else is left
to the models to refuse. Pure, and no value that could hold a secret is ever repeated.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, Final, Union, get_args, get_origin

from pydantic import ValidationError

from actors.models import PROXY_FIELD, InstanceConfig, InstanceState
from actors.problems import place, problems, validated

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic import BaseModel

STATS: Final = "stats"
"""Where some records keep their runtime values."""
CARRIED: Final = frozenset({PROXY_FIELD})
"""Settings beyond the model's own that still mean what they meant."""

_PROVIDERS: Final = {"azure_openai": "azure", "openai": "generic", "generic_openai": "generic"}
_STATUSES: Final = {
    "active": "healthy",
    "ok": "healthy",
    "up": "healthy",
    "online": "healthy",
    "available": "healthy",
    "throttled": "rate_limited",
    "ratelimited": "rate_limited",
    "cooldown": "rate_limited",
    "down": "error",
    "failed": "error",
    "offline": "error",
    "unavailable": "error",
    "unhealthy": "error",
}
_SWITCHED_OFF: Final = frozenset({"disabled", "inactive"})
_WORDS: Final = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
_TIMES: Final = frozenset({"rate_limited_until", "last_used", "last_error_time"})
_MILLISECONDS_FROM: Final = 1e11
"""As seconds that would be the year 5138; as milliseconds it is 1973."""
_INTEGER: Final = re.compile(r"\s*[+-]?[0-9]{1,18}\s*")


@dataclass
class EarlierRecord:
    """What a record says, by where it belongs. `config` and `state` hold fields of the models
    (and of `CARRIED`), `unknown` the others. `warnings`: what was not taken as it is written."""

    config: dict[str, Any] = field(default_factory=dict)
    state: dict[str, Any] = field(default_factory=dict)
    unknown: dict[str, object] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


def taken_apart(record: Mapping[str, Any]) -> EarlierRecord:
    """Sorts and converts the fields of `record`. Null and "" count as not given."""
    parts = EarlierRecord()
    stats = record.get(STATS)
    nested = stats if isinstance(stats, dict) else {}
    for name, value in [*record.items(), *nested.items()]:
        if value is not nested:
            _sort(str(name), value, parts)
    _take_status(parts)
    return parts


def read_state(name: str, parts: EarlierRecord) -> InstanceState:
    """The state in `parts`. What is wrong in it is left out with a warning: it is only worth
    keeping, never worth losing an instance for."""
    given: dict[str, Any] = {"name": name}
    for fieldname, value in parts.state.items():
        try:
            validated(InstanceState, {"name": name, fieldname: value})
        except ValidationError as error:
            parts.warnings += [f"{where} {why}; left out" for where, why in problems(error)]
        else:
            given[fieldname] = value
    if given.get("successful_requests", 0) > given.get("total_requests", 0):
        given["total_requests"] = given["successful_requests"]
        parts.warnings.append("total_requests was less than successful_requests; made equal")
    return validated(InstanceState, given)


def _sort(name: str, value: object, parts: EarlierRecord) -> None:
    """Puts a field where it belongs; what came first stays."""
    if value is None or value == "" or name in parts.config or name in parts.state:
        return
    if name == "name" or name in CARRIED:
        parts.config[name] = value
    elif name in InstanceConfig.model_fields:
        parts.config[name] = _converted(InstanceConfig, name, value, parts)
    elif name in InstanceState.model_fields:
        parts.state[name] = _converted(InstanceState, name, value, parts)
    else:
        parts.unknown.setdefault(name, value)


# -- conversions -------------------------------------------------------------------------------


def _converted(model: type[BaseModel], name: str, value: object, parts: EarlierRecord) -> object:
    """`value` as the type that the field has, if it plainly says one; else `value` itself."""
    if isinstance(value, str):
        value = value.strip()
    kind = _kind(model, name)
    converted: object = value
    if kind is bool:
        converted = _as_boolean(value)
    elif name in _TIMES:
        converted = _as_time(value)
    elif kind is int:
        converted = _as_integer(value)
    elif kind is float:
        converted = _as_number(value)
    elif name == "supported_models":
        converted = _as_names(value)
    elif name == "provider_type" and isinstance(value, str):
        converted = _PROVIDERS.get(value.lower(), value.lower())
    if converted is not value and converted != value:
        parts.warnings.append(f"{place(name)} was taken as {_described(converted)}")
    return converted


def _kind(model: type[BaseModel], name: str) -> object:
    """The plain type of a field: that of `float | None` with any constraints is float."""
    annotation: object = model.model_fields[name].annotation
    while get_origin(annotation) in (Annotated, Union, UnionType):
        annotation = get_args(annotation)[0]
    return annotation


def _as_boolean(value: object) -> object:
    if isinstance(value, str):
        return _WORDS.get(value.lower(), value)
    if isinstance(value, int) and value in (0, 1):
        return bool(value)
    return value


def _as_integer(value: object) -> object:
    if isinstance(value, str) and _INTEGER.fullmatch(value):
        return int(value)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def _as_number(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        number = float(value)
    except ValueError:
        return value
    return number if math.isfinite(number) else value


def _as_time(value: object) -> object:
    """Epoch seconds of a number, or of a date in ISO 8601 (UTC unless it says otherwise)."""
    number = _as_number(value)
    if isinstance(number, str):
        try:
            moment = datetime.fromisoformat(number)
        except ValueError:
            return value
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    if isinstance(number, int | float) and number >= _MILLISECONDS_FROM:
        return number / 1000
    return number


def _as_names(value: object) -> object:
    """A list without repetitions, also of names with commas between them."""
    if isinstance(value, str):
        value = [name.strip() for name in value.split(",") if name.strip()]
    if isinstance(value, list) and all(isinstance(name, str) for name in value):
        return list(dict.fromkeys(value))
    return value


def _described(value: object) -> str:
    match value:
        case bool():
            return str(value).lower()
        case int() | float():
            return f"the number {value}"
        case list():
            return f"a list of {len(value)}"
        case _:
            return repr(value)  # one of our own words


def _take_status(parts: EarlierRecord) -> None:
    """`active` and its like in our words; an instance that was switched off stays so."""
    for name in ("status", "health_status"):
        word = parts.state.get(name)
        if not isinstance(word, str) or word in ("healthy", "rate_limited", "error", "unknown"):
            continue
        plain = word.lower().replace("-", "_").replace(" ", "_")
        known = _STATUSES.get(plain, plain)
        if known in _SWITCHED_OFF:
            del parts.state[name]
            if "enabled" not in parts.config:
                parts.config["enabled"] = False
                parts.warnings.append(f"{name} was taken as enabled: false")
        elif known in ("healthy", "rate_limited", "error"):
            parts.state[name] = known
            parts.warnings.append(f"{name} was taken as {known!r}")
