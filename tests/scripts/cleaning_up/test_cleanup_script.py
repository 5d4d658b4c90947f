"""`scripts/cleanup_old_implementation.py` on deployments of the earlier system, real files all."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import earlier_deployment as earlier
import pytest
from cleaned_deployment import (
    BACKUP,
    DATA,
    EXPECTED_SCRIPTS,
    ROOT,
    SCRIPT,
    run,
    text,
    without_backup,
)

from actors.store import ConfigStore, StateStore

REMOVED = (
    "app/instance/factory.py",
    "app/instance/manager.py",
    "migration/initialize_new_implementation.py",
)


# -- the whole of it ---------------------------------------------------------------------------


def test_cleaned_checked_and_restored_byte_for_byte(
    deployment: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = earlier.snapshot(deployment)
    assert run(deployment) == 0
    after = earlier.snapshot(deployment)

    for name, expected in EXPECTED_SCRIPTS.items():
        assert text(deployment / name) == expected
        assert after[name][1] == before[name][1], f"the mode of {name}"
    for name in REMOVED:
        assert not (deployment / name).exists()
    assert (deployment / "clients/latin1.sh").read_bytes() == earlier.LATIN_1.replace(b"/new", b"")
    touched = {*EXPECTED_SCRIPTS, *REMOVED, "clients/latin1.sh"}
    for name in before.keys() - touched:
        assert after[name] == before[name]
    assert {*(name for name in after.keys() - before.keys() if not name.startswith(BACKUP))} == {
        "instance_configs.json",
        "instance_states.json",
    }

    assert run(deployment) == 0
    assert earlier.snapshot(deployment) == after, "twice is the same as once"

    assert run(deployment, "--restore") == 0
    assert earlier.snapshot(deployment) == before
    assert run(deployment, "--restore") == 1
    output = "".join(capsys.readouterr())
    for key in (earlier.KEY_EAST, earlier.KEY_WEST, earlier.ADMIN_KEY, earlier.BAD["api_key"]):
        assert key not in output


@pytest.mark.parametrize("shape", ["keyed", "listed"])
def test_the_data_is_separated_and_what_has_no_place_is_said_and_kept(
    tmp_path: Path, shape: str, capsys: pytest.CaptureFixture[str]
) -> None:
    deployment = earlier.build(tmp_path / "deployment", DATA[shape])
    assert run(deployment) == 0
    configs = ConfigStore(deployment / "instance_configs.json").load()
    states, warning = StateStore(deployment / "instance_states.json").load()
    assert warning is None
    assert list(configs) == list(states) == ["east", "west"]
    for name, value in configs["east"].model_dump(mode="json").items():
        assert value == earlier.EAST[name]
    assert (states["east"].total_requests, states["east"].last_used) == (120, 1716000000.5)
    assert (states["west"].status, states["west"].error_count) == ("rate_limited", 7)
    for path in ("instance_configs.json", "instance_states.json"):
        assert (deployment / path).stat().st_mode & 0o777 == 0o600
    said = capsys.readouterr().out
    assert "bad was skipped: api_base" in said
    assert "east has fields without a meaning here: region" in said
    assert "eastus" in text(deployment / BACKUP / "1" / "unknown_fields.json")


def test_the_backup_comes_first_is_private_and_stays_out_of_version_control(keyed: Path) -> None:
    before = earlier.snapshot(keyed)
    assert run(keyed) == 0
    copies = keyed / BACKUP / "1" / "files"
    for name in (*EXPECTED_SCRIPTS, *REMOVED, "instance_data.json"):
        assert (copies / name).read_bytes() == before[name][0]
    for path in (keyed / BACKUP).rglob("*"):
        assert path.stat().st_mode & 0o077 == 0 or not path.is_file()
    assert (keyed / BACKUP).stat().st_mode & 0o777 == 0o700
    assert text(keyed / BACKUP / ".gitignore") == "*\n"


def test_a_dry_run_shows_a_diff_without_keys_and_changes_nothing(
    deployment: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = earlier.snapshot(deployment)
    assert run(deployment, "--dry-run") == 0
    assert earlier.snapshot(deployment) == before
    said = capsys.readouterr().out.splitlines()
    assert "-USE_NEW_IMPLEMENTATION=true" in said
    assert "+INSTANCE_CONFIG_FILE=instance_configs.json" in said
    assert '+curl "http://localhost:8000/admin/instances/$NAME/state"' in said
    assert '+    "api_key": "****",' in said
    assert any(line.startswith("would remove app/instance/factory.py") for line in said)
    assert not any(key in line for line in said for key in (earlier.KEY_EAST, earlier.ADMIN_KEY))


def test_it_works_in_the_current_folder_as_the_guide_says(tmp_path: Path) -> None:
    deployment = earlier.build(tmp_path / "deployment", DATA["keyed"])
    before = earlier.snapshot(deployment)
    for arguments in ([], ["--restore"]):
        ended = subprocess.run(
            [sys.executable, SCRIPT, *arguments],
            cwd=deployment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (ended.returncode, ended.stderr) == (0, "")
    assert earlier.snapshot(deployment) == before


# -- what was there already --------------------------------------------------------------------


def test_instances_that_exist_are_left_alone(
    keyed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = '{"east": {"api_key": "${NOT_SET_HERE}", "api_base": "https://a.example", "odd": 1}}'
    (keyed / "instance_configs.json").write_text(config)
    before = earlier.snapshot(keyed)
    assert run(keyed) == 0
    os.environ["NOT_SET_HERE"] = "x"
    configs = ConfigStore(keyed / "instance_configs.json").load()
    assert list(configs) == ["east", "west"]
    assert (configs["east"].api_base, configs["east"].priority) == ("https://a.example", 100)
    assert (configs["east"].model_extra or {})["odd"] == 1
    assert "east was skipped: " in capsys.readouterr().out
    assert run(keyed, "--restore") == 0
    assert earlier.snapshot(keyed) == before


def test_the_variables_of_the_deployment_say_where_things_are(tmp_path: Path) -> None:
    deployment = earlier.build(tmp_path / "deployment", {"old/all.json": earlier.KEYED})
    (deployment / "new").mkdir()
    (deployment / ".env").write_text(
        "export INSTANCE_DATA_FILE='old/all.json' # combined\n"
        "INSTANCE_CONFIG_FILE=new/c.json\nINSTANCE_STATE_FILE=new/s.json\nUSE_NEW_IMPLEMENTATION=1"
    )
    before = earlier.snapshot(deployment)
    assert run(deployment) == 0
    assert list(ConfigStore(deployment / "new/c.json").load()) == ["east", "west"]
    assert list(StateStore(deployment / "new/s.json").load()[0]) == ["east", "west"]
    assert not (deployment / "instance_configs.json").exists()
    assert "USE_NEW" not in text(deployment / ".env")
    assert run(deployment, "--restore") == 0
    assert earlier.snapshot(deployment) == before


def test_keys_may_refer_to_the_variables_of_the_deployment(tmp_path: Path) -> None:
    data = earlier.KEYED.replace(earlier.KEY_EAST, "${EAST_KEY}")
    deployment = earlier.build(tmp_path / "deployment", {"instance_data.json": data})
    with (deployment / ".env").open("a") as env:
        env.write("EAST_KEY=from-the-env-file-0123456789\n")
    assert run(deployment) == 0
    configs = ConfigStore(deployment / "instance_configs.json").load()
    assert configs["east"].api_key == "${EAST_KEY}"


def test_a_folder_of_client_scripts_gets_nothing_but_new_addresses(tmp_path: Path) -> None:
    (tmp_path / "ask.sh").write_text("curl http://localhost:8000/admin/instances/new\n")
    assert run(tmp_path) == 0
    assert text(tmp_path / "ask.sh") == "curl http://localhost:8000/admin/instances\n"
    assert {path.name for path in tmp_path.iterdir()} == {"ask.sh", BACKUP}


def test_the_sources_of_this_project_are_left_alone(tmp_path: Path) -> None:
    checkout = tmp_path / "checkout"
    shutil.copytree(ROOT / "scripts", checkout / "scripts")
    (checkout / "docs").mkdir()
    (checkout / "docs" / "addresses.md").write_text("`/admin/instances/new` was an address\n")
    (checkout / "mine.sh").write_text("curl http://localhost:8000/admin/instances/new\n")
    before = earlier.snapshot(checkout)
    subprocess.run(
        [sys.executable, "-B", checkout / "scripts" / SCRIPT.name],
        cwd=checkout,
        check=True,
        capture_output=True,
    )
    after = without_backup(checkout)
    assert {name for name in after if after[name] != before.get(name)} == {"mine.sh"}


# -- under any Python --------------------------------------------------------------------------


def bare(checkout: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Runs a copy of the scripts with a Python that has nothing but the standard library."""
    if not checkout.exists():
        for folder in ("scripts", "actors", "proxy"):
            shutil.copytree(ROOT / folder, checkout / folder)
    return subprocess.run(
        [sys.executable, "-S", checkout / "scripts" / SCRIPT.name, *words],
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=False,
    )


def test_without_the_environment_all_but_the_data_is_done(tmp_path: Path, keyed: Path) -> None:
    ended = bare(tmp_path / "checkout", "--root", str(keyed))
    assert (ended.returncode, ended.stderr) == (1, "")
    assert "FAILED    instance_data.json: not converted" in ended.stdout
    assert "scripts/run --version makes it" in ended.stdout
    assert text(keyed / "app/main.py") == EXPECTED_SCRIPTS["app/main.py"]
    assert not (keyed / "instance_configs.json").exists()


def test_the_environment_is_used_if_it_was_made(tmp_path: Path) -> None:
    checkout = tmp_path / "checkout"
    assert bare(checkout, "--help").returncode == 0
    python = checkout / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    python.chmod(0o755)
    ended = bare(checkout, "--root", "a folder")
    assert ended.stdout.splitlines()[-2:] == ["--root", "a folder"]
