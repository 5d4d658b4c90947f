"""`POST /admin/instances/migrate`, and the addresses of the earlier system."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from front_fakes import KEY, FakeAdministration, config, front

from actors.errors import InvalidEdit, StoreFailed
from actors.store import EarlierData
from proxy.front.admin import MAX_BODY_BYTES
from proxy.front.openapi import document

if TYPE_CHECKING:
    from pathlib import Path

    from quart.wrappers import Response

PATH = "/admin/instances/migrate"
DESCRIBED = document()["paths"][PATH]["post"]["responses"]
OLD = {
    "west": {
        "api_key": "k-0123456789abcdef-west",
        "api_base": "https://west.example",
        "supported_models": ["gpt-4"],
        "priority": "7",
        "status": "active",
        "total_requests": 12,
        "tags": {"secret": "s3cret"},
    }
}


class Site:
    """An application, and the folder with the earlier system's data."""

    def __init__(self, folder: Path, *configs: Any) -> None:
        self.folder = folder
        self.data = folder / "instance_data.json"
        self.administration = FakeAdministration(*configs)
        self.app = front(administration=self.administration, earlier_data=EarlierData(self.data))

    async def post(
        self, body: Any = b"", headers: dict[str, str] = KEY, **query: str
    ) -> tuple[int, Any]:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        response = await self.app.test_client().post(
            PATH, headers=headers, data=content, query_string=query
        )
        assert str(response.status_code) in DESCRIBED
        return response.status_code, await response.get_json()

    def backups(self) -> list[bytes]:
        return [path.read_bytes() for path in sorted(self.folder.glob("*.backup-*"))]


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path, config())


async def test_a_document_in_the_body_becomes_instances(site: Site) -> None:
    status, answer = await site.post({**OLD, "bad": 7, "east": {}})

    assert status == 200
    backup = answer.pop("backup")
    assert backup.startswith(f"{site.data}.backup-")
    assert answer == {
        "status": "success",
        "message": "migrated: 1; skipped: 2; unchanged: 0",
        "dry_run": False,
        "migrated": ["west"],
        "skipped": {
            "bad": "must be an object, not 7",
            "east": "api_key: is missing, and it has no default; "
            "api_base: is missing, and it has no default",
        },
        "unchanged": [],
        "unknown": {"west": ["tags"]},
        "warnings": [
            "west: priority was taken as the number 7",
            "west: status was taken as 'healthy'",
        ],
    }
    west = site.administration.instances["west"]
    assert (west.config.priority, west.state.total_requests) == (7, 12)
    assert [json.loads(each) for each in site.backups()] == [{**OLD, "bad": 7, "east": {}}]
    assert not site.data.exists()


async def test_without_a_body_the_file_is_read_and_left_as_it_is(site: Site) -> None:
    site.data.write_text(json.dumps(OLD))
    status, answer = await site.post()
    assert (status, answer["migrated"]) == (200, ["west"])
    assert site.data.read_text() == json.dumps(OLD)
    assert site.backups() == [json.dumps(OLD).encode()]


async def test_a_body_may_be_yaml_and_is_kept_byte_for_byte(site: Site) -> None:
    body = b"""
# our instances
instances:
  - name: west
    api_key: k-0123456789abcdef-west
    api_base: https://west.example
    api_version: 2024-05-15
"""
    _, answer = await site.post(body)
    assert answer["migrated"] == ["west"]
    assert site.administration.instances["west"].config.api_version == "2024-05-15"
    assert site.backups() == [body]


async def test_a_dry_run_says_the_same_and_does_nothing(site: Site) -> None:
    _, rehearsed = await site.post(OLD, dry_run="true")
    assert list(site.administration.instances) == ["east"]
    assert site.backups() == []
    _, done = await site.post(OLD)
    assert rehearsed.pop("message").startswith("would be migrated: 1")
    assert rehearsed.pop("dry_run")
    for each in ("message", "dry_run", "backup"):
        done.pop(each)
    assert rehearsed.pop("backup") is None
    assert rehearsed == done


async def test_the_second_time_changes_and_writes_nothing(site: Site) -> None:
    await site.post(OLD)
    before = dict(site.administration.instances)
    for query in ({}, {"overwrite": "true"}):
        status, answer = await site.post(OLD, **query)
        assert (status, answer["unchanged"], answer["migrated"]) == (200, ["west"], [])
        assert answer["backup"] is None
    assert site.administration.instances == before
    assert len(site.backups()) == 1


async def test_an_existing_instance_is_replaced_only_on_demand(site: Site) -> None:
    document = {"east": {**OLD["west"], "priority": 3}}
    _, answer = await site.post(document)
    assert "overwrite" in answer["skipped"]["east"]
    assert site.administration.instances["east"].config.priority == 100
    _, answer = await site.post(document, overwrite="1")
    assert answer["migrated"] == ["east"]
    assert site.administration.instances["east"].config.priority == 3


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"dryrun": "true"}, "dryrun"),
        ({"dry_run": "yes please"}, "dry_run"),
        ({"overwrite": ""}, "overwrite"),
        ({"file": "/etc/passwd"}, "file"),
    ],
)
async def test_an_option_that_is_not_understood_stops_everything(
    site: Site, query: dict[str, str], field: str
) -> None:
    status, answer = await site.post(OLD, **query)
    assert status == 422
    assert [problem["field"] for problem in answer["errors"]] == [field]
    assert list(site.administration.instances) == ["east"]


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b"{", 400, "line 1, column 2"),
        (b"\xff", 400, "UTF-8"),
        (b'{"a": {}, "a": {}}', 400, "more than once"),
        (b"a: &x {}\nb: *x", 400, "aliases"),
        (b"7", 422, "keyed by instance name"),
        (b'{"instances": 7}', 422, "keyed by instance name"),
        (b" " * (MAX_BODY_BYTES + 1), 413, "larger"),
    ],
)
async def test_a_body_that_can_not_be_used_is_refused(
    site: Site, body: bytes, status: int, words: str
) -> None:
    given, answer = await site.post(body)
    assert given == status
    assert words in answer["message"] or status == 413
    assert site.backups() == []


@pytest.mark.parametrize(
    ("content", "words"),
    [(None, "there is no"), ("{", "line 1, column 2"), ("7", "keyed by instance name")],
)
async def test_a_file_that_can_not_be_used_is_refused(
    site: Site, content: str | None, words: str
) -> None:
    if content is not None:
        site.data.write_text(content)
    status, answer = await site.post()
    assert status == 422
    assert words in answer["message"]
    assert list(site.administration.instances) == ["east"]


async def test_a_file_that_can_not_be_read_is_refused(site: Site) -> None:
    site.data.mkdir()
    status, answer = await site.post()
    assert status == 422
    assert "Is a directory" in answer["message"]


async def test_without_a_backup_there_is_no_migration(tmp_path: Path) -> None:
    site = Site(tmp_path / "gone")
    status, answer = await site.post(OLD)
    assert status == 503
    assert "could not be backed up" in answer["message"]
    assert not site.administration.instances


@pytest.mark.parametrize(
    ("refusal", "status"),
    [
        (StoreFailed("no space"), 503),
        (InvalidEdit("configs.json", [("a.priority", "must be less")]), 409),
    ],
)
async def test_a_refusal_of_the_supervisor_is_passed_on(
    site: Site, refusal: Exception, status: int
) -> None:
    site.administration.refusal = refusal
    given, answer = await site.post(OLD)
    assert given == status
    assert str(refusal) in answer["message"]


async def test_it_takes_the_key_before_anything_else(site: Site) -> None:
    site.data.write_text(json.dumps(OLD))
    status, _ = await site.post(OLD, headers={})
    assert status == 401
    assert site.administration.asked == 0


async def test_no_answer_shows_a_key_or_the_value_of_an_unknown_field(site: Site) -> None:
    key = OLD["west"]["api_key"]
    document = {
        **OLD,
        "a": {**OLD["west"], "priority": key},
        "b": {**OLD["west"], "status": key, "last_error": key},
    }
    _, answer = await site.post(document)
    assert key not in json.dumps(answer)
    assert "s3cret" not in json.dumps(answer)
    _, shown = await get(site, "/admin/instances")
    assert key not in json.dumps(shown)


async def get(site: Site, path: str) -> tuple[int, Any]:
    response = await site.app.test_client().get(path, headers=KEY)
    return response.status_code, await response.get_json()


# --- names and old addresses


@pytest.mark.parametrize("name", ["new", "migrate"])
async def test_a_name_that_is_an_address_is_refused(site: Site, name: str) -> None:
    given = {"name": name, "api_key": "k" * 20, "api_base": "https://x.example"}
    response = await site.app.test_client().post("/admin/instances", headers=KEY, json=given)
    assert response.status_code == 422
    assert (await response.get_json())["errors"][0]["field"] == "name"


@pytest.mark.parametrize(
    ("method", "path", "successor"),
    [
        ("GET", "/admin/instances/new", "/admin/instances"),
        ("POST", "/admin/instances/new", "/admin/instances"),
        ("GET", "/admin/instances/new/east/config", "/admin/instances/east/config"),
        ("PUT", "/admin/instances/new/east/config", "/admin/instances/east/config"),
        ("GET", "/admin/instances/new/east/state", "/admin/instances/east/state"),
        ("PUT", "/admin/instances/new/east/state", "/admin/instances/east/state"),
        ("GET", "/admin/instances/new/new/config", "/admin/instances/new/config"),
    ],
)
async def test_an_old_address_leads_to_its_successor(
    site: Site, method: str, path: str, successor: str
) -> None:
    response = await open_(site, method, path, KEY)
    assert response.status_code == 308
    assert response.headers["Location"] == successor
    assert response.headers["Link"] == f'<{successor}>; rel="successor-version"'
    assert response.headers["Deprecation"] == "@1795305600"
    assert successor in (await response.get_json())["message"]
    assert (await open_(site, method, path, {})).status_code == 401


async def test_following_an_old_address_keeps_method_and_body(site: Site) -> None:
    client = site.app.test_client()
    response = await client.put(
        "/admin/instances/new/east/config",
        headers=KEY,
        json={"priority": 5},
        follow_redirects=True,
    )
    assert response.status_code == 200
    assert site.administration.instances["east"].config.priority == 5


@pytest.mark.parametrize(
    ("path", "location"),
    [
        ("/admin/instances/new?a=1&b=%20", "/admin/instances?a=1&b=%20"),
        ("/admin/instances/new/a%20b/config", "/admin/instances/a%20b/config"),
        ("/admin/instances/new/%C3%A4%0D%0AX/state", "/admin/instances/%C3%A4%0D%0AX/state"),
        ("/admin/instances/new/%3Fx%23/state", "/admin/instances/%3Fx%23/state"),
    ],
)
async def test_whatever_the_name_the_location_stays_an_address(
    site: Site, path: str, location: str
) -> None:
    response = await open_(site, "GET", path, KEY)
    assert response.headers["Location"] == location
    assert "\n" not in response.headers["Link"]


async def test_an_instance_called_new_can_still_be_deleted(tmp_path: Path) -> None:
    site = Site(tmp_path, config("new"))
    assert (await open_(site, "DELETE", "/admin/instances/new", KEY)).status_code == 200
    assert not site.administration.instances


async def open_(site: Site, method: str, path: str, headers: dict[str, str]) -> Response:
    return await site.app.test_client().open(path, method=method, headers=headers)
