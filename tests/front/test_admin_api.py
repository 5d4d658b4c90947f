"""The admin API through Quart's test client."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import trio
from front_fakes import ADMIN_KEY, KEY, FakeAdministration, config, front
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.errors import ChangeRefused, StoreFailed
from actors.models import InstanceState
from proxy.front.admin import AdminKey
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
ELSEWHERE = [
    ("GET", "/admin"),
    ("GET", "/admin/"),
    ("GET", "/admin/secrets"),
    ("PATCH", "/admin/instances"),
    ("HEAD", "/admin/instances"),
    ("OPTIONS", "/admin/instances"),
    ("TRACE", "/admin/instances/east/config"),
    ("GET", "/admin/instances/nobody/config"),
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


# --- who may


@pytest.mark.parametrize(("method", "path"), ENDPOINTS + ELSEWHERE)
@pytest.mark.parametrize("key", [None, "", "wrong", ADMIN_KEY[:-1], ADMIN_KEY + "x", "ключ"])
async def test_without_the_key_everything_is_401(method: str, path: str, key: str | None) -> None:
    administration = FakeAdministration(config())
    headers = {} if key is None else {"X-Admin-API-Key": key.encode().decode("latin-1")}
    response = await call(administration, method, path, b"{ this is not json", headers)
    assert response.status_code == 401
    assert "X-Admin-API-Key" in response.headers["WWW-Authenticate"]
    assert (await response.get_json())["status"] == "error"
    assert administration.asked == 0


@pytest.mark.parametrize(("method", "path"), ENDPOINTS)
async def test_with_the_key_every_endpoint_answers(method: str, path: str) -> None:
    data = NEW if method == "POST" else {} if method == "PUT" else None
    response = await call(FakeAdministration(config()), method, path, data)
    assert response.status_code == (201 if method == "POST" else 200)
    assert response.headers["Cache-Control"] == "no-store"
    assert response.headers["Content-Type"] == "application/json"
    assert not [name for name, _ in response.headers if name.startswith("Access-Control")]


async def test_refusals_without_the_key_look_alike() -> None:
    there = await call(
        FakeAdministration(config()), "GET", "/admin/instances/east/config", None, {}
    )
    absent = await call(FakeAdministration(), "GET", "/admin/nothing/here", None, {})
    assert await there.get_data() == await absent.get_data()
    assert {n for n, _ in there.headers} == {n for n, _ in absent.headers}


@given(st.text(st.characters(codec="utf-8"), min_size=1), st.text(st.characters(codec="utf-8")))
def test_only_the_key_itself_is_admitted(key: str, given_key: str) -> None:
    as_received = given_key.encode().decode("latin-1")
    assert AdminKey(key).admits(as_received) == (key == given_key)
    assert AdminKey(key).admits(key.encode().decode("latin-1"))
    assert not AdminKey(key).admits(None)


def test_an_empty_admin_key_is_refused_at_the_start() -> None:
    with pytest.raises(ValueError, match="empty"):
        AdminKey("")


# --- what the answers look like


async def test_list_shows_config_and_state_in_the_order_of_the_file() -> None:
    administration = FakeAdministration(config("zeta"), config("alpha"), config("mid"))
    response = await call(administration, "GET", "/admin/instances")
    listed = await response.get_json()
    assert (listed["status"], listed["count"]) == ("success", 3)
    assert list(json.loads(await response.get_data())["instances"]) == ["zeta", "alpha", "mid"]
    alpha = listed["instances"]["alpha"]
    assert list(alpha) == ["config", "state"]
    assert alpha["config"]["api_base"] == "https://east.example"
    assert alpha["state"]["status"] == "healthy"


async def test_no_instances() -> None:
    assert await answer(FakeAdministration(), "GET", "/admin/instances") == (
        200,
        {"status": "success", "count": 0, "instances": {}},
    )


async def test_config_is_the_object_itself_with_the_key_masked() -> None:
    administration = FakeAdministration(config(model_deployments={"gpt-4": "d"}))
    status, shown = await answer(administration, "GET", "/admin/instances/east/config")
    assert status == 200
    assert shown == {
        "name": "east",
        "provider_type": "azure",
        "api_key": "****east",
        "api_base": "https://east.example",
        "api_version": "2024-10-21",
        "priority": 100,
        "weight": 100,
        "max_tpm": 240000,
        "max_input_tokens": 0,
        "supported_models": [],
        "model_deployments": {"gpt-4": "d"},
        "enabled": True,
        "timeout_seconds": 60.0,
        "retry_count": 3,
    }


async def test_state_is_the_object_itself() -> None:
    status, shown = await answer(FakeAdministration(config()), "GET", "/admin/instances/east/state")
    assert status == 200
    assert shown == InstanceState(name="east").model_dump(mode="json")


async def test_fields_of_a_newer_version_are_not_shown() -> None:
    administration = FakeAdministration(config(future_secret="s3cret"))
    await administration.update_state("east", {})
    instance = administration.instances["east"]
    administration.instances["east"] = type(instance)(
        instance.config, InstanceState(name="east", future="s3cret")
    )
    response = await call(administration, "GET", "/admin/instances")
    assert b"s3cret" not in await response.get_data()


async def test_add() -> None:
    administration = FakeAdministration(config())
    response = await call(administration, "POST", "/admin/instances", NEW)
    assert response.status_code == 201
    assert (await response.get_json())["status"] == "success"
    assert response.headers["Location"] == "/admin/instances/west/config"
    assert administration.instances["west"].config.api_key == NEW["api_key"]
    assert list(administration.instances) == ["east", "west"]


async def test_add_under_a_taken_name_is_409() -> None:
    administration = FakeAdministration(config())
    status, body = await answer(administration, "POST", "/admin/instances", {**NEW, "name": "east"})
    assert (status, body["status"]) == (409, "error")
    assert "east" in body["message"]
    assert administration.instances["east"].config == config()


async def test_put_config_merges_what_is_given() -> None:
    administration = FakeAdministration(config(weight=7))
    status, body = await answer(
        administration, "PUT", "/admin/instances/east/config", {"priority": 50}
    )
    assert (status, body["status"]) == (200, "success")
    assert "priority" in body["message"]
    assert administration.instances["east"].config == config(weight=7, priority=50)


async def test_put_of_what_was_read_changes_nothing() -> None:
    administration = FakeAdministration(config())
    _, shown = await answer(administration, "GET", "/admin/instances/east/config")
    status, body = await answer(administration, "PUT", "/admin/instances/east/config", shown)
    assert (status, body["status"]) == (200, "success")
    assert administration.instances["east"].config == config()


async def test_put_state_merges_what_is_given() -> None:
    administration = FakeAdministration(config())
    status, body = await answer(
        administration, "PUT", "/admin/instances/east/state", {"error_count": 3}
    )
    assert (status, body["status"]) == (200, "success")
    assert administration.instances["east"].state == InstanceState(name="east", error_count=3)


async def test_delete() -> None:
    administration = FakeAdministration(config(), config("west"))
    status, body = await answer(administration, "DELETE", "/admin/instances/east")
    assert (status, body["status"]) == (200, "success")
    assert list(administration.instances) == ["west"]


# --- what is refused


@pytest.mark.parametrize(
    ("method", "path"),
    [(m, p.replace("east", n)) for m, p in ENDPOINTS[2:] for n in ("nobody", "..%2f", "a%0Ab")],
)
async def test_an_unknown_instance_is_404(method: str, path: str) -> None:
    data = {} if method == "PUT" else None
    status, body = await answer(FakeAdministration(config()), method, path, data)
    assert (status, body["status"]) == (404, "error")
    assert set(body) == {"status", "message"}


@pytest.mark.parametrize(
    ("path", "given_fields", "at_fault"),
    [
        ("config", {"priority": -1}, "priority"),
        ("config", {"priority": "50"}, "priority"),
        ("config", {"enabled": 1}, "enabled"),
        ("config", {"retry_count": 1.5}, "retry_count"),
        ("config", {"timeout_seconds": 0}, "timeout_seconds"),
        ("config", {"provider_type": "aws"}, "provider_type"),
        ("config", {"api_base": "ftp://x"}, "api_base"),
        ("config", {"api_key": "two\nlines"}, "api_key"),
        ("config", {"prioritty": 5}, "prioritty"),
        ("config", {"name": "other"}, "name"),
        ("config", {"prio\ud800": 1}, "'prio\\ud800'"),
        ("state", {"error_count": -1}, "error_count"),
        ("state", {"status": "fine"}, "status"),
        ("state", {"no_such": 1}, "no_such"),
        ("state", {"name": "other"}, "name"),
    ],
)
async def test_422_names_the_field_and_changes_nothing(
    path: str, given_fields: dict[str, Any], at_fault: str
) -> None:
    administration = FakeAdministration(config())
    before = dict(administration.instances)
    status, body = await answer(
        administration, "PUT", f"/admin/instances/east/{path}", {**given_fields}
    )
    assert (status, body["status"]) == (422, "error")
    assert [problem["field"] for problem in body["errors"]] == [at_fault]
    assert all(problem["message"] for problem in body["errors"])
    assert administration.instances == before


@pytest.mark.parametrize("missing", ["name", "api_key", "api_base"])
async def test_add_without_a_required_field_is_422(missing: str) -> None:
    administration = FakeAdministration()
    given_fields = {field: value for field, value in NEW.items() if field != missing}
    status, body = await answer(administration, "POST", "/admin/instances", given_fields)
    assert (status, [problem["field"] for problem in body["errors"]]) == (422, [missing])
    assert not administration.instances


@pytest.mark.parametrize("name", ["", "a/b", "a b", "x" * 65, "näme", "a\n", "..", 5, None])
async def test_add_under_an_impossible_name_is_422(name: object) -> None:
    status, body = await answer(
        FakeAdministration(), "POST", "/admin/instances", {**NEW, "name": name}
    )
    assert (status, [problem["field"] for problem in body["errors"]]) == (422, ["name"])


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"nonsense",
        b"\xff\xfe{}",
        '{"name": "é"}'.encode("latin-1"),
        b'{"priority": NaN}',
        b'{"timeout_seconds": Infinity}',
        b'{"priority": 1, "priority": 2}',
        b'{"model_deployments": {"a": "b", "a": "c"}}',
        b'{"priority": ' + b"9" * 5000 + b"}",
        b"[" * 200_000,
        b'{"a":' * 100_000,
    ],
)
@pytest.mark.parametrize(
    ("method", "path"), [endpoint for endpoint in ENDPOINTS if endpoint[0] in ("POST", "PUT")]
)
async def test_what_is_no_json_is_400(method: str, path: str, body: bytes) -> None:
    administration = FakeAdministration(config())
    before = dict(administration.instances)
    status, shown = await answer(administration, method, path, body)
    assert (status, shown["status"]) == (400, "error")
    assert administration.instances == before


@pytest.mark.parametrize("body", ["[]", "null", '"text"', "5", "true"])
@pytest.mark.parametrize(
    ("method", "path"), [endpoint for endpoint in ENDPOINTS if endpoint[0] in ("POST", "PUT")]
)
async def test_json_that_is_no_object_is_422(method: str, path: str, body: str) -> None:
    status, shown = await answer(FakeAdministration(config()), method, path, body)
    assert (status, shown["status"]) == (422, "error")
    assert shown["errors"]


@pytest.mark.parametrize(
    "content_type", [None, "application/x-www-form-urlencoded", "text/plain", "multipart/form-data"]
)
async def test_the_content_type_does_not_matter(content_type: str | None) -> None:
    administration = FakeAdministration(config())
    headers = KEY if content_type is None else {**KEY, "Content-Type": content_type}
    status, _ = await answer(
        administration, "PUT", "/admin/instances/east/config", {"priority": 50}, headers=headers
    )
    assert status == 200
    assert administration.instances["east"].config.priority == 50


async def test_a_body_above_a_mebibyte_is_413() -> None:
    administration = FakeAdministration(config())
    path = "/admin/instances/east/config"
    padded = b'{"priority": 50' + b" " * (1024 * 1024 - 16) + b"}"
    assert (await call(administration, "PUT", path, padded)).status_code == 200
    status, body = await answer(administration, "PUT", path, padded + b" ")
    assert (status, body["status"]) == (413, "error")


async def test_a_body_above_a_mebibyte_in_pieces_is_413() -> None:
    client = front(config()).test_client()
    async with client.request("/admin/instances", method="POST", headers=KEY) as connection:
        with trio.move_on_after(5):
            for _ in range(20):
                await connection.send(b" " * 65536)
            await connection.send_complete()
        response = await connection.as_response()
    assert response.status_code == 413


@pytest.mark.parametrize(("method", "path"), ENDPOINTS)
@pytest.mark.parametrize(
    "refusal", [StoreFailed("no space left on device"), ChangeRefused("shutting down")]
)
async def test_what_is_not_the_callers_fault_is_503_with_the_reason(
    method: str, path: str, refusal: ChangeRefused
) -> None:
    administration = FakeAdministration(config())
    administration.refusal = refusal
    data = NEW if method == "POST" else {} if method == "PUT" else None
    status, body = await answer(administration, method, path, data)
    assert (status, body) == (503, {"status": "error", "message": str(refusal)})


async def test_unknown_addresses_and_methods_with_the_key() -> None:
    administration = FakeAdministration(config())
    status, body = await answer(administration, "GET", "/admin/secrets")
    assert (status, body["status"]) == (404, "error")
    response = await call(administration, "PATCH", "/admin/instances")
    assert response.status_code == 405
    assert set(response.headers["Allow"].split(", ")) == {"GET", "HEAD", "OPTIONS", "POST"}
    assert (await response.get_json())["status"] == "error"
    response = await call(administration, "OPTIONS", "/admin/instances/east/config")
    assert response.status_code == 200
    assert set(response.headers["Allow"].split(", ")) == {"GET", "HEAD", "OPTIONS", "PUT"}


@pytest.mark.parametrize(
    "path",
    [
        "/admin//instances",
        "/admin/instances/",
        "/admin/./instances",
        "/x/../admin/instances",
        "/Admin/instances",
        "/%2fadmin/instances",
        "/%61dmin/instances",
        "/admin%2finstances",
    ],
)
async def test_no_other_spelling_of_an_address_needs_no_key(path: str) -> None:
    administration = FakeAdministration(config())
    response = await call(administration, "GET", path, None, {})
    assert response.status_code in (401, 404)
    assert administration.asked == 0


# --- secrets

secrets = st.text("abcdefghijkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789", min_size=24)
junk = st.one_of(st.none(), st.booleans(), st.integers(), st.lists(st.text(max_size=3)))


@settings(max_examples=30, deadline=None)
@given(secret=secrets, other=secrets, value=junk, field=st.sampled_from(["name", "api_base", "x"]))
def test_no_answer_ever_holds_a_key(secret: str, other: str, value: object, field: str) -> None:
    async def scenario() -> list[Response]:
        administration = FakeAdministration(config(api_key=secret))
        path = "/admin/instances/east/config"
        wrong = {"X-Admin-API-Key": ADMIN_KEY + other}
        requests = [
            ("GET", path, None, KEY),
            ("PUT", path, {"api_key": secret, field: value}, KEY),
            ("PUT", path, {"api_key": [secret]}, KEY),
            ("PUT", path, {"api_key": f"{secret}\n"}, KEY),
            ("PUT", path, {"api_base": f"https://user:{secret}@x"}, KEY),
            ("POST", "/admin/instances", {**NEW, "api_key": secret, field: value}, KEY),
            ("POST", "/admin/instances", {**NEW, "api_key": {"key": secret}}, KEY),
            ("PUT", path, {"api_key": other}, KEY),
            ("GET", path, None, KEY),
            ("GET", "/admin/instances", None, KEY),
            ("GET", "/admin/instances", None, wrong),
            ("GET", "/admin/nowhere", None, KEY),
            ("DELETE", "/admin/instances/east", None, KEY),
        ]
        return [await call(administration, *request) for request in requests]

    async def check() -> None:
        for response in await scenario():
            shown = await response.get_data(as_text=True) + str(response.headers)
            assert secret not in shown
            assert other not in shown
            assert ADMIN_KEY not in shown

    trio.run(check)
