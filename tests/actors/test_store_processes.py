"""The files between processes: one of them at a time, and killed at any moment."""

import itertools
import os
import random
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
from store_folder import config, files

from actors.errors import FileLocked
from actors.store import ConfigStore, open_stores

ROOT = Path(__file__).parents[2]
SAVING_PROCESS = Path(__file__).with_name("saving_process.py")


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
