"""The API description against the application that it describes."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest
from front_fakes import KEY, FakeAdministration, config, front

from actors.changes import masked, new_config
from actors.models import InstanceConfig, InstanceState
from proxy.exchange.operations import ADDRESSES, OPERATIONS, find
from proxy.exchange.resources import RESOURCES
from proxy.front.openapi import document

if TYPE_CHECKING:
    from collections.abc import Iterator

METHODS = ("get", "put", "post", "delete", "patch")
DOCUMENT = document()
WITHOUT_BODY = ("/admin/config/reload",)
SCHEMAS = DOCUMENT["components"]["schemas"]


def operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, item in DOCUMENT["paths"].items():
        for method in METHODS:
            if method in item:
                yield path, method, item[method]


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if "$ref" in value:
            yield value["$ref"]
        for each in value.values():
            yield from references(each)
    elif isinstance(value, list):
        for each in value:
            yield from references(each)


async def test_it_is_served() -> None:
    response = await front(config()).test_client().get("/openapi.json")
    assert response.status_code == 200
    assert await response.get_json() == json.loads(json.dumps(DOCUMENT))
    assert DOCUMENT["openapi"].startswith("3.1.")


def test_every_reference_leads_somewhere() -> None:
    found = set(references(DOCUMENT))
    assert found
    for reference in found:
        place: Any = DOCUMENT
        for step in reference.removeprefix("#/").split("/"):
            place = place[step]


def test_it_describes_exactly_what_the_application_serves() -> None:
    served = {
        (re.sub(r"<(\w+)>", r"{\1}", rule.rule), method.lower())
        for rule in front(config()).url_map.iter_rules()
        for method in rule.methods - {"HEAD", "OPTIONS"}
    }
    described = {(path, method) for path, method, _ in operations()}
    assert served == {each for each in described if not each[0].startswith(("/v1/", "/openai/"))}


def test_it_describes_exactly_what_the_exchange_serves() -> None:
    described = [path for path, _, _ in operations() if path.startswith(("/v1/", "/openai/"))]
    assert described
    for path in described:
        assert find(re.sub(r"{\w+}", "x", path)) is not None
    for address in ADDRESSES:
        for resource in RESOURCES:
            methods = {m for p, m, _ in operations() if p == address + resource.path}
            assert methods == {method.lower() for method in resource.methods}
    for operation in OPERATIONS:
        assert len([path for path in described if path.endswith(f"/{operation.path}")]) >= 4


@pytest.mark.parametrize(("path", "method", "operation"), list(operations()))
def test_every_operation_is_complete(path: str, method: str, operation: dict[str, Any]) -> None:
    assert operation["summary"]
    item = DOCUMENT["paths"][path]
    assert {f"{{{each['name']}}}" for each in item.get("parameters", [])} == set(
        re.findall(r"{\w+}", path)
    )
    assert all(
        answer.get("description", answer.get("$ref")) for answer in operation["responses"].values()
    )
    if path.startswith("/admin"):
        assert operation["security"] == [{"adminKey": []}]
        assert {"401", "500", "503"} <= set(operation["responses"])
    takes_a_body = method in ("post", "put") and path not in WITHOUT_BODY
    assert ("requestBody" in operation) == (takes_a_body and not operation.get("deprecated"))


def test_the_records_are_those_of_the_models() -> None:
    assert set(SCHEMAS["NewInstance"]["properties"]) == set(InstanceConfig.model_fields)
    assert set(SCHEMAS["NewInstance"]["required"]) == {"name", "api_key", "api_base"}
    assert set(SCHEMAS["InstanceConfig"]["required"]) == set(InstanceConfig.model_fields)
    assert set(SCHEMAS["InstanceState"]["required"]) == set(InstanceState.model_fields)
    assert "name" not in SCHEMAS["ConfigChanges"]["properties"]
    assert "required" not in SCHEMAS["ConfigChanges"]
    assert set(masked(config())) == set(SCHEMAS["InstanceConfig"]["properties"])


def test_no_pattern_is_in_a_dialect_of_its_own() -> None:
    patterns = re.findall(r'"pattern": "((?:[^"\\]|\\.)*)"', json.dumps(SCHEMAS))
    assert patterns
    for pattern in patterns:
        assert r"\\Z" not in pattern
        assert r"\\z" not in pattern


@pytest.mark.parametrize(
    ("address", "fits"),
    [
        ("https://east.openai.azure.com", True),
        ("http://127.0.0.1:8080/base/path", True),
        ("https://[::1]:443/", True),
        ("ftp://x", False),
        ("https://", False),
        ("https://user@host", False),
        ("https://host?query", False),
        ("https://host/path#x", False),
        ("https://host/a b", False),
        ("https://h\u00f6st", False),
    ],
)
def test_the_described_pattern_of_an_address_is_the_checked_one(address: str, fits: bool) -> None:
    pattern = SCHEMAS["NewInstance"]["properties"]["api_base"]["pattern"]
    assert bool(re.search(pattern, address)) == fits
    given = {"name": "east", "api_key": "k", "api_base": address}
    if fits:
        new_config(given)
    else:
        with pytest.raises(Exception, match="api_base"):
            new_config(given)


async def test_the_examples_of_a_description_are_accepted() -> None:
    """The defaults that the description names make a valid record."""
    defaults = {
        field: described["default"]
        for field, described in SCHEMAS["NewInstance"]["properties"].items()
        if "default" in described
    }
    given = {**defaults, "name": "west", "api_key": "k" * 20, "api_base": "https://west.example"}
    app = front(administration=FakeAdministration())
    response = await app.test_client().post("/admin/instances", headers=KEY, json=given)
    assert response.status_code == 201
