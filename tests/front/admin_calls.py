"""Calls of the admin API through Quart's test client."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from front_fakes import KEY, FakeAdministration, front

from proxy.front.openapi import document

if TYPE_CHECKING:
    from quart.wrappers import Response


ENDPOINTS = [
    ("GET", "/admin/instances"),
    ("POST", "/admin/instances"),
    ("DELETE", "/admin/instances/east"),
    ("GET", "/admin/instances/east/config"),
    ("PUT", "/admin/instances/east/config"),
    ("GET", "/admin/instances/east/state"),
    ("PUT", "/admin/instances/east/state"),
]
NEW = {"name": "west", "api_key": "k-0123456789abcdef-west", "api_base": "https://west.example"}
PATHS = document()["paths"]


async def call(
    administration: FakeAdministration,
    method: str,
    path: str,
    data: Any = None,
    headers: dict[str, str] = KEY,
) -> Response:
    """The answer; its status must be one that the API description names for this operation."""
    body = data if data is None or isinstance(data, (bytes, str)) else json.dumps(data)
    app = administration.app = administration.app or front(administration=administration)
    response = await app.test_client().open(path, method=method, headers=headers, data=body)
    template = path.replace("/east", "/{name}").replace("/nobody", "/{name}")
    operation = PATHS.get(template, {}).get(method.lower())
    if operation is not None:
        assert str(response.status_code) in operation["responses"]
    return response


async def answer(*arguments: Any, **named: Any) -> tuple[int, Any]:
    response = await call(*arguments, **named)
    return response.status_code, await response.get_json()
