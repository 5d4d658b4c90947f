"""`backup_monitor.py backup` and `list`: what is in a backup, and how many are kept."""

from __future__ import annotations

import json
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from backup_site import CONFIGS, SEED, STATES, backup, file_of, names, put, run, run_as_written
from backups import pair

from actors.clock import wall_now


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
