"""A configuration file that somebody edits, and data of the earlier system, in a running system."""

import json
import logging
import os
from pathlib import Path

import pytest
import trio
import trio.testing
from asking import ask, lease, refused, settled
from harness import instance_config, running_system

from actors.errors import InvalidChange, InvalidEdit, NameTaken, StoreFailed
from actors.lease import Lease
from actors.models import InstanceConfig
from actors.store import ConfigStore, EarlierData

BROKEN = InvalidEdit("configs.json", [("two.priority", "must be a valid integer")])


def by_name(*configs):
    return {config.name: config for config in configs}


async def names(system):
    return list(await system.administration.read())


# -- an edit comes into force ------------------------------------------------------------------


async def test_an_edit_is_applied_as_a_difference_in_the_order_of_the_file():
    one, two, three = (instance_config(name) for name in ("one", "two", "three"))
    async with running_system(one, two) as system:
        held = await lease(system, 10, excluded={"two"})
        system.config_store.edited = by_name(
            three, two.model_copy(update={"max_tpm": 50, "priority": 1})
        )

        change = await system.administration.reload()

        assert change.added == ("three",)
        assert change.removed == ("one",)
        assert change.changed == {"two": ("priority", "max_tpm")}
        assert await names(system) == ["three", "two"]
        assert (await refused(system, 60, excluded={"three"})).limit == 50
        # What runs on a removed instance finishes under the configuration that it began with.
        assert held.config == one
        await settled(held)
        assert system.config_store.saves == 0


async def test_an_unknown_field_that_changes_is_a_change():
    one = instance_config()
    async with running_system(one) as system:
        edited = InstanceConfig(**one.model_dump(), proxy_url="http://proxy.example")
        system.config_store.edited = by_name(edited)
        assert (await system.administration.reload()).changed == {"one": ("proxy_url",)}
        assert (await lease(system, 1)).config.model_extra == edited.model_extra


async def test_without_an_edit_there_is_nothing_to_reload():
    async with running_system(instance_config()) as system:
        assert not await system.administration.reload()
        system.config_store.edited = by_name(instance_config())
        assert not await system.administration.reload()


async def test_what_waited_for_capacity_gets_it_from_an_edited_file(autojump_clock):
    async with running_system(instance_config(max_tpm=100)) as system:
        await settled(await lease(system, 100), used_tokens=100)
        answers = []
        async with trio.open_nursery() as nursery:

            async def wait():
                answers.append(await ask(system, 100, patience_s=90))

            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            system.config_store.edited = by_name(instance_config(max_tpm=200))
            await system.administration.reload()
        assert isinstance(answers[0], Lease)
        assert trio.current_time() < 1


async def test_an_edit_is_noticed_by_itself_once_it_has_settled(autojump_clock):
    async with running_system(instance_config("one")) as system:
        system.config_store.edited = by_name(instance_config("two"))
        await trio.sleep(1.1)
        assert await names(system) == ["one"]
        await trio.sleep(1)
        assert await names(system) == ["two"]


async def test_reload_soon_waits_for_nothing():
    async with running_system(instance_config("one")) as system:
        system.config_store.edited = by_name(instance_config("two"))
        system.administration.reload_soon()
        assert await names(system) == ["two"]
    system.administration.reload_soon()  # too late, and that is all


# -- an edit that can't be used ----------------------------------------------------------------


@pytest.fixture
def logged(caplog):
    caplog.set_level(logging.INFO, "actors")
    return lambda: [record for record in caplog.records if record.name == "actors"]


async def test_an_invalid_edit_changes_nothing_and_is_reported_once(autojump_clock, logged):
    async with running_system(instance_config("one")) as system:
        system.config_store.edited = BROKEN
        await trio.sleep(60)
        assert await names(system) == ["one"]
        [record] = logged()
        assert record.levelname == "ERROR"
        assert "two.priority: must be a valid integer" in record.getMessage()

        system.config_store.edited = InvalidEdit("configs.json", [("line 1, column 1", "again")])
        await trio.sleep(60)
        assert len(logged()) == 2


async def test_an_invalid_edit_is_not_overwritten_by_any_change():
    async with running_system(instance_config("one")) as system:
        admin = system.administration
        system.config_store.edited = BROKEN
        for change in (
            lambda: admin.add(instance_config("two")),
            lambda: admin.update_config("one", {"priority": 1}),
            lambda: admin.remove("one"),
            lambda: admin.migrate({"three": record()}, overwrite=False),
            lambda: admin.reload(),
        ):
            with pytest.raises(InvalidEdit):
                await change()
        assert system.config_store.saves == 0
        assert await names(system) == ["one"]
        # What does not touch the file goes on.
        await admin.update_state("one", {"error_count": 3})
        await settled(await lease(system, 1))

        system.config_store.edited = by_name(instance_config("two"))  # mended
        await admin.update_config("two", {"priority": 1})
        assert list(system.config_store.saved) == ["two"]


async def test_a_change_takes_an_edit_over_first():
    async with running_system(instance_config("one")) as system:
        admin = system.administration
        system.config_store.edited = by_name(instance_config("one"), instance_config("two"))
        with pytest.raises(NameTaken):
            await admin.add(instance_config("two"))
        await admin.add(instance_config("three"))
        assert list(system.config_store.saved) == ["one", "two", "three"]


async def test_an_edit_can_be_discarded():
    async with running_system(instance_config("one")) as system:
        system.config_store.edited = BROKEN
        assert not await system.administration.reload(discard=True)
        assert list(system.config_store.saved) == ["one"]
        await system.administration.update_config("one", {"priority": 1})


async def test_discarding_without_an_edit_writes_nothing():
    async with running_system(instance_config("one")) as system:
        assert not await system.administration.reload(discard=True)
        assert system.config_store.saves == 0


# -- migration ---------------------------------------------------------------------------------


def record(**fields):
    return {
        "api_key": "k-0123456789abcdef",
        "api_base": "https://old.example",
        "supported_models": ["gpt-4"],
        **fields,
    }


async def test_migrated_instances_serve_and_remember_and_are_saved_in_one_write():
    document = {
        "b": record(total_requests=7, successful_requests=6, last_used=1000.0),
        "a": record(priority=1),
        "bad": {"api_key": "k"},
    }
    async with running_system(instance_config("one")) as system:
        plan = await system.administration.migrate(document, overwrite=False)

        assert list(plan.configs) == ["b", "a"]
        assert list(plan.skipped) == ["bad"]
        assert system.config_store.saves == 1
        assert list(system.config_store.saved) == ["one", "b", "a"]
        assert system.state_store.saved["b"]["total_requests"] == 7
        assert (await system.administration.read_one("b")).state.last_used == 1000.0
        assert (await lease(system, 10, excluded={"one", "b"})).config.name == "a"


async def test_a_second_migration_changes_nothing():
    async with running_system() as system:
        await system.administration.migrate({"a": record(error_count=1)}, overwrite=True)
        await settled(await lease(system, 10))
        before = await system.administration.read()
        plan = await system.administration.migrate({"a": record(error_count=1)}, overwrite=True)
        assert plan.unchanged == ("a",)
        assert system.config_store.saves == 1
        assert await system.administration.read() == before


async def test_overwriting_reconfigures_and_keeps_what_was_observed():
    async with running_system(instance_config("a", retry_count=9)) as system:
        await settled(await lease(system, 10))
        document = {"a": record(priority=3, total_requests=1000)}
        await system.administration.migrate(document, overwrite=True)
        instance = await system.administration.read_one("a")
        assert (instance.config.priority, instance.config.retry_count) == (3, 9)
        assert instance.state.total_requests == 1


async def test_a_migration_that_can_not_be_saved_changes_nothing():
    async with running_system(instance_config("one")) as system:
        system.config_store.failing = StoreFailed("no space")
        with pytest.raises(StoreFailed):
            await system.administration.migrate({"a": record()}, overwrite=False)
        assert await names(system) == ["one"]
        with pytest.raises(InvalidChange):
            await system.administration.migrate(7, overwrite=False)


# -- on disk -----------------------------------------------------------------------------------


@pytest.fixture
def path(tmp_path):
    return tmp_path / "configs.json"


def write(path, *configs):
    path.write_text(json.dumps({config.name: config.model_dump() for config in configs}))


async def test_an_edit_of_the_file_is_seen_and_taken_over(path):
    store = ConfigStore(path)
    store.load()
    assert await store.edit() is None

    write(path, instance_config("one"))
    first = await store.edit()
    assert first is not None
    assert await store.edit() == first
    write(path, instance_config("one"), instance_config("two"))
    assert await store.edit() not in (None, first)
    assert list(await store.take_over()) == ["one", "two"]
    assert await store.edit() is None


@pytest.mark.parametrize(
    ("content", "place", "reason"),
    [
        ("{", "line 1, column 2", "Expecting"),
        ("", "line 1, column 1", "empty"),
        ('{"a": {}}', "a.api_key", "missing"),
        (None, "top level", "gone"),
    ],
)
async def test_an_edit_that_is_invalid_stays_an_edit(path, content, place, reason):
    store = ConfigStore(path)
    await store.save(by_name(instance_config("one")))
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(InvalidEdit) as caught:
        await store.take_over()
    assert caught.value.problems[0][0] == place
    assert reason in caught.value.problems[0][1]
    assert str(path) in str(caught.value)
    assert await store.edit() is not None

    kept = await store.keep_edit()
    assert (kept and await trio.Path(kept).read_text()) == content
    await store.save(by_name(instance_config("one")))
    assert await store.edit() is None


async def test_a_file_that_can_not_be_read_is_an_invalid_edit(path):
    path.mkdir()
    with pytest.raises(InvalidEdit, match="Is a directory"):
        await ConfigStore(path).take_over()


def test_earlier_data_is_read_up_to_a_limit_and_backed_up_beside_itself(tmp_path):
    data = EarlierData(tmp_path / "instance_data.json")
    assert data.read(100) is None
    (tmp_path / "instance_data.json").write_bytes(b"x" * 1000)
    assert data.read(100) == b"x" * 101

    copies = {data.back_up(b"content"), data.back_up(b"content")}
    assert len(copies) == 2
    for copy in copies:
        assert copy.startswith(f"{tmp_path}/instance_data.json.backup-2")
        assert Path(copy).read_bytes() == b"content"
        assert os.stat(copy).st_mode & 0o777 == 0o600
    assert (tmp_path / "instance_data.json").read_bytes() == b"x" * 1000
