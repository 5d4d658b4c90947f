"""`backup_monitor.py monitor`: changes and trouble of files and service, each told once."""

from __future__ import annotations

import json
import os
import shlex
import signal
import ssl
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import trustme
from backup_site import (
    CONFIGS,
    KEY,
    NOW,
    OTHER_KEY,
    SEED,
    config,
    end,
    file_of,
    next_event,
    process,
    put,
    run,
)
from backups import arguments, records, watch
from backups.difference import difference
from backups.service import Service

from actors.models import InstanceConfig


def test_monitor_reports_changes_and_trouble_until_it_is_stopped(site: Path) -> None:
    words = ("monitor", "--file", "instance_configs.json", "--interval", "0.02", "--json")
    file = file_of(site, "config")
    with process(site, *words) as running:
        assert next_event(running)["event"] == "watching"
        put(
            site,
            "config",
            {"east": config("east", priority=1, api_key=OTHER_KEY), "n": config("n")},
        )
        changed = next_event(running)
        assert (changed["event"], changed["alert"]) == ("changed", False)
        assert (changed["added"], changed["removed"]) == (["n"], ["west"])
        assert changed["changed"] == {"east": ["api_key", "priority"]}
        assert KEY not in str(changed)
        assert OTHER_KEY not in str(changed)
        file.unlink()
        missing = next_event(running)
        assert (missing["event"], missing["alert"]) == ("missing", True)
        put(site, "config", '{"east": {"api_key": "' + KEY)
        invalid = next_event(running)
        assert (invalid["event"], invalid["alert"]) == ("invalid", True)
        assert "line 1, column" in invalid["reason"]
        assert KEY not in str(invalid)
        file.unlink()
        file.mkdir()
        while (unreadable := next_event(running))["event"] == "missing":
            pass
        assert (unreadable["event"], unreadable["alert"]) == ("unreadable", True)
        file.rmdir()
        put(site, "config", CONFIGS)
        while (recovered := next_event(running))["event"] == "missing":
            pass
        assert (recovered["event"], recovered["added"]) == ("recovered", ["west"])
        assert end(running, signal.SIGINT) == (0, "", "")


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_monitor_as_written_ends_with_the_status_of_the_last_look(
    site: Path, how: signal.Signals
) -> None:
    put(site, "config", "{")
    with process(site, *shlex.split(SEED["monitor"])[2:]) as running:
        assert running.stdout is not None
        assert "ALERT instance_configs.json: line 1" in running.stdout.readline()
        assert end(running, how) == (1, "", "")


def test_monitor_once_for_scripts(site: Path) -> None:
    both = ("--file", "instance_configs.json", "--file", "instance_states.json")
    assert run(site, "monitor", *both, "--once")[0] == 0
    put(site, "state", '{"east": {"status": "fine"}}')
    status, output, _ = run(site, "monitor", *both, "--once", "--json")
    first, second = map(json.loads, output.splitlines())
    assert status == 1
    assert (first["event"], second["event"]) == ("watching", "invalid")
    assert second["reason"].startswith("east.status: ")


@pytest.fixture
def quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "_SECOND_LOOK_S", 0.0)


def kinds(events: list[watch.Event]) -> list[str]:
    return [event.kind for event in events]


@pytest.mark.usefixtures("quick_looks")
def test_trouble_is_reported_once_and_what_changed_meanwhile_when_it_is_over(site: Path) -> None:
    watcher = watch.Watcher(str(file_of(site, "config")), "config", 0, lambda: False)
    assert kinds(watcher.look(NOW)) == ["watching"]
    assert watcher.look(NOW) == []
    file_of(site, "config").unlink()
    assert kinds(watcher.look(NOW)) == ["missing"]
    assert watcher.look(NOW) == []
    assert watcher.in_trouble
    put(site, "config", {"east": CONFIGS["east"]})
    (recovered,) = watcher.look(NOW)
    assert (recovered.kind, recovered.facts["removed"]) == ("recovered", ["west"])
    assert not watcher.in_trouble
    put(site, "config", json.dumps({"east": CONFIGS["east"]}, indent=1))
    assert kinds(watcher.look(NOW)) == ["rewritten"]


def test_a_default_that_the_service_writes_out_is_no_change(site: Path) -> None:
    east = {"api_key": KEY, "api_base": "https://east.openai.azure.com/"}
    put(site, "config", {"east": east})
    watcher = watch.Watcher(str(file_of(site, "config")), "config", 0, lambda: False)
    watcher.look(NOW)
    put(site, "config", {"east": InstanceConfig(name="east", **east).model_dump(mode="json")})
    assert kinds(watcher.look(NOW)) == ["rewritten"]
    put(site, "config", {"east": {**east, "weight": 50}})
    (changed,) = watcher.look(NOW)
    assert changed.facts["changed"] == {"east": ["weight"]}


def test_an_editor_that_replaces_the_file_causes_no_alarm(
    site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watcher = watch.Watcher(str(file_of(site, "config")), "config", 0, lambda: False)
    watcher.look(NOW)
    file_of(site, "config").unlink()
    monkeypatch.setattr(watch.time, "sleep", lambda _: put(site, "config", {}))
    assert kinds(watcher.look(NOW)) == ["changed"]


@pytest.mark.usefixtures("quick_looks")
def test_a_file_is_stale_only_while_the_service_is_up(site: Path) -> None:
    up = False
    watcher = watch.Watcher(str(file_of(site, "state")), "state", 60, lambda: up)

    def written_at(now: float) -> None:
        os.utime(file_of(site, "state"), (now, now))

    written_at(NOW)
    assert kinds(watcher.look(NOW + 100)) == ["watching"]
    up = True
    (stale,) = watcher.look(NOW + 100)
    assert (stale.kind, stale.alert, stale.facts) == ("stale", True, {"unchanged_s": 100})
    assert watcher.look(NOW + 200) == []
    assert watcher.in_trouble
    written_at(NOW + 250)
    assert kinds(watcher.look(NOW + 260)) == ["rewritten"]
    assert not watcher.in_trouble
    assert watcher.look(NOW + 309) == []
    assert kinds(watcher.look(NOW + 310)) == ["stale"]
    file_of(site, "state").unlink()
    assert kinds(watcher.look(NOW + 400)) == ["missing"]


@pytest.mark.parametrize(
    ("variables", "url"),
    [
        ({}, "http://127.0.0.1:3010"),
        ({"HOST": "0.0.0.0", "PORT": "8000"}, "http://127.0.0.1:8000"),
        ({"HOST": "::", "TLS_CERT_FILE": "a.pem"}, "https://[::1]:3010"),
    ],
)
def test_where_the_service_is_follows_from_its_settings(
    variables: dict[str, str], url: str
) -> None:
    assert arguments.parse(["monitor", "--file", "a"], variables).url == url


def test_a_service_whose_certificate_is_for_another_name_is_up() -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("proxy.example").configure_cert(context)
    server = HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    server.socket = context.wrap_socket(
        server.socket, server_side=True, do_handshake_on_connect=True
    )
    serving = threading.Thread(target=server.handle_request, daemon=True)
    serving.start()
    service = Service(f"https://127.0.0.1:{server.server_port}")
    assert service.is_up()
    serving.join()
    server.server_close()
    assert not service.is_up()


def test_keys_that_refer_to_the_services_environment_are_no_problem() -> None:
    content = json.dumps({"east": config("east", api_key="${NOT_SET_ANYWHERE}")}).encode()
    assert records.read(content, "config").problems == ()


def test_differences_name_instances_and_fields_and_nothing_more() -> None:
    found = difference({"a": {"x": 1}, "b": {}}, {"a": {"x": 2, "\x1b[2J": 0}, "c\n": {}})
    assert str(found) == "'c\\n' was added; b was removed; a changed (x, '\\x1b[2J')"
    assert not difference({"a": {"x": 1}}, {"a": {"x": 1.0}})
