"""A clean-up with something in its way: the rest is done, and nothing is lost."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import earlier_deployment as earlier
import pytest
from cleaned_deployment import BACKUP, EXPECTED_SCRIPTS, SCRIPT, run, text, without_backup
from cleanup.change import Plan
from cleanup.safekeeping import Safekeeping

from actors.store import ConfigStore, open_stores


def test_a_write_protected_file_is_reported_and_the_rest_is_done(
    keyed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = earlier.snapshot(keyed)
    (keyed / "clients/client.py").chmod(0o444)
    assert run(keyed) == 1
    assert "FAILED    clients/client.py: is write-protected" in capsys.readouterr().out
    assert text(keyed / "clients/client.py") == earlier.SCRIPTS["clients/client.py"]
    assert text(keyed / "clients/app.js") == EXPECTED_SCRIPTS["clients/app.js"]
    assert (keyed / "instance_configs.json").exists()
    once = earlier.snapshot(keyed)
    assert run(keyed) == 1
    assert earlier.snapshot(keyed) == once

    (keyed / "clients/client.py").chmod(0o644)
    assert run(keyed) == 0
    assert text(keyed / "clients/client.py") == EXPECTED_SCRIPTS["clients/client.py"]
    assert run(keyed, "--restore") == 0
    assert earlier.snapshot(keyed) == before


def drop_power_over_permissions() -> None:
    """Root without the capabilities to read and write what permissions forbid, from exec on."""
    cap_dac_override, cap_dac_read_search, pr_capbset_drop = 1, 2, 24
    libc = ctypes.CDLL(None)
    for capability in (cap_dac_override, cap_dac_read_search):
        if libc.prctl(pr_capbset_drop, capability, 0, 0, 0):
            os._exit(77)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="capabilities are Linux's")
def test_files_that_permissions_forbid_are_reported_and_the_rest_is_done(keyed: Path) -> None:
    before = earlier.snapshot(keyed)
    (keyed / "clients/client.py").chmod(0o000)
    (keyed / "docs").chmod(0o555)
    ended = subprocess.run(
        [sys.executable, SCRIPT],
        cwd=keyed,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=drop_power_over_permissions if os.geteuid() == 0 else None,
    )
    if ended.returncode == 77:
        pytest.skip("capabilities can't be dropped here")
    (keyed / "clients/client.py").chmod(0o644)
    (keyed / "docs").chmod(0o755)
    assert ended.returncode == 1
    assert "FAILED    clients/client.py: Permission denied" in ended.stdout
    assert "FAILED    docs/runbook.md: Permission denied" in ended.stdout
    assert text(keyed / "docs/runbook.md") == earlier.SCRIPTS["docs/runbook.md"]
    assert text(keyed / ".env") == EXPECTED_SCRIPTS[".env"]
    assert run(keyed, "--restore") == 0
    assert earlier.snapshot(keyed) == before


def test_data_that_can_not_be_read_is_reported_and_the_rest_is_done(
    keyed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (keyed / "broken.json").write_text('{"east": ')
    (keyed / "text.json").write_text('"east"')
    (keyed / "folder.json").mkdir()
    named = ["broken.json", "text.json", "folder.json", "missing.json", "instance_data.json"]
    assert run(keyed, *(f"--data-file={name}" for name in named)) == 1
    said = capsys.readouterr().out
    for name, reason in [
        ("broken.json", "line 1"),
        ("text.json", "must be an object"),
        ("folder.json", "Is a directory"),
        ("missing.json", "does not exist"),
    ]:
        assert any(
            line.startswith(f"FAILED    {name}: ") and reason in line for line in said.splitlines()
        )
    assert list(ConfigStore(keyed / "instance_configs.json").load()) == ["east", "west"]
    assert text(keyed / ".env") == EXPECTED_SCRIPTS[".env"]


@pytest.mark.parametrize("name", ["instance_configs.json", "instance_states.json"])
def test_a_broken_file_of_instances_is_not_written_over(
    keyed: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (keyed / name).write_text('{\n"east": ')
    assert run(keyed) == 1
    assert text(keyed / name) == '{\n"east": '
    assert f"FAILED    {name}: line 2" in capsys.readouterr().out
    assert text(keyed / ".env") == EXPECTED_SCRIPTS[".env"]


def test_the_files_of_a_running_service_are_left_to_it(
    keyed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = earlier.snapshot(keyed)
    files = keyed / "instance_configs.json", keyed / "instance_states.json"
    with open_stores(*files):
        assert run(keyed) == 1
    assert "FAILED    instance_configs.json: a service runs on it" in capsys.readouterr().out
    assert not files[0].exists()
    assert text(keyed / ".env") == EXPECTED_SCRIPTS[".env"]
    assert run(keyed) == 0
    with open_stores(*files):
        assert run(keyed, "--restore") == 1
    assert run(keyed, "--restore") == 0
    for file in files:
        Path(f"{file}.lock").unlink()
    assert earlier.snapshot(keyed) == before


def test_what_was_changed_while_it_ran_is_left_alone(
    keyed: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = earlier.snapshot(keyed)
    edited = ["clients/client.py", "app/instance/factory.py", "instance_configs.json"]
    keep = Safekeeping.keep

    def interrupted(keeping: Safekeeping, plan: Plan) -> Path:
        for path in edited:
            (keyed / path).write_text("{}")
        return keep(keeping, plan)

    with monkeypatch.context() as patch:
        patch.setattr(Safekeeping, "keep", interrupted)
        assert run(keyed) == 1
    said = capsys.readouterr().out
    for path in edited:
        assert text(keyed / path) == "{}"
        assert f"FAILED    {path}: was changed meanwhile; run this again\n" in said
    assert text(keyed / ".env") == EXPECTED_SCRIPTS[".env"]
    assert run(keyed, "--restore") == 0
    after = without_backup(keyed)
    assert {path for path in after if after[path] != before.get(path)} == set(edited)


def test_what_was_changed_since_is_kept_when_it_is_undone(
    keyed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = earlier.snapshot(keyed)
    assert run(keyed) == 0
    (keyed / "clients/client.py").write_text("edited\n")
    (keyed / "instance_configs.json").write_text("{}")
    assert run(keyed, "--restore") == 0
    assert without_backup(keyed) == before
    kept = [path for path in (keyed / BACKUP).rglob("*") if path.is_file()]
    assert {path.name: text(path) for path in kept} == {
        ".gitignore": "*\n",
        "client.py": "edited\n",
        "instance_configs.json": "{}",
    }
    assert "what it said is kept as " in capsys.readouterr().out


def test_a_file_edited_between_two_runs_goes_back_to_where_it_was(keyed: Path) -> None:
    before = earlier.snapshot(keyed)
    assert run(keyed) == 0
    (keyed / "clients/client.py").write_text("edited: /admin/instances/new\n")
    assert run(keyed) == 0
    assert text(keyed / "clients/client.py") == "edited: /admin/instances\n"
    assert run(keyed, "--restore") == 0
    assert without_backup(keyed) == before
    (kept,) = (keyed / BACKUP).rglob("client.py")
    assert text(kept) == "edited: /admin/instances/new\n"


def test_a_damaged_backup_is_not_restored(keyed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(keyed) == 0
    after = without_backup(keyed)
    copy = keyed / BACKUP / "1" / "files" / "app" / "main.py"
    copy.write_text("something else\n")
    assert run(keyed, "--restore") == 1
    assert "is not what was backed up" in capsys.readouterr().err
    assert without_backup(keyed) == after


def test_a_link_is_not_followed_and_said(keyed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outside = keyed.parent / "outside.env"
    (keyed / ".env").rename(outside)
    (keyed / ".env").symlink_to(outside)
    assert run(keyed) == 1
    assert text(outside) == earlier.SCRIPTS[".env"]
    assert "FAILED    .env: is a symbolic link" in capsys.readouterr().out
