"""A save that fails, and saves at the same time."""

import errno
import os
import resource
import stat
from contextlib import contextmanager

import pytest
import trio
from store_folder import config, files

from actors.errors import StoreFailed
from actors.models import InstanceState
from actors.store import ConfigStore, StateStore, open_stores

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
