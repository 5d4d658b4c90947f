"""`backup_monitor.py restore`, with and without a running service."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from backup_site import (
    CONFIGS,
    KEY,
    NOW,
    STATES,
    backup,
    config,
    file_of,
    names,
    next_event,
    process,
    put,
    run,
)
from backups import online
from backups.service import Service, ServiceFailed, instance_path
from service_process import ADMIN_KEY, running_service

from actors.store import ConfigStore, open_stores
from proxy.bound.journal import journal_path

# -- restore, while no service runs ------------------------------------------------------------


def test_files_are_restored_and_what_they_said_is_kept(site: Path) -> None:
    before = {kind: file_of(site, kind).read_bytes() for kind in ("config", "state")}
    first = backup(site)
    put(site, "config", "{broken")
    put(site, "state", {})
    status, output, _ = run(site, "restore", first, "--json")
    said = json.loads(output)
    assert status == 0
    assert said["backup"] == first
    for kind, content in before.items():
        assert file_of(site, kind).read_bytes() == content
        assert file_of(site, kind).stat().st_mode & 0o777 == 0o600
    kept = site / "backups" / said["kept"]
    assert (kept / "instance_configs.json").read_text() == "{broken"
    assert f"before {first} was restored" in run(site, "list")[1]
    status, _, messages = run(site, "restore")  # the latest is the broken one
    assert status == 1
    assert f"{said['kept']}: config: line 1" in messages


def test_the_memory_of_owners_is_backed_up_and_put_back_where_it_is_gone(site: Path) -> None:
    without = backup(site)
    owners = journal_path(file_of(site, "state"))
    entry = b'{"id": "files/file-1", "instance": "east"}\n'
    owners.write_bytes(entry)
    owners.chmod(0o600)
    status, output, _ = run(site, "backup")
    assert (status, f"owners {len(entry)} bytes" in output) == (0, True)

    owners.write_bytes(2 * entry)
    assert run(site, "restore")[0] == 0
    assert owners.read_bytes() == 2 * entry, "what is there is the later one"
    owners.unlink()
    assert run(site, "restore")[0] == 0
    assert owners.read_bytes() == entry
    assert owners.stat().st_mode & 0o777 == 0o600
    assert run(site, "restore", without)[0] == 0
    assert owners.read_bytes() == entry


def test_a_backup_from_before_owners_were_part_of_one_is_whole(site: Path) -> None:
    manifest = site / "backups" / backup(site) / "manifest.json"
    earlier = json.loads(manifest.read_bytes())
    del earlier["files"]["owners"]
    manifest.write_text(json.dumps(earlier))
    put(site, "state", {})
    assert run(site, "restore")[0] == 0
    assert json.loads(file_of(site, "state").read_bytes()) == STATES


def test_a_state_that_was_not_there_is_not_there_afterwards(site: Path) -> None:
    file_of(site, "state").unlink()
    backup(site)
    put(site, "state", STATES)
    assert run(site, "restore")[0] == 0
    assert not file_of(site, "state").exists()


def test_files_in_use_are_not_touched(site: Path) -> None:
    backup(site)
    put(site, "config", {})
    with open_stores(file_of(site, "config"), file_of(site, "state")):
        status, output, messages = run(site, "restore")
    assert (status, output) == (1, "")
    assert "--url restores into the running service" in messages
    assert file_of(site, "config").read_text() == "{}"
    assert len(names(site)) == 1


def test_an_unknown_backup_is_said(site: Path) -> None:
    assert run(site, "restore")[2] == "backups has no backup latest: there are none\n"
    backup(site)
    assert "has no backup x: there are 1" in run(site, "restore", "x")[2]


# -- restore, while the service runs -----------------------------------------------------------


def test_a_running_service_gets_what_was_backed_up(site: Path) -> None:
    put(site, "config", {**CONFIGS, "north": config("north", enabled=False)})
    with running_service(site) as url:
        service = Service(url, ADMIN_KEY)
        history = {"total_requests": 50, "successful_requests": 40, "last_error": "x"}
        for name in ("east", "west"):
            ask(service, "PUT", instance_path(name, "state"), history)
        ask(service, "PUT", instance_path("north", "state"), {"status": "error"})
        before = service.get("/admin/instances")["instances"]
        wait_for_state(site, "north", "status", "error")
        name = backup(site)

        changes = {"priority": 7, "api_key": "another-key-0123456789abcdef", "timeout_seconds": 1}
        ask(service, "PUT", instance_path("east", "config"), changes)
        broken = {"total_requests": 999, "status": "error"}
        ask(service, "PUT", instance_path("east", "state"), broken)
        ask(service, "PUT", instance_path("north", "state"), {"status": "healthy"})
        ask(service, "DELETE", instance_path("west"))
        ask(service, "POST", "/admin/instances", config("south"))
        status, output, messages = run(site, "restore", "--url", url)
        assert (status, messages) == (0, "")
        assert f"restored {name} into {url} completely" in output

        after = service.get("/admin/instances")["instances"]
        assert after.keys() == before.keys()
        for each in before:
            assert after[each]["config"] == before[each]["config"]
            for field in (*online.HISTORY, "status"):
                assert after[each]["state"][field] == before[each]["state"][field], (each, field)
        configs = ConfigStore(file_of(site, "config")).load()
        assert configs["east"].api_key == KEY

        stale = ("monitor", "--once", "--file", "instance_configs.json", "--alert-after", "0.001")
        status, output, _ = run(site, *stale, "--url", url)
        assert status == 1
        assert "although the service is up" in output
    status, output, _ = run(site, *stale, "--url", url)
    assert (status, output.count("ALERT")) == (0, 0)


def test_what_can_not_be_restored_is_said_and_the_rest_is_done(site: Path) -> None:
    put(site, "config", {"east": config("east", odd=1), "west": config("west", priority=3)})
    put(site, "state", {})
    backup(site)
    put(site, "config", {"east": config("east", priority=9)})
    with running_service(site) as url:
        status, output, messages = run(site, "restore", "--url", url, "--json")
        said = [json.loads(line) for line in output.splitlines()]
        assert (status, messages) == (1, "")
        (failure,) = [line["message"] for line in said if line["event"] == "failed"]
        assert failure.startswith("east: odd is no field of the admin API")
        assert (said[-1]["event"], said[-1]["failures"]) == ("restored", 1)
        assert Service(url, ADMIN_KEY).get("/admin/instances/west/config")["priority"] == 3

        status, _, messages = run(site, "restore", "--url", url, "--admin-key", "wrong")
        assert (status, messages) == (1, f"{url} refuses the admin key: see ADMIN_API_KEY\n")
    status, _, messages = run(site, "restore", "--url", url)
    assert status == 1
    assert messages.startswith(f"no answer from {url}: ")
    assert run(site, "restore", "--url", url, "--admin-key", "")[2].startswith("the admin key is")
    assert run(site, "restore", "--url", "localhost:3010")[0] == 1


def ask(service: Service, method: str, path: str, document: object = None) -> None:
    answer = service.ask(method, path, document)
    assert answer.status < 300, answer


def wait_for_state(site: Path, name: str, field: str, value: object) -> None:
    """Until the service has written it, a second at most."""
    words = ("monitor", "--file", "instance_states.json", "--interval", "0.05", "--json")
    with process(site, *words) as watching:
        while True:
            next_event(watching)
            with suppress(FileNotFoundError, KeyError):
                if json.loads(file_of(site, "state").read_bytes())[name][field] == value:
                    return


QUARANTINED = {"status": "error", "last_error": "x", "capacity": {"quarantine": "crashed"}}


@pytest.mark.parametrize(
    ("record", "live", "changes"),
    [
        ({}, {}, {}),
        ({"error_count": 1}, {"error_count": 1, "total_requests": 3}, {}),
        ({"error_count": 1, "current_tpm": 9}, {"error_count": 0}, {"error_count": 1}),
        ({"last_error": None}, {"last_error": "x"}, {"last_error": None}),
        ({"rate_limited_until": NOW - 1}, {}, {}),
        ({"rate_limited_until": NOW + 9}, {}, {"rate_limited_until": NOW + 9}),
        ({"rate_limited_until": NOW + 9}, {"rate_limited_until": NOW + 99}, {}),
        # an operator's decision comes back, a breaker that happened to be open does not
        (QUARANTINED, {"status": "healthy"}, {"status": "error", "last_error": "x"}),
        (QUARANTINED, {"status": "error", "last_error": "x"}, {}),
        ({"status": "error"}, {"status": "healthy"}, {}),
        ({"status": "healthy"}, {"status": "error"}, {"status": "healthy"}),
        ({"status": "rate_limited"}, {"status": "error"}, {}),
    ],
)
def test_what_of_a_state_is_restored(
    record: dict[str, Any], live: dict[str, Any], changes: dict[str, Any]
) -> None:
    assert online.state_changes(record, live, NOW) == changes


@pytest.mark.parametrize("url", ["", "localhost", "ftp://h", "http://", "http://h:x", "http://h:0"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ServiceFailed, match="is no address such as"):
        Service(url)
