"""The two files: what is read and written, and how."""

import json
import os
import stat
from contextlib import contextmanager
from pathlib import Path

import pytest
from documented_records import CONFIG, STATE
from store_folder import config, files

from actors.errors import BrokenFile, FileLocked
from actors.store import ConfigStore, StateStore, open_stores

# -- what is read and written ------------------------------------------------------------------


async def test_a_file_as_documented_comes_back_byte_for_byte(config_path, state_path):
    configs = json.dumps({"instance-name": CONFIG}, indent=2) + "\n"
    states = json.dumps({"instance-name": STATE}, indent=2) + "\n"
    config_path.write_text(configs)
    state_path.write_text(states)

    await ConfigStore(config_path).save(ConfigStore(config_path).load())
    loaded, warning = StateStore(state_path).load()
    await StateStore(state_path).save({name: s.model_dump() for name, s in loaded.items()})

    assert warning is None
    assert config_path.read_text() == configs
    assert state_path.read_text() == states


def test_a_missing_file_means_no_instances(config_path, state_path):
    assert ConfigStore(config_path).load() == {}
    assert StateStore(state_path).load() == ({}, None)
    assert files(config_path.parent) == []


async def test_fields_of_a_newer_version_are_kept_behind_the_known_ones(config_path):
    newer = {"region": {"zone": [1, 2.5, None]}, **CONFIG, "note": "Grüße"}
    config_path.write_text(json.dumps({"instance-name": newer}))
    store = ConfigStore(config_path)

    loaded = store.load()["instance-name"]
    await store.save({"instance-name": loaded.model_copy(update={"priority": 1})})

    record = json.loads(config_path.read_text())["instance-name"]
    assert record == {**newer, "priority": 1}
    assert list(record) == [*CONFIG, "region", "note"]


async def test_a_reference_is_resolved_for_checking_and_kept_as_a_reference(config_path):
    config_path.write_text(json.dumps({"a": {"api_key": "${KEY_A}", "api_base": "http://a"}}))
    store = ConfigStore(config_path, {"KEY_A": "secret-of-the-environment"})

    await store.save(store.load())

    assert json.loads(config_path.read_text())["a"]["api_key"] == "${KEY_A}"
    assert "secret" not in config_path.read_text()


def test_a_record_without_a_name_takes_it_from_its_key(config_path):
    config_path.write_text(json.dumps({"a": {"api_key": "k", "api_base": "http://a"}}))
    assert ConfigStore(config_path).load()["a"].name == "a"


def test_a_broken_config_file_is_refused_and_left_alone(config_path):
    text = '{"a": {"api_key": "k"},\n"b": {"name": "c", "api_key": "k", "api_base": "http://b"}}'
    config_path.write_text(text)
    with pytest.raises(BrokenFile) as refusal:
        ConfigStore(config_path).load()
    assert refusal.value.path == str(config_path)
    assert refusal.value.place == "a.api_base"
    assert refusal.value.reason == "is missing, and it has no default (and 1 more problem)"
    assert ConfigStore(config_path).inspect()[1][1][0] == "b.name"
    assert config_path.read_text() == text
    assert files(config_path.parent) == [config_path.name]


def test_a_broken_state_file_is_set_aside(state_path):
    state_path.write_text('{"a": {"error_count": -1}}')

    states, warning = StateStore(state_path).load()

    assert states == {}
    (aside,) = state_path.parent.iterdir()
    assert aside.name.startswith("states.json.broken-2")
    assert aside.name.endswith("Z")
    assert aside.read_text() == '{"a": {"error_count": -1}}'
    assert "a.error_count" in warning
    assert str(aside) in warning


# -- modes, links, edits -----------------------------------------------------------------------


@contextmanager
def umask(mask):
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


@pytest.mark.parametrize("existing_mode", [None, 0o644])
@pytest.mark.parametrize("mask", [0, 0o077])
async def test_files_are_private_whatever_was_there(config_path, existing_mode, mask):
    if existing_mode is not None:
        config_path.write_text("{}")
        config_path.chmod(existing_mode)
    with umask(mask):
        await ConfigStore(config_path).save({"a": config()})
    assert stat.S_IMODE(config_path.stat().st_mode) == 0o600


@pytest.mark.parametrize("dangling", [False, True])
async def test_a_symbolic_link_is_written_through(tmp_path, config_path, dangling):
    (tmp_path / "elsewhere").mkdir()
    target = tmp_path / "elsewhere" / "real.json"
    if not dangling:
        target.write_text("{}")
    config_path.symlink_to(Path("elsewhere") / "real.json")

    with open_stores(config_path, tmp_path / "states.json") as (store, _):
        assert store.load() == {}
        await store.save({"a": config()})
        with pytest.raises(FileLocked), open_stores(target, tmp_path / "other.json"):
            pass

    assert config_path.is_symlink()
    assert set(json.loads(target.read_text())) == {"a"}
    assert files(target.parent) == ["real.json", "real.json.lock"]


async def test_an_edit_by_somebody_else_is_noticed_until_it_is_accepted(config_path):
    store = ConfigStore(config_path)
    store.load()
    assert not store.changed_on_disk()
    await store.save({"a": config()})
    assert not store.changed_on_disk()

    config_path.write_text("{}" + " " * 1000)
    assert store.changed_on_disk()
    store.load()
    assert not store.changed_on_disk()

    config_path.write_text("broken")
    with pytest.raises(BrokenFile):
        store.load()
    assert store.changed_on_disk()
    config_path.unlink()
    assert store.changed_on_disk()
    assert store.load() == {}
    assert not store.changed_on_disk()
