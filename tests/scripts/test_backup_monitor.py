"""`scripts/backup_monitor.py`: on real files, processes and a running service."""

from __future__ import annotations

import io
import json
import os
import shlex
import shutil
import signal
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from datetime import datetime
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import trustme
from backups import arguments, cli, online, pair, records, watch
from backups.difference import difference
from backups.service import Service, ServiceFailed, instance_path
from service_process import ADMIN_KEY, ROOT, clean_environment, running_service

from actors.clock import wall_now
from actors.models import InstanceConfig
from actors.store import ConfigStore, open_stores
from proxy.bound.journal import journal_path

KEY, OTHER_KEY = "a-key-of-east-0123456789abcdef", "a-key-of-west-0123456789abcdef"
LIMIT_S = 30.0

SEED = {
    "backup": "python scripts/backup_monitor.py backup --config-file instance_configs.json "
    "--state-file instance_states.json",
    "monitor": "python scripts/backup_monitor.py monitor --file instance_configs.json "
    "--interval 300",
    "job": "python scripts/backup_monitor.py job --config-file instance_configs.json "
    "--state-file instance_states.json --interval 3600",
}


def config(name: str, **fields: Any) -> dict[str, Any]:
    base = f"https://{name}.openai.azure.com"
    return {"name": name, "api_key": KEY, "api_base": base, "supported_models": ["m"], **fields}


CONFIGS = {"east": config("east"), "west": config("west", api_key=OTHER_KEY, priority=5)}
STATES = {"east": {"name": "east", "total_requests": 5}}


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder with both files and the scripts, as in a deployment."""
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "scripts").symlink_to(ROOT / "scripts")
    put(folder, "config", CONFIGS)
    put(folder, "state", STATES)
    return folder


def file_of(site: Path, kind: str) -> Path:
    return site / f"instance_{kind}s.json"


def put(site: Path, kind: str, document: object) -> None:
    """As the service does it: another file in the place of the old one."""
    text = document if isinstance(document, str) else json.dumps(document)
    temporary = site / "temporary"
    temporary.write_text(text)
    temporary.rename(file_of(site, kind))


def start(site: Path, *words: str, python: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *python, "scripts/backup_monitor.py", *words],
        cwd=site,
        env=clean_environment(ADMIN_API_KEY=ADMIN_KEY),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture(autouse=True)
def signals() -> Iterator[None]:
    """The command sets handlers; in this process they must not stay."""
    before = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)}
    yield
    for each, handler in before.items():
        signal.signal(each, handler)


def run(site: Path, *words: str) -> tuple[int, str, str]:
    """Exit status, output, messages; no key is in them. In this process, which takes less time."""
    output, messages = io.StringIO(), io.StringIO()
    environment, folder = dict(os.environ), Path.cwd()
    os.environ.clear()
    os.environ.update(clean_environment(ADMIN_API_KEY=ADMIN_KEY))
    os.chdir(site)
    try:
        with redirect_stdout(output), redirect_stderr(messages):
            status = cli.main(list(words))
    except SystemExit as ended:
        status = int(ended.code or 0)
    finally:
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(environment)
    return without_keys(status, output.getvalue(), messages.getvalue())


def run_as_written(site: Path, line: str, *python: str) -> tuple[int, str, str]:
    """As `run`, but what the operator would see who types `line`."""
    running = start(site, *shlex.split(line)[2:], python=python)
    output, messages = running.communicate(timeout=LIMIT_S)
    return without_keys(running.returncode, output, messages)


def without_keys(status: int, output: str, messages: str) -> tuple[int, str, str]:
    for key in (KEY, OTHER_KEY, ADMIN_KEY):
        assert key not in output + messages
    return status, output, messages


def backup(site: Path) -> str:
    """Makes a backup; its name."""
    status, output, messages = run(site, "backup", "--json")
    assert (status, messages) == (0, "")
    name: str = json.loads(output)["backup"]
    return name


def names(site: Path) -> list[str]:
    return sorted(name for name in os.listdir(site / "backups") if not name.startswith("."))


# -- backup ------------------------------------------------------------------------------------


def test_a_backup_holds_both_files_and_what_they_should_be(site: Path) -> None:
    status, output, _ = run_as_written(site, SEED["backup"])
    assert status == 0
    (name,) = names(site)
    folder = site / "backups" / name
    assert f"backed up to backups/{name}" in output
    manifest = json.loads((folder / "manifest.json").read_bytes())
    made = datetime.fromisoformat(manifest["created"])
    assert abs(wall_now() - made.timestamp()) < 60
    for kind in ("config", "state"):
        original = file_of(site, kind).read_bytes()
        assert (folder / f"instance_{kind}s.json").read_bytes() == original
        assert manifest["files"][kind] == {
            "source": str(file_of(site, kind)),
            "bytes": len(original),
            "sha256": sha256(original).hexdigest(),
        }
    for path in folder.iterdir():
        assert path.stat().st_mode & 0o777 == 0o600
    assert folder.stat().st_mode & 0o777 == 0o700
    assert (site / "backups" / ".gitignore").read_text() == "*\n"


def test_old_backups_are_rotated_away_and_nothing_else(site: Path) -> None:
    made = [backup(site) for _ in range(3)]
    (site / "backups" / "mine").mkdir()
    (site / "backups" / ".unfinished-20200101T000000.000000Z").mkdir()
    status, output, _ = run(site, "backup", "--max-backups", "2", "--json")
    said = json.loads(output)
    assert status == 0
    assert said["removed"] == made[:2]
    assert names(site) == [made[2], said["backup"], "mine"]
    assert not list((site / "backups").glob(".unfinished*"))
    run(site, "backup", "--max-backups", "0")
    assert len(names(site)) == 4


def test_before_the_first_start_there_is_no_state_to_back_up(site: Path) -> None:
    file_of(site, "state").unlink()
    status, output, _ = run(site, "backup")
    assert status == 0
    assert "instance_states.json is not there yet" in output


@pytest.mark.parametrize(
    ("kind", "text", "reason"),
    [
        ("config", None, "instance_configs.json does not exist: see INSTANCE_CONFIG_FILE"),
        ("config", '{"east":\n', "instance_configs.json: line 2"),
        ("config", '{"east": {"api_key": "k", "api_base": "https://a", "weight": -1}}', "weight"),
        ("state", "[]", "instance_states.json: top level"),
    ],
)
def test_what_the_service_would_refuse_is_no_backup(
    site: Path, kind: str, text: str | None, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if text is None:
        file_of(site, kind).unlink()
    else:
        put(site, kind, text)
    monkeypatch.chdir(site)
    monkeypatch.setattr(pair, "_LIMIT_S", 0.0)
    with pytest.raises(pair.NoPair, match=reason):
        pair.read_pair("instance_configs.json", "instance_states.json")


def test_a_missing_file_is_a_failure_of_the_command(site: Path) -> None:
    status, output, messages = run(site, "backup", "--config-file", "nowhere.json")
    assert (status, output) == (1, "")
    assert messages == "nowhere.json does not exist: see INSTANCE_CONFIG_FILE\n"
    assert not (site / "backups").exists()


@pytest.mark.parametrize("replaced", ["config", "state"])
@pytest.mark.parametrize("in_place", [False, True])
def test_files_that_change_between_the_readings_are_read_again(
    site: Path, replaced: str, in_place: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first file is read, then the service is faster than the second reading."""
    changed = {"east": {**(CONFIGS if replaced == "config" else STATES)["east"], "more": "x"}}
    readings: list[str] = []
    read = pair._read

    def read_and_change(path: str) -> Any:
        found = read(path)
        readings.append(path)
        if len(readings) == 1:
            if in_place:
                file_of(site, replaced).write_text(json.dumps(changed))
            else:
                put(site, replaced, changed)
        return found

    monkeypatch.setattr(pair, "_read", read_and_change)
    found = pair.read_pair(str(file_of(site, "config")), str(file_of(site, "state")))
    assert json.loads(found.of(replaced) or b"") == changed  # type: ignore[arg-type]
    assert len(readings) == 2 * 3


def test_a_file_in_the_middle_of_being_written_is_waited_for(
    site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = file_of(site, "config").read_bytes()
    file_of(site, "config").write_bytes(whole[:20])
    monkeypatch.setattr(pair.time, "sleep", lambda _: file_of(site, "config").write_bytes(whole))
    found = pair.read_pair(str(file_of(site, "config")), str(file_of(site, "state")))
    assert found.config == whole


def test_list_shows_the_backups_and_which_are_damaged(site: Path) -> None:
    assert run(site, "list") == (0, "there are no backups in backups\n", "")
    whole, damaged, empty = backup(site), backup(site), backup(site)
    (site / "backups" / damaged / "instance_configs.json").write_text("{}")
    (site / "backups" / empty / "manifest.json").unlink()
    status, output, _ = run(site, "list", "--json")
    assert status == 1
    said = [json.loads(line) for line in output.splitlines()]
    assert [(line["event"], line["backup"]) for line in said] == [
        ("backup", whole),
        ("damaged", damaged),
        ("damaged", empty),
    ]
    for name in (damaged, empty):
        before = file_of(site, "config").read_bytes()
        status, output, messages = run(site, "restore", name)
        assert (status, output) == (1, "")
        assert name in messages
        assert file_of(site, "config").read_bytes() == before


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


NOW = 1000.0
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


# -- monitor -----------------------------------------------------------------------------------


@contextmanager
def process(site: Path, *words: str) -> Iterator[subprocess.Popen[str]]:
    running = start(site, *words)
    try:
        yield running
    finally:
        running.kill()
        running.communicate()


def next_event(running: subprocess.Popen[str]) -> dict[str, Any]:
    assert running.stdout is not None
    event: dict[str, Any] = json.loads(running.stdout.readline())
    return event


def end(running: subprocess.Popen[str], how: signal.Signals) -> tuple[int, str, str]:
    running.send_signal(how)
    output, messages = running.communicate(timeout=LIMIT_S)
    return running.returncode, output, messages


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


# -- job ---------------------------------------------------------------------------------------


def test_job_goes_on_after_a_failure_and_ends_with_the_last_status(site: Path) -> None:
    with process(site, "job", "--interval", "0.02", "--max-backups", "2", "--json") as running:
        for _ in range(3):
            assert next_event(running)["event"] == "backup"
        file_of(site, "config").unlink()
        while (failed := next_event(running))["event"] == "backup":
            pass
        assert failed["event"] == "failed"
        assert "does not exist" in failed["message"]
        put(site, "config", CONFIGS)
        while next_event(running)["event"] == "failed":
            pass
        assert next_event(running)["event"] == "backup"
        status, _, messages = end(running, signal.SIGTERM)
        assert (status, messages) == (0, "")
    assert len(names(site)) <= 3  # the last one may not have been rotated yet
    assert run(site, "list")[0] == 0


def test_job_as_written_makes_the_first_backup_at_once(site: Path) -> None:
    with process(site, *shlex.split(SEED["job"])[2:]) as running:
        assert running.stdout is not None
        assert "backed up to backups/" in running.stdout.readline()
        assert end(running, signal.SIGINT) == (0, "", "")
    assert len(names(site)) == 1


# -- the command -------------------------------------------------------------------------------


def test_settings_come_from_the_env_file(site: Path) -> None:
    file_of(site, "config").rename(site / "mine.json")
    (site / ".env").write_text("INSTANCE_CONFIG_FILE=mine.json\n")
    assert run(site, "backup")[0] == 0
    (name,) = names(site)
    content = (site / "backups" / name / "instance_configs.json").read_bytes()
    assert content == (site / "mine.json").read_bytes()


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("back",),
        ("monitor",),
        ("monitor", "--file", "x", "--interval", "0"),
        ("monitor", "--file", "x", "--interval", "nan"),
        ("job", "--max-backups", "-1"),
    ],
)
def test_wrong_usage(site: Path, words: tuple[str, ...]) -> None:
    status, _, messages = run(site, *words)
    assert status == 2
    assert messages.startswith("usage: ")


def test_help_tells_the_exit_statuses(site: Path) -> None:
    status, output, _ = run(site, "--help")
    assert status == 0
    assert "exit status:" in output
    for line in SEED.values():
        assert line.split(" --state-file")[0] in output


def test_with_nothing_but_the_standard_library(tmp_path: Path, site: Path) -> None:
    """All but replacing the files, which has to know whether the service runs."""
    (site / "scripts").unlink()
    for folder in ("scripts", "actors", "proxy"):
        shutil.copytree(ROOT / folder, site / folder)
    command, look = (
        "python scripts/backup_monitor.py ",
        "monitor --once --file instance_configs.json",
    )
    bare = ("-S", "-E")
    assert run_as_written(site, f"{command} backup", *bare)[0] == 0
    assert run_as_written(site, f"{command} list", *bare)[0] == 0
    status, output, _ = run_as_written(site, command + look, *bare)
    assert status == 0
    assert "checking no more than the shape" in output
    put(site, "config", "[]")
    assert run_as_written(site, command + look, *bare)[0] == 1
    status, _, messages = run_as_written(site, f"{command} restore", *bare)
    assert status == 1
    assert "scripts/run --version makes it" in messages
