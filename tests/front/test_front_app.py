"""Health, pages, and what the application says when something is wrong."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

import pytest
import trio.testing
from front_fakes import KEY, FakeAdministration, config, front

if TYPE_CHECKING:
    from quart.wrappers import Response


async def get(path: str, method: str = "GET", ready: bool = True, **request: Any) -> Response:
    return await front(config(), ready=ready).test_client().open(path, method=method, **request)


@pytest.mark.parametrize("ready", [True, False])
async def test_alive_whether_ready_or_not(ready: bool) -> None:
    response = await get("/healthz", ready=ready)
    assert (response.status_code, await response.get_json()) == (200, {"status": "alive"})


async def test_ready_when_some_instance_can_serve() -> None:
    response = await get("/readyz")
    assert (response.status_code, await response.get_json()) == (200, {"status": "ready"})
    response = await get("/readyz", ready=False)
    assert response.status_code == 503
    shown = await response.get_json()
    assert shown["status"] == "unavailable"
    assert "no instance" in shown["message"]


async def test_not_ready_any_more_once_the_service_stops() -> None:
    leaving = False
    app = front(config(), leaving=lambda: leaving)
    assert (await app.test_client().get("/readyz")).status_code == 200
    leaving = True
    response = await app.test_client().get("/readyz")
    assert response.status_code == 503
    assert await response.get_json() == {
        "status": "draining",
        "message": "the service is shutting down",
    }
    assert (await app.test_client().get("/healthz")).status_code == 200, "it need not be restarted"


async def test_a_client_that_sends_half_a_change_gets_as_long_as_any(
    autojump_clock: trio.testing.MockClock,
) -> None:
    app = front(config(), body_timeout_s=7.0)
    headers = {**KEY, "Content-Type": "application/json", "Content-Length": "2"}
    began = trio.current_time()
    async with app.test_client().request(
        "/admin/instances", method="POST", headers=headers
    ) as half:
        await half.send(b"{")
        response = await half.as_response()
    assert (response.status_code, trio.current_time() - began) == (408, 7)


@pytest.mark.parametrize("ready", [True, False])
async def test_the_page_says_where_to_go_and_no_more(ready: bool) -> None:
    response = await get("/", ready=ready)
    page = await response.get_data(as_text=True)
    assert response.status_code == 200
    assert response.headers["Content-Type"] == "text/html; charset=utf-8"
    assert ("is ready" in page, "is not ready" in page) == (ready, not ready)
    for link in ("/healthz", "/readyz", "/openapi.json", "/v1/models"):
        assert f'href="{link}"' in page
    assert "<script" not in page
    for secret in (config().api_key, config().api_base, config().name, KEY["X-Admin-API-Key"]):
        assert secret not in page


@pytest.mark.parametrize("path", ["/", "/healthz", "/readyz", "/openapi.json"])
async def test_public_addresses_take_get_head_and_options_only(path: str) -> None:
    allowed = {"GET", "HEAD", "OPTIONS"}
    assert (await get(path, "HEAD")).status_code == 200
    options = await get(path, "OPTIONS")
    assert (options.status_code, set(options.headers["Allow"].split(", "))) == (200, allowed)
    for method in ("POST", "PUT", "DELETE", "PATCH", "TRACE"):
        response = await get(path, method)
        assert response.status_code == 405
        assert set(response.headers["Allow"].split(", ")) == allowed
        assert (await response.get_json())["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize("path", ["/nowhere", "/v2/chat", "/healthz/", "/administer", "/static/x"])
async def test_unknown_addresses_are_404_in_openai_shape(path: str) -> None:
    response = await get(path, "POST")
    assert response.status_code == 404
    assert response.headers["Content-Type"] == "application/json"
    assert await response.get_json() == {
        "error": {
            "message": f"Invalid URL (POST {path})",
            "type": "invalid_request_error",
            "param": None,
            "code": None,
        }
    }


@pytest.mark.parametrize("path", ["/", "/healthz", "/nowhere", "/admin/instances"])
async def test_headers_of_every_answer(path: str) -> None:
    response = await get(path)
    assert response.headers["Cache-Control"] == "no-store"
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["Content-Security-Policy"].startswith("default-src 'none'")
    assert response.headers["X-Request-Id"]
    assert "Access-Control-Allow-Origin" not in response.headers
    assert "Set-Cookie" not in response.headers


async def test_the_clients_request_id_is_kept_if_harmless() -> None:
    kept = await get("/healthz", headers={"X-Request-Id": "trace-1.2_3"})
    assert kept.headers["X-Request-Id"] == "trace-1.2_3"
    replaced = await get("/healthz", headers={"X-Request-Id": "a b<script>"})
    assert replaced.headers["X-Request-Id"] not in ("", "a b<script>")


@pytest.mark.parametrize("path", ["/admin/instances", "/readyz"])
async def test_an_unexpected_error_is_logged_and_not_shown(
    path: str, caplog: pytest.LogCaptureFixture
) -> None:
    administration = FakeAdministration(config())
    administration.refusal = RuntimeError("the cause")

    def broken() -> bool:
        raise RuntimeError("the cause")

    app = front(administration=administration)
    app.view_functions["readyz"] = broken
    headers = {**KEY, "X-Request-Id": "abc-1"}
    with caplog.at_level(logging.ERROR):
        response = await app.test_client().get(path, headers=headers)
    body = await response.get_data(as_text=True)
    assert response.status_code == 500
    assert response.headers["Content-Type"] == "application/json"
    assert "the cause" not in body
    assert "abc-1" in body
    shown = json.loads(body)
    assert set(shown) == ({"status", "message"} if path.startswith("/admin") else {"error"})
    (record,) = [each for each in caplog.records if each.name == "proxy.front"]
    assert "abc-1" in record.getMessage()
    assert "the cause" in caplog.text


async def test_an_application_can_start_and_stop() -> None:
    app = front(config())
    async with app.test_app() as running:
        assert (await running.test_client().get("/healthz")).status_code == 200


async def test_a_change_over_the_admin_api_is_a_line_of_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "proxy.front")
    client = front(config()).test_client()
    await client.get("/admin/instances", headers=KEY)
    await client.get("/readyz")
    change = {"json": {"api_key": "a-new-key-0123456789"}, "headers": {**KEY, "X-Request-Id": "r1"}}
    await client.put("/admin/instances/east/config", **change)
    await client.delete("/admin/instances/east")
    told = [vars(record) for record in caplog.records if record.getMessage() == "admin request"]
    assert [(each["method"], each["path"], each["status"]) for each in told] == [
        ("PUT", "/admin/instances/east/config", 200),
        ("DELETE", "/admin/instances/east", 401),
    ]
    assert told[0]["request_id"] == "r1"
    assert "a-new-key" not in str(told)
