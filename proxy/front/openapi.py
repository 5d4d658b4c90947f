"""The description of the HTTP interface as an OpenAPI 3.1 document.

Records come from the pydantic models, data-plane addresses from the table of operations, so that
neither can drift from what the proxy does.
"""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Final

from actors.models import INSTANCE_NAME_PATTERN
from proxy.exchange.operations import ADDRESSES, OPERATIONS
from proxy.exchange.resources import RESOURCES
from proxy.front.admin import KEY_HEADER, MAX_BODY_BYTES
from proxy.front.schemas import Json, reference, schemas

if TYPE_CHECKING:
    from proxy.exchange.operations import Operation
    from proxy.exchange.resources import Resource

_PROBLEMS: Final[dict[str, str]] = {
    "400": "The body is no JSON, or repeats a name; or the request is no proper HTTP",
    "401": "The admin key is missing or wrong",
    "404": "There is no instance of this name",
    "408": "The body did not arrive in time",
    "409": "An instance of this name exists already; or the configuration file was edited and "
    "can't be used, `errors` says where, and nothing was written over it",
    "413": f"The body is larger than {MAX_BODY_BYTES} bytes",
    "422": "A field is wrong, and nothing was changed; `errors` names the fields",
    "500": "An error of the proxy itself",
    "503": "The change could not be made now (file not writable, too many requests, shutting "
    "down), and nothing was changed",
}
_ALWAYS: Final = ("400", "401", "500", "503")
_WITH_BODY: Final = ("408", "413", "422")
_PROBLEM_SCHEMAS: Final = {"400": "Malformed", "409": "Conflict", "422": "FieldFailure"}


def document() -> Json:
    """The whole document, ready for JSON. A fresh one each time."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Azure OpenAI proxy",
            "version": _version(),
            "description": "One OpenAI-shaped address in front of many Azure OpenAI resources.\n\n"
            "A request that is no proper HTTP, or whose head is too large or does not arrive, is "
            "answered 400, 408, 414 or 431 in OpenAI's shape, whatever its address.",
        },
        "paths": {
            **_admin_paths(),
            **_operating_paths(),
            **_old_paths(),
            **_health_paths(),
            **_data_plane_paths(),
        },
        "components": {
            "schemas": schemas(),
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
        **_parameter("name"),
        "schema": {"type": "string", "pattern": f"^{INSTANCE_NAME_PATTERN}$"},
    }
    return {
        instances: {
            "get": _admin("List all instances", "200", "Instances"),
            "post": _admin("Add an instance", "201", "Success", "409", takes="NewInstance"),
        },
        one: {
            "parameters": [name],
            "delete": _admin("Delete an instance", "200", "Success", "404", "409"),
        },
        f"{one}/config": {
            "parameters": [name],
            "get": _admin("Read a configuration", "200", "InstanceConfig", "404"),
            "put": _admin(
                "Change a configuration", "200", "Success", "404", "409", takes="ConfigChanges"
            ),
        },
        f"{one}/state": {
            "parameters": [name],
            "get": _admin("Read a state", "200", "InstanceState", "404"),
            "put": _admin("Correct a state", "200", "Success", "404", takes="StateChanges"),
        },
    }


def _operating_paths() -> Json:
    migrate = _admin("Take the earlier system's data over", "200", "Migration", "408",
                     "409", "413", "422")  # fmt: skip
    migrate["parameters"] = [
        _switch("overwrite", "Replaces the settings of instances that exist already"),
        _switch("dry_run", "Shows what would be done, and does nothing"),
    ]
    anything = {"schema": True}
    migrate["requestBody"] = {
        "description": "The data; without a body, the file that INSTANCE_DATA_FILE names is read.",
        "required": False,
        "content": {"application/json": anything, "application/yaml": anything},
    }
    reload = _admin("Put an edited configuration file in force", "200", "Reload", "409", "422")
    reload["parameters"] = [
        _switch("discard", "Puts the file back to what is in force, and keeps the edit beside it")
    ]
    put_level = _admin("Change the log level until the next start", "200", "Success",
                       takes="LogLevel")  # fmt: skip
    explain = _admin("Where a request would go, and why", "200", "Explanation",
                     takes="RouteQuestion")  # fmt: skip
    where = "Where the request would be sent, such as /v1/embeddings"
    text = {"type": "string"}
    explain["parameters"] = [{"name": "path", "in": "query", "description": where, "schema": text}]
    return {
        "/admin/instances/migrate": {"post": migrate},
        "/admin/config/reload": {"post": reload},
        "/admin/logging": {
            "get": _admin("Read the log level", "200", "LogLevel"),
            "put": put_level,
        },
        "/admin/route/explain": {"post": explain},
        "/admin/requests/{identity}": {
            "parameters": [_parameter("identity")],
            "get": _admin("How a recent request went", "200", "RequestHistory", "404"),
        },
        "/admin/estimates": {
            "get": _admin("How good the estimates of input tokens are", "200", "Estimates"),
        },
        "/metrics": {"get": _metrics()},
    }


def _metrics() -> Json:
    text = {"text/plain": {"schema": {"type": "string"}}}
    return {
        "tags": ["health"],
        "summary": "Metrics for Prometheus",
        "description": "The key is that of the admin API, or METRICS_API_KEY.",
        "security": [{"bearer": []}, {"adminKey": []}],
        "responses": {
            "200": {"description": "In Prometheus' text format", "content": text},
            "401": {"description": "The key is missing or wrong", "content": text},
        },
    }


def _old_paths() -> Json:
    """The addresses of the earlier system, which lead to the present ones."""
    name = {"parameters": [_parameter("name")]}
    record = {method: _moved() for method in ("get", "put")}
    return {
        "/admin/instances/new": {method: _moved() for method in ("get", "post")},
        "/admin/instances/new/{name}/config": {**name, **record},
        "/admin/instances/new/{name}/state": {**name, **record},
    }


def _moved() -> Json:
    operation = _admin("Moved to the address without `/new`", "308", "Failure")
    operation["deprecated"] = True
    return operation


def _switch(name: str, description: str) -> Json:
    words = {"enum": ["true", "false", "1", "0"], "default": "false"}
    return {"name": name, "in": "query", "description": description, "schema": words}


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
                "503": _json_response("None can now, or the service is shutting down", "Health"),
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
        for resource in RESOURCES:
            paths[address + resource.path] = _kept(resource)
    for operation in OPERATIONS:
        paths[f"/openai/deployments/{{deployment}}/{operation.path}"] = {
            "parameters": [_parameter("deployment")],
            "post": _operation(operation),
        }
    return paths


def _kept(resource: Resource) -> Json:
    """Something that lives on one instance."""
    names = re.findall(r"{(\w+)}", resource.path)
    item: Json = {"parameters": [_parameter(name) for name in names]} if names else {}
    for method in resource.methods:
        described = _data_plane(f"OpenAI: {method} {resource.path}")
        if method == "GET" and resource.listed:
            described["description"] = (
                "What all instances have, as one list. The header `x-proxy-unanswered` names "
                "those that have not answered."
            )
        if method == "POST":
            media = "multipart/form-data" if resource.form else "application/json"
            content = {media: {"schema": {"type": "object"}}}
            described["requestBody"] = {"required": resource.form, "content": content}
        item[method.lower()] = described
    return item


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


def _problem(status: str) -> Json:
    return _json_response(_PROBLEMS[status], _PROBLEM_SCHEMAS.get(status, "Failure"))


def _json_response(description: str, schema: str) -> Json:
    return {"description": description, "content": _json_content(schema)}


def _json_content(schema: str) -> Json:
    return {"application/json": {"schema": reference(schema)}}
