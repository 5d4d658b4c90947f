"""`POST /admin/config/reload`, `/admin/logging`, and what an edited file does to other changes."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pytest
from front_fakes import KEY, FakeAdministration, config, front

from actors.errors import InvalidEdit
from proxy.front.openapi import document

if TYPE_CHECKING:
    from collections.abc import Iterator

RELOAD, LOGGING = "/admin/config/reload", "/admin/logging"
PATHS = document()["paths"]
EDIT = InvalidEdit(
    "configs.json", [(f"e{number}.priority", "must be less") for number in range(200)]
)


async def send(
    administration: FakeAdministration,
    method: str,
    path: str,
    headers: dict[str, str] = KEY,
    **request: Any,
) -> tuple[int, Any]:
    app = front(administration=administration)
    response = await app.test_client().open(path, method=method, headers=headers, **request)
    template = path.partition("?")[0].replace("/east", "/{name}")
    assert str(response.status_code) in PATHS[template][method.lower()]["responses"]
    return response.status_code, await response.get_json()


# --- reload


async def test_a_reload_says_what_is_different() -> None:
    status, answer = await send(FakeAdministration(config()), "POST", RELOAD)
    assert status == 200
    assert answer == {
        "status": "success",
        "message": "removed east",
        "added": [],
        "removed": ["east"],
        "changed": {},
    }


async def test_a_reload_without_an_edit_says_so() -> None:
    _, answer = await send(FakeAdministration(), "POST", RELOAD)
    assert answer["message"] == "nothing has changed"


async def test_an_edit_can_be_discarded() -> None:
    administration = FakeAdministration(config())
    _, answer = await send(administration, "POST", f"{RELOAD}?discard=true")
    assert answer["removed"] == []
    assert list(administration.instances) == ["east"]


async def test_a_mistyped_option_discards_nothing() -> None:
    administration = FakeAdministration(config())
    status, answer = await send(administration, "POST", f"{RELOAD}?discart=true")
    assert status == 422
    assert "discard" in answer["errors"][0]["message"]
    assert administration.asked == 0


@pytest.mark.parametrize(
    ("method", "path", "data"),
    [
        ("POST", RELOAD, None),
        ("PUT", "/admin/instances/east/config", {"priority": 5}),
        ("DELETE", "/admin/instances/east", None),
        (
            "POST",
            "/admin/instances",
            {"name": "a", "api_key": "k" * 20, "api_base": "https://a.example"},
        ),
    ],
)
async def test_an_invalid_edit_is_a_conflict_with_places_and_a_remedy(
    method: str, path: str, data: Any
) -> None:
    administration = FakeAdministration(config())
    administration.refusal = EDIT
    status, answer = await send(administration, method, path, json=data)
    assert status == 409
    assert answer["status"] == "error"
    assert "configs.json was edited" in answer["message"]
    assert f"POST {RELOAD}?discard=true" in answer["message"]
    assert answer["errors"][0] == {"field": "e0.priority", "message": "must be less"}
    assert len(answer["errors"]) == 100


# --- log level


@pytest.fixture(autouse=True)
def _restored_level() -> Iterator[None]:
    root = logging.getLogger()
    level = root.level
    root.setLevel("INFO")
    yield
    root.setLevel(level)


@pytest.mark.parametrize("given", ["DEBUG", "warning", "Error"])
async def test_the_log_level_can_be_changed_and_read(given: str) -> None:
    administration = FakeAdministration()
    assert await send(administration, "GET", LOGGING) == (200, {"level": "INFO"})
    status, answer = await send(administration, "PUT", LOGGING, json={"level": given})
    assert status == 200
    assert given.upper() in answer["message"]
    assert await send(administration, "GET", LOGGING) == (200, {"level": given.upper()})
    assert logging.getLogger("proxy.anything").isEnabledFor(logging.getLevelName(given.upper()))


@pytest.mark.parametrize(
    ("data", "field"),
    [
        ({}, "level"),
        ({"level": None}, "level"),
        ({"level": "VERBOSE"}, "level"),
        ({"level": 10}, "level"),
        ({"level": "NOTSET"}, "level"),
        ({"level": "DEBUG", "logger": "root"}, "logger"),
    ],
)
async def test_a_log_level_that_is_none_is_refused(data: Any, field: str) -> None:
    status, answer = await send(FakeAdministration(), "PUT", LOGGING, json=data)
    assert status == 422
    assert [problem["field"] for problem in answer["errors"]] == [field]
    assert logging.getLogger().level == logging.INFO


@pytest.mark.parametrize(("method", "path"), [("POST", RELOAD), ("GET", LOGGING), ("PUT", LOGGING)])
async def test_all_of_it_takes_the_admin_key(method: str, path: str) -> None:
    administration = FakeAdministration(config())
    status, _ = await send(administration, method, path, headers={}, json={"level": "DEBUG"})
    assert status == 401
    assert administration.asked == 0
    assert logging.getLogger().level == logging.INFO
