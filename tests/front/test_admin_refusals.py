"""What the admin API refuses, and in which words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio
from admin_calls import ENDPOINTS, NEW, answer, call
from front_fakes import KEY, FakeAdministration, config, front

from actors.errors import ChangeRefused, StoreFailed

if TYPE_CHECKING:
    pass


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
