"""`scripts/backup_monitor.py`: the command, and its job of backups and looks."""

from __future__ import annotations

import shlex
import shutil
import signal
from pathlib import Path

import pytest
from backup_site import (
    CONFIGS,
    SEED,
    end,
    file_of,
    names,
    next_event,
    process,
    put,
    run,
    run_as_written,
)
from service_process import ROOT

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
