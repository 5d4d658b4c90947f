"""The earlier system's combined data as separate configurations and states. Pure.

That system kept one record per instance with settings and runtime values in it, in an object
keyed by name or in a list under `instances`; other sections beside that list, such as `routing`,
are settings of its process and have no place in these files.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from pydantic import ValidationError

from actors.changes import new_config
from actors.documents import read_document
from actors.earlier_record import CARRIED, EarlierRecord, read_state, taken_apart
from actors.errors import InvalidChange
from actors.models import InstanceConfig, InstanceState
from actors.problems import place, problems, shown

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["MigrationPlan", "plan_migration", "read_document"]

INSTANCES: Final = "instances"
_SERVES_NONE: Final = (
    "names no models: it serves none until supported_models or model_deployments is set"
)
_SHORTEST_KEY: Final = 4
"""Masking anything shorter would garble every sentence and hide nothing."""


@dataclass(frozen=True, slots=True)
class MigrationPlan:
    """What would be done, by instance name; a record without a usable name goes by its place.

    `configs`: to be added, or to replace what is there. `states`: of those that are added; what
    has been observed of an existing instance here is newer. `skipped`: records left out, and why.
    `unchanged`: instances that are as their record says. `unknown`: fields without a meaning
    here, with their values, which may be secrets. `warnings`: what was not taken literally.
    """

    configs: dict[str, InstanceConfig] = field(default_factory=dict)
    states: dict[str, InstanceState] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    unchanged: tuple[str, ...] = ()
    unknown: dict[str, dict[str, object]] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


def plan_migration(
    document: object, existing: Mapping[str, InstanceConfig], *, overwrite: bool
) -> MigrationPlan:
    """What `document` asks for beside the instances that are there already.

    An existing instance is left alone unless `overwrite`, and then only the settings that the
    record names are replaced. No reason and no warning repeats a key. `${NAME}` references must
    resolve here. Errors: `InvalidChange` for a document of no known shape.
    """
    planning = _Planning(existing, overwrite)
    for where, name, record in _records(document):
        planning.take(where, name, record)
    warnings = [*_other_sections(document), *planning.warnings]
    return MigrationPlan(
        planning.configs,
        planning.states,
        planning.skipped,
        tuple(planning.unchanged),
        planning.unknown,
        tuple(warnings),
    )


def _is_wrapped(document: dict[Any, Any]) -> bool:
    """Whether the records are under `instances`, rather than an instance being called that."""
    inner = document.get(INSTANCES)
    if isinstance(inner, dict):
        return all(isinstance(record, dict) for record in inner.values())
    return INSTANCES in document


def _records(document: object) -> Iterator[tuple[str, object, object]]:
    """(place, name by which it is keyed or None, record) for each record."""
    prefix: tuple[str, ...] = ()
    if isinstance(document, dict) and _is_wrapped(document):
        document, prefix = document[INSTANCES], (INSTANCES,)
    match document:
        case dict():
            for name, record in document.items():
                yield place(str(name)), name, record
        case list():
            for index, record in enumerate(document):
                yield place(*(prefix or (INSTANCES,)), index), None, record
        case _:
            reason = (
                "must be an object keyed by instance name, or have a list of records under "
                f"{INSTANCES!r}, not {shown(document)}"
            )
            raise InvalidChange([(place(*prefix) or "document", reason)])


def _other_sections(document: object) -> Iterator[str]:
    if isinstance(document, dict) and _is_wrapped(document):
        others = [place(str(section)) for section in document if section != INSTANCES]
        if others:
            yield f"not about instances, and left out: {', '.join(others)}"


class _Planning:
    """A plan in the making; the fields are those of `MigrationPlan`."""

    def __init__(self, existing: Mapping[str, InstanceConfig], overwrite: bool) -> None:
        self.existing = existing
        self.overwrite = overwrite
        self.configs: dict[str, InstanceConfig] = {}
        self.states: dict[str, InstanceState] = {}
        self.skipped: dict[str, str] = {}
        self.unchanged: list[str] = []
        self.unknown: dict[str, dict[str, object]] = {}
        self.warnings: list[str] = []

    def take(self, where: str, name: object, record: object) -> None:
        if not isinstance(record, dict):
            self.skipped[where] = f"must be an object, not {shown(record)}"
            return
        parts = taken_apart(record)
        label = where if name is not None else self._label(where, parts)
        try:
            config = _config(name, parts)
            if config.name != label:
                raise InvalidChange([("name", f"is {config.name!r}, as an earlier record's is")])
        except InvalidChange as error:
            self.skipped[label] = _without_key(str(error), parts)
            return
        if not self._settle(config, parts):
            return
        if parts.unknown:
            self.unknown[label] = parts.unknown
        self.warnings += [_without_key(f"{label}: {text}", parts) for text in parts.warnings]

    def _label(self, where: str, parts: EarlierRecord) -> str:
        """The name of the record, if it has one that no earlier record has."""
        name = parts.config.get("name")
        if not isinstance(name, str):
            return where
        taken = name in self.configs or name in self.unchanged or name in self.skipped
        return where if taken else place(name)

    def _settle(self, config: InstanceConfig, parts: EarlierRecord) -> bool:
        """Decides what becomes of a good record; False if it is left out."""
        name, present = config.name, self.existing.get(config.name)
        if present is None:
            self.configs[name] = config
            self.states[name] = _state(name, parts)
            if config.provider_type == "azure" and not config.models():
                parts.warnings.append(_SERVES_NONE)
            return True
        given = {field: getattr(config, field) for field in parts.config}
        different = [field for field in given if getattr(present, field, None) != given[field]]
        if not different:
            self.unchanged.append(name)
        elif self.overwrite:
            self.configs[name] = present.model_copy(update=given)
        else:
            fields = ", ".join(different)
            self.skipped[name] = f"exists already, with another {fields}; overwrite replaces it"
            return False
        return True


def _config(name: object, parts: EarlierRecord) -> InstanceConfig:
    """Errors: `InvalidChange`."""
    given = {field: value for field, value in parts.config.items() if field not in CARRIED}
    if name is not None and given.setdefault("name", name) != name:
        raise InvalidChange([("name", f"must equal the key {shown(name)}")])
    config = new_config(given)
    carried = {field: value for field, value in parts.config.items() if field in CARRIED}
    if not carried:
        return config
    try:
        return InstanceConfig.model_validate({**config.model_dump(), **carried})
    except ValidationError as error:
        raise InvalidChange(problems(error)) from None


def _state(name: str, parts: EarlierRecord) -> InstanceState:
    state = read_state(name, parts)
    if state.last_error is None:
        return state
    return state.model_copy(update={"last_error": _without_key(state.last_error, parts)})


def _without_key(text: str, parts: EarlierRecord) -> str:
    key = parts.config.get("api_key")
    if isinstance(key, str) and len(key) >= _SHORTEST_KEY:
        return text.replace(key, "****")
    return text
