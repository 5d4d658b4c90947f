"""`python -m proxy migrate FILE` on real files, while the service runs and while it does not."""

import json
import os
from pathlib import Path

import pytest

from actors.store import ConfigStore, StateStore, open_stores
from proxy.cli import main

KEY = "k-0123456789abcdef-west"
OLD = {
    "west": {
        "api_key": KEY,
        "api_base": "https://west.example",
        "supported_models": ["gpt-4"],
        "priority": 7,
        "total_requests": 12,
        "tags": ["a"],
    }
}


@pytest.fixture(autouse=True)
def _in_an_empty_folder_with_a_plain_environment(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = dict(os.environ)
    for variable in ("INSTANCE_CONFIG_FILE", "INSTANCE_STATE_FILE", "HOST", "PORT"):
        os.environ.pop(variable, None)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def old():
    path = Path("old.json")
    path.write_text(json.dumps(OLD))
    return path


def configs():
    return ConfigStore("instance_configs.json").load()


def contents():
    """Of every file but the locks."""
    return {path.name: path.read_bytes() for path in Path().iterdir() if path.suffix != ".lock"}


def test_both_files_are_written_and_the_old_data_are_backed_up(old, capsys):
    assert main(["migrate", "old.json"]) == 0

    assert configs()["west"].priority == 7
    states, warning = StateStore("instance_states.json").load()
    assert (states["west"].total_requests, warning) == (12, None)
    [backup] = Path().glob("old.json.backup-*")
    assert backup.read_bytes() == old.read_bytes()
    for path in ("instance_configs.json", "instance_states.json", backup):
        assert os.stat(path).st_mode & 0o777 == 0o600
    printed = capsys.readouterr()
    assert "migrated: west\n" in printed.out
    assert f"backup: {backup.resolve()}\n" in printed.out
    assert "unknown: west: tags" in printed.out
    assert KEY not in printed.out + printed.err


def test_the_second_time_changes_nothing(old, capsys):
    main(["migrate", "old.json"])
    before = contents()
    for arguments in (["migrate", "old.json"], ["migrate", "old.json", "--overwrite"]):
        assert main(arguments) == 0
    assert contents() == before
    assert capsys.readouterr().out.count("unchanged: west\nNothing was written.\n") == 2


def test_a_dry_run_writes_nothing(old, capsys):
    before = contents()
    assert main(["migrate", "old.json", "--dry-run"]) == 0
    assert contents() == before
    assert "would be migrated: west\nNothing was written.\n" in capsys.readouterr().out


def test_what_is_there_stays_unless_it_is_to_be_overwritten(old, capsys):
    main(["migrate", "old.json"])
    old.write_text(json.dumps({"west": {**OLD["west"], "priority": 8}, "east": OLD["west"]}))

    assert main(["migrate", "old.json"]) == 1
    assert "skipped: west: exists already" in capsys.readouterr().out
    assert {name: config.priority for name, config in configs().items()} == {"west": 7, "east": 7}

    assert main(["migrate", "old.json", "--overwrite"]) == 0
    assert configs()["west"].priority == 8


def test_states_of_other_instances_are_kept(old):
    main(["migrate", "old.json"])
    old.write_text(json.dumps({"east": {**OLD["west"], "total_requests": 3}}))
    main(["migrate", "old.json"])
    states, _ = StateStore("instance_states.json").load()
    assert {name: state.total_requests for name, state in states.items()} == {"west": 12, "east": 3}


def test_a_bad_record_costs_the_exit_status_and_nothing_else(old, capsys):
    old.write_text(json.dumps({**OLD, "bad": {"api_key": KEY}}))
    assert main(["migrate", "old.json"]) == 1
    assert list(configs()) == ["west"]
    assert "skipped: bad: api_base: is missing" in capsys.readouterr().out


def test_while_the_service_runs_it_names_the_endpoint_and_touches_nothing(old, capsys):
    with open_stores("instance_configs.json", "instance_states.json"):
        assert main(["migrate", "old.json", "--overwrite"]) == 1
        assert main(["migrate", "old.json", "--dry-run"]) == 0
    said = capsys.readouterr().err
    assert "--data-binary @old.json" in said
    assert "http://127.0.0.1:3010/admin/instances/migrate?overwrite=true" in said
    assert sorted(contents()) == ["old.json"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "old.json: No such file or directory"),
        ("", "old.json: top level: the document is empty"),
        ('{"a": ', "old.json: line 1"),
        ("7", "Nothing was migrated: document: must be an object"),
    ],
)
def test_a_file_that_can_not_be_used_ends_in_one_sentence(old, capsys, content, words):
    old.unlink() if content is None else old.write_text(content)
    assert main(["migrate", "old.json"]) == 1
    printed = capsys.readouterr()
    assert printed.err.startswith(words)
    assert printed.err.count("\n") == 1
    assert not Path("instance_configs.json").exists()


def test_a_broken_configuration_is_not_written_over(old, capsys):
    Path("instance_configs.json").write_text("{")
    assert main(["migrate", "old.json"]) == 1
    assert capsys.readouterr().err.startswith("instance_configs.json: line 1, column 2")
    assert Path("instance_configs.json").read_text() == "{"
