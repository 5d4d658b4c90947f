"""The records and answers of the HTTP interface, as JSON Schema."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from actors.changes import RESERVED_NAMES
from actors.models import InstanceConfig, InstanceState
from proxy.log import LEVELS

if TYPE_CHECKING:
    from pydantic import BaseModel

Json: TypeAlias = dict[str, Any]

_BEYOND_THE_MODELS: Final[Json] = {
    "api_key": {
        "pattern": r"^[!-~]([ -~]*[!-~])?$",
        "description": "The key, or `${NAME}` for the value of an environment variable. "
        "Answers show at most its last four characters; such a mask sent back changes nothing.",
    },
    "api_base": {"pattern": r'^https?://[!"$-.0->A-~]+(/[!"$->@-~]*)?$'},
    "supported_models": {"uniqueItems": True},
}
"""What validators check and a schema made from the model can't know."""

_USABLE_NAME: Final[Json] = {"not": {"pattern": rf"^(\.+|{'|'.join(sorted(RESERVED_NAMES))})$"}}
"""URLs drop a path segment of dots, and some segments mean something else."""

_COMPUTED: Final = ("name", "utilization_percentage")


def schemas() -> Json:
    """All of them by name, fresh ones each time."""
    config, state = _schema(InstanceConfig), _schema(InstanceState)
    name = config["properties"]["name"]
    new = copy.deepcopy(config)
    new["properties"]["name"] = {**name, **_USABLE_NAME}
    text, word = {"type": "string"}, {"const": "error"}
    problem = _object({"field": text, "message": text})
    instance = _object({"config": reference("InstanceConfig"), "state": reference("InstanceState")})
    return {
        "NewInstance": new,
        "ConfigChanges": _changes(config, ("name",)),
        "StateChanges": _changes(state, _COMPUTED),
        "InstanceConfig": _answer(config),
        "InstanceState": _answer(state),
        "Instances": _object(
            {
                "status": {"const": "success"},
                "count": {"type": "integer", "minimum": 0},
                "instances": {"type": "object", "additionalProperties": instance},
            }
        ),
        "Success": _object({"status": {"const": "success"}, "message": text}),
        "Failure": _object({"status": word, "message": text}),
        "Malformed": {"anyOf": [reference("Failure"), reference("OpenAIError")]},
        "OpenAIError": _object(
            {
                "error": _object(
                    {
                        "message": text,
                        "type": text,
                        "param": {"type": ["string", "null"]},
                        "code": {"type": ["string", "null"]},
                    }
                )
            }
        ),
        "FieldFailure": _object(
            {"status": word, "message": text, "errors": {"type": "array", "items": problem}}
        ),
        "Conflict": _object(
            {"status": word, "message": text, "errors": {"type": "array", "items": problem}},
            ("status", "message"),
        ),
        **_operating_schemas(),
        "Health": _object(
            {"status": {"enum": ["alive", "ready", "unavailable", "draining"]}, "message": text},
            ("status",),
        ),
    }


def _operating_schemas() -> Json:
    text, success = {"type": "string"}, {"const": "success"}
    names = {"type": "array", "items": text}
    fields_by_name = {"type": "object", "additionalProperties": names}
    return {
        "Migration": _object(
            {
                "status": success,
                "message": text,
                "dry_run": {"type": "boolean"},
                "backup": {"type": ["string", "null"]},
                "migrated": names,
                "skipped": {"type": "object", "additionalProperties": text},
                "unchanged": names,
                "unknown": fields_by_name,
                "warnings": names,
            }
        ),
        "Reload": _object(
            {
                "status": success,
                "message": text,
                "added": names,
                "removed": names,
                "changed": fields_by_name,
            }
        ),
        "LogLevel": _object({"level": {"enum": list(LEVELS)}}),
        "RouteQuestion": {
            "type": "object",
            "description": "A request body, or a model with input_tokens and max_tokens.",
            "required": ["model"],
            "properties": {"model": {"type": "string", "minLength": 1}},
        },
        "Explanation": {
            "type": "object",
            "required": ["model", "answer", "instances"],
            "properties": {
                "answer": {
                    "type": "string",
                    "description": "An instance's name, wait, or why it is refused.",
                },
                "instances": {"type": "array", "items": {"type": "object"}},
            },
        },
        "RequestHistory": {
            "type": "object",
            "required": ["id", "status", "attempts"],
            "properties": {"attempts": {"type": "array", "items": {"type": "object"}}},
        },
        "Estimates": _object({"models": {"type": "object"}}),
    }


def _schema(model: type[BaseModel]) -> Json:
    """What the admin API accepts for a new record of `model`."""
    schema = model.model_json_schema()
    schema["additionalProperties"] = False
    schema.pop("description", None)  # the docstring, written for programmers
    for field, described in schema["properties"].items():
        described.update(_BEYOND_THE_MODELS.get(field, {}))
    _spell_patterns(schema)
    return schema


def _changes(schema: Json, without: tuple[str, ...]) -> Json:
    """Any of the fields, except those that a change can't name. `name` may be sent along as it
    is, so that a record that was read can be sent back; renaming is refused."""
    properties = {
        field: {key: value for key, value in described.items() if key != "default"}
        for field, described in schema["properties"].items()
        if field not in without
    }
    return {"type": "object", "properties": properties, "additionalProperties": False}


def _answer(schema: Json) -> Json:
    """Every field is there; secrets are masked, so their patterns do not hold."""
    properties = copy.deepcopy(schema["properties"])
    if "api_key" in properties:
        described = properties["api_key"]["description"]
        properties["api_key"] = {"type": "string", "description": described}
    return _object(properties)


def _spell_patterns(schema: Any) -> None:
    r"""Python's `\Z` is `$` in the dialect of JSON Schema (ECMA-262)."""
    if isinstance(schema, dict):
        if isinstance(schema.get("pattern"), str):
            schema["pattern"] = schema["pattern"].replace(r"\Z", "$")
        for value in schema.values():
            _spell_patterns(value)
    elif isinstance(schema, list):
        for value in schema:
            _spell_patterns(value)


def _object(properties: Json, required: tuple[str, ...] | None = None) -> Json:
    names = list(properties) if required is None else list(required)
    return {
        "type": "object",
        "properties": properties,
        "required": names,
        "additionalProperties": False,
    }


def reference(schema: str) -> Json:
    """Stands for one of `schemas` elsewhere in the document."""
    return {"$ref": f"#/components/schemas/{schema}"}
