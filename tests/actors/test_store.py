"""The two files: what is read, what is written, and what is left when something goes wrong."""

import errno
import itertools
import json
import os
import random
import resource
import signal
import stat
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio
from documented_records import CONFIG, STATE

from actors.errors import BrokenFile, FileLocked, StoreFailed
from actors.models import InstanceConfig, InstanceState
from actors.store import ConfigStore, StateStore, open_stores

ROOT = Path(__file__).parents[2]
SAVING_PROCESS = Path(__file__).with_name("saving_process.py")


@pytest.fixture
def config_path(tmp_path):
    return tmp_path / "configs.json"


@pytest.fixture
def state_path(tmp_path):
    return tmp_path / "states.json"


def config(name="a", **fields):
    return InstanceConfig(
        **{"name": name, "api_key": "k" * 32, "api_base": "https://a.example", **fields}
    )


def files(folder):
    return sorted(path.name for path in folder.iterdir())


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


# -- failures ----------------------------------------------------------------------------------


def no_space(*args, **kwargs):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@contextmanager
def failing(step):
    """Makes every save fail at `step`."""
    with pytest.MonkeyPatch.context() as patch:
        real_open, real_fsync = os.open, os.fsync

        def open_but_nothing_new(path, flags, *rest, **kwargs):
            return (no_space if flags & os.O_CREAT else real_open)(path, flags, *rest, **kwargs)

        def fsync_files(descriptor):
            folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
            return (real_fsync if folder else no_space)(descriptor)

        def fsync_folders(descriptor):
            folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
            return (no_space if folder else real_fsync)(descriptor)

        limit = resource.getrlimit(resource.RLIMIT_FSIZE)
        match step:
            case "create":
                patch.setattr(os, "open", open_but_nothing_new)
            case "write":  # after ten bytes
                resource.setrlimit(resource.RLIMIT_FSIZE, (10, limit[1]))
            case "fsync":
                patch.setattr(os, "fsync", fsync_files)
            case "rename":
                patch.setattr(os, "rename", no_space)
            case "fsync-folder":
                patch.setattr(os, "fsync", fsync_folders)
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limit)


STEPS = ["create", "write", "fsync", "rename", "fsync-folder"]


@pytest.mark.parametrize("step", STEPS)
async def test_a_save_that_fails_leaves_the_old_file_and_nothing_else(config_path, step):
    store = ConfigStore(config_path)
    await store.save({"a": config(priority=1)})
    before = config_path.read_bytes()

    with failing(step), pytest.raises(StoreFailed) as refusal:
        await store.save({"a": config(priority=2)})

    assert str(config_path) in str(refusal.value)
    reason = errno.EFBIG if step == "write" else errno.ENOSPC
    assert os.strerror(reason) in str(refusal.value)
    assert config_path.read_bytes() == before
    assert files(config_path.parent) == [config_path.name]
    assert not store.changed_on_disk()

    await store.save({"a": config(priority=3)})
    assert ConfigStore(config_path).load()["a"].priority == 3


@pytest.mark.parametrize("step", STEPS)
async def test_a_first_save_that_fails_leaves_no_file(config_path, step):
    store = ConfigStore(config_path)
    with failing(step), pytest.raises(StoreFailed):
        await store.save({"a": config()})
    assert files(config_path.parent) == []
    assert not store.changed_on_disk()


async def test_a_folder_that_is_gone_is_a_refusal(tmp_path):
    store = ConfigStore(tmp_path / "gone" / "configs.json")
    with pytest.raises(StoreFailed, match="No such file or directory"):
        await store.save({"a": config()})
    with (
        pytest.raises(FileNotFoundError, match="gone"),
        open_stores(tmp_path / "gone" / "configs.json", tmp_path / "states.json"),
    ):
        pass


async def test_a_number_that_json_lacks_is_a_refusal(state_path):
    store = StateStore(state_path)
    await store.save({"a": {"name": "a"}})
    with pytest.raises(StoreFailed, match=r"states\.json"):
        await store.save({"a": {"name": "a", "rate_limited_until": float("inf")}})
    assert store.load() == ({"a": InstanceState(name="a")}, None)


async def test_a_save_reaches_the_disk_before_it_is_acknowledged(config_path, monkeypatch):
    done = []

    def noting(name, real):
        def call(*args, **kwargs):
            kind = ""
            if name == "fsync":
                kind = " folder" if stat.S_ISDIR(os.fstat(args[0]).st_mode) else " file"
            answer = real(*args, **kwargs)
            done.append(name + kind)
            return answer

        return call

    for name in ("fsync", "rename"):
        monkeypatch.setattr(os, name, noting(name, getattr(os, name)))
    await ConfigStore(config_path).save({"a": config()})
    assert done == ["fsync file", "rename", "fsync folder"]


# -- concurrency -------------------------------------------------------------------------------


async def test_of_concurrent_saves_the_last_acknowledged_one_stands(config_path):
    store = ConfigStore(config_path)
    acknowledged = []

    async def save(number):
        await store.save({"a": config(priority=number)})
        acknowledged.append(number)
        assert ConfigStore(config_path).load()

    async with trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(save, number)

    assert ConfigStore(config_path).load()["a"].priority == acknowledged[-1]
    assert files(config_path.parent) == [config_path.name]


async def test_a_cancelled_save_has_not_begun_or_is_whole(config_path, monkeypatch):
    store = ConfigStore(config_path)
    with trio.CancelScope() as scope:
        scope.cancel()
        await store.save({"a": config(priority=1)})
    assert not config_path.exists()

    in_thread = trio.Event()
    real = os.rename

    def rename(*paths):
        trio.from_thread.run_sync(in_thread.set)
        with pytest.raises(trio.Cancelled):
            trio.from_thread.run(trio.sleep_forever)
        real(*paths)

    monkeypatch.setattr(os, "rename", rename)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(store.save, {"a": config(priority=2)})
        await in_thread.wait()
        nursery.cancel_scope.cancel()
    assert store.load()["a"].priority == 2
    assert files(config_path.parent) == [config_path.name]


async def test_what_is_saved_is_what_was_given_even_if_the_caller_goes_on_changing_it(config_path):
    store = ConfigStore(config_path)
    records = {"a": config()}
    async with trio.open_nursery() as nursery:
        nursery.start_soon(store.save, records)
        await trio.testing.wait_all_tasks_blocked()
        records["b"] = config("b")
    assert set(store.load()) == {"a"}


# -- other processes ---------------------------------------------------------------------------


@contextmanager
def process(*arguments):
    child = subprocess.Popen(
        [sys.executable, str(SAVING_PROCESS), *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    with child:
        try:
            yield child
        finally:
            child.kill()


def test_a_second_process_is_refused_until_the_first_is_gone_even_by_kill(config_path, state_path):
    with process("hold", config_path, state_path) as other:
        assert other.stdout.readline() == "open\n"

        with (
            pytest.raises(FileLocked) as refusal,
            open_stores(config_path, config_path.with_name("mine.json")),
        ):
            pass
        assert refusal.value.path == str(config_path)
        with (
            pytest.raises(FileLocked, match=r"states\.json is in use"),
            open_stores(config_path.with_name("mine.json"), state_path),
        ):
            pass

        other.kill()
        other.wait()
        with open_stores(config_path, state_path):
            pass


def test_leftovers_of_a_killed_process_go_and_other_files_stay(config_path, state_path):
    folder = config_path.parent
    leftover = folder / ".configs.json.0123456789abcdef.tmp"
    others = [".configs.json.tmp", ".other.json.0123456789abcdef.tmp", "configs.json.bak"]
    for name in [leftover.name, *others]:
        (folder / name).write_text("x")

    with open_stores(config_path, state_path):
        assert not leftover.exists()
        assert set(files(folder)) >= set(others)


def test_a_folder_without_write_permission_needs_no_lock(config_path, state_path, monkeypatch):
    config_path.write_text("{}")
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write to any folder
    with open_stores(config_path, state_path) as (store, _):
        assert store.load() == {}
    assert files(config_path.parent) == [config_path.name]


def kill_during_a_save(saver, path, where):
    """Starts a saver that dies at `where`; the numbers it acknowledged."""
    saver.stdin.write(f"{path} {where}\n")
    saver.stdin.flush()
    saver.stdout.readline()
    return list(map(int, iter(lambda: saver.stdout.readline().strip(), "gone")))


async def test_killed_at_any_step_the_file_is_whole(config_path, state_path):
    await ConfigStore(config_path).save({"a": config(priority=1)})
    steps = ["open", "fsync-file", "rename", "fsync-folder"]
    moments = [f"{when} {step}" for step in steps for when in ("before", "after")]
    with process("save") as saver:
        for where in moments:
            found = ConfigStore(config_path).load()["a"].priority
            assert kill_during_a_save(saver, config_path, where) == []
            written = where == "after rename" or where.endswith("folder")
            with open_stores(config_path, state_path) as (store, _):
                assert store.load()["a"].priority == found + written
            locks = ["configs.json.lock", "states.json.lock"]
            assert files(config_path.parent) == ["configs.json", *locks]


async def test_killed_in_a_storm_of_saves_no_acknowledged_one_is_lost(config_path):
    await ConfigStore(config_path).save({"a": config(priority=1)})
    moments = random.Random(1)
    with process("save") as saver:
        for _ in range(10):
            saver.stdin.write(f"{config_path} never\n")
            saver.stdin.flush()
            saving = int(saver.stdout.readline())
            acknowledged = [int(saver.stdout.readline()) for _ in range(moments.randrange(1, 30))]
            for _ in range(moments.randrange(20_000)):
                pass  # so that it dies at another point of the next save each time
            os.kill(saving, signal.SIGKILL)
            rest = itertools.takewhile(str.isdigit, map(str.strip, saver.stdout))
            acknowledged += map(int, rest)
            assert ConfigStore(config_path).load()["a"].priority >= acknowledged[-1]
