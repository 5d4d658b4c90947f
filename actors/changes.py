"""What a change asks for, validated against what is there. Pure: reads no file, owns nothing.

Every refusal names the field, the value and the remedy. A secret goes out masked, and a mask
that comes back means "as it is".
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from pydantic import ValidationError

from actors.errors import InvalidChange
from actors.models import (
    InstanceConfig,
    InstanceState,
    UnresolvedReference,
    is_reference,
    resolve_key,
)
from actors.problems import problems, shown, unknown_field, validated

if TYPE_CHECKING:
    from pydantic import BaseModel
    from pydantic.fields import FieldInfo

    from actors.problems import M, Problem

MASK: Final = "****"
_SHOWN_END: Final = 4
_LONG_ENOUGH_TO_SHOW_AN_END: Final = 16
"""Of a shorter key, four characters would be too large a part."""

RESERVED_NAMES: Final = frozenset({"new", "migrate"})
"""What stands in the place of a name in other addresses of the admin API."""

MOST_USED: Final = 10**15
"""Tokens or requests in a minute that can be set: more than any limit, and far less than a window
can hold. What is used on top counts beyond it."""

_DERIVED: Final = {
    "utilization_percentage": "is computed from current_tpm and the limit; set current_tpm",
}


def new_config(document: object) -> InstanceConfig:
    """The configuration of an instance that does not exist yet. Errors: `InvalidChange`."""
    given = _fields(InstanceConfig, document)
    if is_masked(given.get("api_key")):
        raise InvalidChange([("api_key", "is a masked key; send the key itself")])
    config = _validated(InstanceConfig, given)
    _require(_name_problems(config) + _model_problems(config) + _key_problems(config))
    return config


def merged_config(
    current: InstanceConfig, changes: object
) -> tuple[InstanceConfig, tuple[str, ...]]:
    """`current` with `changes` in it, and the names of the fields whose value is now another.

    Fields that `current` has and this version does not know are kept. Errors: `InvalidChange`.
    """
    given = _fields(InstanceConfig, changes)
    _require(_renaming_problems(current.name, given))
    if is_masked(given.get("api_key")):
        if given["api_key"] != mask_secret(current.api_key):
            raise InvalidChange(
                [("api_key", "is not the mask of the present key; send the key itself or leave it")]
            )
        del given["api_key"]
    merged = _validated(InstanceConfig, {**current.model_dump(), **given})
    changed = tuple(
        field
        for field in InstanceConfig.model_fields
        if getattr(merged, field) != getattr(current, field)
    )
    _require(
        (_model_problems(merged) if "supported_models" in changed else [])
        + (_key_problems(merged) if "api_key" in changed else [])
    )
    return merged, changed


def merged_state(current: InstanceState, changes: object) -> dict[str, Any]:
    """The validated values of the fields given, as they would be merged into `current`.

    Errors: `InvalidChange`.
    """
    given = _fields(InstanceState, changes)
    _require(_renaming_problems(current.name, given))
    _require([(field, remedy) for field, remedy in _DERIVED.items() if field in given])
    merged = _validated(InstanceState, {**current.model_dump(), **given})
    _require(_counter_problems(merged, given) + _use_problems(merged, given))
    return {field: getattr(merged, field) for field in given if field != "name"}


@dataclass(frozen=True, slots=True)
class Difference:
    """From one set of configurations to another: instances by name. `changed`: with the names of
    the fields whose value is another. False if there is none."""

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    changed: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.added or self.removed or self.changed)

    def __str__(self) -> str:
        changed = [f"{name} ({', '.join(fields)})" for name, fields in self.changed.items()]
        parts = (("added", self.added), ("removed", self.removed), ("changed", changed))
        return "; ".join(f"{verb} {', '.join(names)}" for verb, names in parts if names)


def difference(old: Mapping[str, InstanceConfig], new: Mapping[str, InstanceConfig]) -> Difference:
    return Difference(
        added=tuple(name for name in new if name not in old),
        removed=tuple(name for name in old if name not in new),
        changed={
            name: fields
            for name, config in new.items()
            if name in old and (fields := _changed_fields(old[name], config))
        },
    )


def _changed_fields(old: InstanceConfig, new: InstanceConfig) -> tuple[str, ...]:
    if old == new:
        return ()
    before, after = old.model_dump(), new.model_dump()
    absent = object()
    return tuple(
        name for name in {**before, **after} if before.get(name, absent) != after.get(name, absent)
    )


def mask_secret(key: str) -> str:
    """What may be shown of `key`. A `${NAME}` reference is no secret and stays as written."""
    if is_reference(key):
        return key
    return MASK + (key[-_SHOWN_END:] if len(key) >= _LONG_ENOUGH_TO_SHOW_AN_END else "")


def is_masked(value: object) -> bool:
    """Whether `value` looks like something that `mask_secret` made, rather than like a key."""
    return isinstance(value, str) and value.startswith(MASK)


def masked(config: InstanceConfig) -> dict[str, Any]:
    """`config` as the admin API shows it, ready for JSON.

    Without the fields that this version does not know: any of them might be a secret.
    """
    shown_fields = config.model_dump(mode="json", include=set(InstanceConfig.model_fields))
    return {**shown_fields, "api_key": mask_secret(config.api_key)}


def _fields(model: type[BaseModel], document: object) -> dict[str, Any]:
    """The fields in `document`: all of them known, none of them null that must have a value."""
    if not isinstance(document, Mapping):
        raise InvalidChange([("document", f"must be a JSON object, not {shown(document)}")])
    known = model.model_fields
    _require(
        [unknown_field(str(field), known) for field in document if field not in known]
        + [
            (field, _null_remedy(known[field]))
            for field, value in document.items()
            if value is None and field in known and not _nullable(known[field])
        ]
    )
    return dict(document)


def _nullable(field: FieldInfo) -> bool:
    return field.default is None


def _null_remedy(field: FieldInfo) -> str:
    if field.is_required():
        return "must not be null; leave the field out to keep it as it is"
    default = json.dumps(field.get_default(call_default_factory=True))
    return f"must not be null; the default is {default}"


def _validated(model: type[M], record: dict[str, Any]) -> M:
    try:
        return validated(model, record)
    except ValidationError as error:
        raise InvalidChange(problems(error)) from None


def _require(found: list[Problem]) -> None:
    if found:
        raise InvalidChange(found)


def _renaming_problems(name: str, given: dict[str, Any]) -> list[Problem]:
    if given.get("name", name) == name:
        return []
    return [
        (
            "name",
            f"can't be changed from {name!r}; add an instance under the new name, "
            "then delete this one",
        )
    ]


def _counter_problems(merged: InstanceState, given: dict[str, Any]) -> list[Problem]:
    succeeded, total = merged.successful_requests, merged.total_requests
    if succeeded <= total:
        return []
    reason = f"leaves successful_requests ({succeeded}) above total_requests ({total}); set both"
    counters = ("successful_requests", "total_requests")
    return [next((field, reason) for field in counters if field in given)]


def _use_problems(merged: InstanceState, given: dict[str, Any]) -> list[Problem]:
    return [
        (field, f"must be less than or equal to {MOST_USED}, not {shown(value)}")
        for field in ("current_tpm", "current_rpm")
        if field in given and (value := getattr(merged, field)) > MOST_USED
    ]


def _name_problems(config: InstanceConfig) -> list[Problem]:
    if not config.name.strip("."):
        return [
            ("name", f"must not consist of dots, as {config.name!r} does: URLs drop such a name")
        ]
    if config.name in RESERVED_NAMES:
        return [("name", f"must not be {config.name!r}: that is an address of the admin API")]
    return []


def _model_problems(config: InstanceConfig) -> list[Problem]:
    return [
        ("supported_models", f"names {shown(model)} {times} times; once is enough")
        for model, times in Counter(config.supported_models).items()
        if times > 1
    ]


def _key_problems(config: InstanceConfig) -> list[Problem]:
    try:
        resolve_key(config.api_key)
    except UnresolvedReference as error:
        return [("api_key", f"{error}; set it where the proxy runs, or send the key itself")]
    return []
