"""The admin API through Quart's test client: who may, and what the answers look like."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import trio
from admin_calls import ENDPOINTS, NEW, answer, call
from front_fakes import ADMIN_KEY, KEY, FakeAdministration, config
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.models import InstanceState
from proxy.front.admin import AdminKey

if TYPE_CHECKING:
    from quart.wrappers import Response


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
