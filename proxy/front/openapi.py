"""The description of the HTTP interface as an OpenAPI 3.1 document.

Records come from the pydantic models, data-plane addresses from the table of operations, so that
neither can drift from what the proxy does.
"""

from __future__ import annotations

import copy
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from actors.models import INSTANCE_NAME_PATTERN, InstanceConfig, InstanceState
from proxy.exchange.operations import ADDRESSES, OPERATIONS
from proxy.front.admin import KEY_HEADER, MAX_BODY_BYTES

if TYPE_CHECKING:
    from pydantic import BaseModel

    from proxy.exchange.operations import Operation

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

_ANY_NAME_BUT_DOTS: Final[Json] = {"not": {"pattern": r"^\.+$"}}
"""URLs drop a path segment of dots, so such an instance could not be reached."""

_COMPUTED: Final = ("name", "utilization_percentage")

_PROBLEMS: Final[dict[str, str]] = {
    "400": "The body is no JSON, or repeats a name",
    "401": "The admin key is missing or wrong",
    "404": "There is no instance of this name",
    "408": "The body did not arrive in time",
    "409": "An instance of this name exists already",
    "413": f"The body is larger than {MAX_BODY_BYTES} bytes",
    "422": "A field is wrong, and nothing was changed; `errors` names the fields",
    "500": "An error of the proxy itself",
    "503": "The change could not be made now (file not writable, too many requests, shutting "
    "down), and nothing was changed",
}
_ALWAYS: Final = ("401", "500", "503")
_WITH_BODY: Final = ("400", "408", "413", "422")


def document() -> Json:
    """The whole document, ready for JSON. A fresh one each time."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Azure OpenAI proxy",
            "version": _version(),
            "description": "One OpenAI-shaped address in front of many Azure OpenAI resources.",
        },
        "paths": {**_admin_paths(), **_health_paths(), **_data_plane_paths()},
        "components": {
            "schemas": _schemas(),
            "responses": {status: _problem(status) for status in _PROBLEMS},
            "securitySchemes": {
                "adminKey": {"type": "apiKey", "in": "header", "name": KEY_HEADER},
                "bearer": {"type": "http", "scheme": "bearer"},
                "apiKey": {"type": "apiKey", "in": "header", "name": "api-key"},
            },
        },
    }


def _version() -> str:
    try:
        return version("azure-openai-proxy")
    except PackageNotFoundError:  # run from a source tree that was never installed
        return "0"


def _admin_paths() -> Json:
    instances, one = "/admin/instances", "/admin/instances/{name}"
    name = {
        "name": "name",
        "in": "path",
        "required": True,
        "schema": {"type": "string", "pattern": f"^{INSTANCE_NAME_PATTERN}$"},
    }
    return {
        instances: {
            "get": _admin("List all instances", "200", "Instances"),
            "post": _admin("Add an instance", "201", "Success", "409", takes="NewInstance"),
        },
        one: {
            "parameters": [name],
            "delete": _admin("Delete an instance", "200", "Success", "404"),
        },
        f"{one}/config": {
            "parameters": [name],
            "get": _admin("Read a configuration", "200", "InstanceConfig", "404"),
            "put": _admin("Change a configuration", "200", "Success", "404", takes="ConfigChanges"),
        },
        f"{one}/state": {
            "parameters": [name],
            "get": _admin("Read a state", "200", "InstanceState", "404"),
            "put": _admin("Correct a state", "200", "Success", "404", takes="StateChanges"),
        },
    }


def _admin(
    summary: str, status: str, answer: str, *problems: str, takes: str | None = None
) -> Json:
    statuses = sorted((*_ALWAYS, *problems, *(_WITH_BODY if takes else ())))
    responses = {status: _json_response("Done", answer)}
    responses |= {problem: {"$ref": f"#/components/responses/{problem}"} for problem in statuses}
    operation: Json = {
        "tags": ["admin"],
        "summary": summary,
        "security": [{"adminKey": []}],
        "responses": responses,
    }
    if takes is not None:
        operation["requestBody"] = {"required": True, "content": _json_content(takes)}
    return operation


def _health_paths() -> Json:
    def get(summary: str, responses: Json) -> Json:
        return {"get": {"tags": ["health"], "summary": summary, "responses": responses}}

    html = {"description": "A page for people", "content": {"text/html": {}}}
    return {
        "/": get("Where to find what", {"200": html}),
        "/healthz": get("The process lives", {"200": _json_response("It does", "Health")}),
        "/readyz": get(
            "Some instance can serve",
            {
                "200": _json_response("One can", "Health"),
                "503": _json_response("None can now", "Health"),
            },
        ),
        "/openapi.json": get(
            "This document",
            {"200": {"description": "It", "content": {"application/json": {"schema": True}}}},
        ),
    }


def _data_plane_paths() -> Json:
    paths: Json = {}
    for address in ADDRESSES:
        paths[f"{address}models"] = {"get": _data_plane("List the models")}
        paths[f"{address}models/{{model}}"] = {
            "parameters": [_parameter("model")],
            "get": _data_plane("One model"),
        }
        for operation in OPERATIONS:
            paths[address + operation.path] = {"post": _operation(operation)}
    for operation in OPERATIONS:
        paths[f"/openai/deployments/{{deployment}}/{operation.path}"] = {
            "parameters": [_parameter("deployment")],
            "post": _operation(operation),
        }
    return paths


def _parameter(name: str) -> Json:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}


def _operation(operation: Operation) -> Json:
    media = "application/json" if operation.body == "json" else "multipart/form-data"
    body = {"required": True, "content": {media: {"schema": {"type": "object"}}}}
    return {**_data_plane(f"OpenAI: {operation.path}"), "requestBody": body}


def _data_plane(summary: str) -> Json:
    return {
        "tags": ["data plane"],
        "summary": summary,
        "security": [{"bearer": []}, {"apiKey": []}, {}],
        "responses": {
            "200": {"description": "As the OpenAI API reference describes it"},
            "429": {
                "description": "No capacity in time. `retry-after-ms` and `retry-after` say when"
            },
            "default": {
                "description": "The upstream's own answer unchanged, or an error of the proxy in "
                'OpenAI\'s shape: `{"error": {message, type, param, code}}`'
            },
        },
    }


def _schemas() -> Json:
    config, state = _schema(InstanceConfig), _schema(InstanceState)
    name = config["properties"]["name"]
    new = copy.deepcopy(config)
    new["properties"]["name"] = {**name, **_ANY_NAME_BUT_DOTS}
    text, word = {"type": "string"}, {"const": "error"}
    problem = _object({"field": text, "message": text})
    instance = _object({"config": _ref("InstanceConfig"), "state": _ref("InstanceState")})
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
        "FieldFailure": _object(
            {"status": word, "message": text, "errors": {"type": "array", "items": problem}}
        ),
        "Health": _object(
            {"status": {"enum": ["alive", "ready", "unavailable"]}, "message": text}, ("status",)
        ),
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


def _problem(status: str) -> Json:
    return _json_response(_PROBLEMS[status], "FieldFailure" if status == "422" else "Failure")


def _json_response(description: str, schema: str) -> Json:
    return {"description": description, "content": _json_content(schema)}


def _json_content(schema: str) -> Json:
    return {"application/json": {"schema": _ref(schema)}}


def _ref(schema: str) -> Json:
    return {"$ref": f"#/components/schemas/{schema}"}
