"""Run by `test_store.py`: forks a saver for each line on stdin, so that tests can kill it.

python saving_process.py save     each line: FILE WHERE; answers: the saver's process id,
                                  then the number of each save once it is acknowledged
python saving_process.py hold CONFIG STATE      opens both stores, says "open", waits
"""

import os
import signal
import stat
import sys

import trio

from actors.models import InstanceConfig
from actors.store import ConfigStore, open_stores


def config(number: int) -> InstanceConfig:
    return InstanceConfig(name="a", api_key="k" * 32, api_base="https://a.example", priority=number)


def die_at(where: str) -> None:
    """From now on, reaching `where` in a save kills this process; "never" is not reached."""
    real = {name: getattr(os, name) for name in ("open", "fsync", "rename")}
    when, _, step = where.partition(" ")

    def lethal(name: str):
        def call(*args, **kwargs):
            reached = name
            if name == "fsync":
                folder = stat.S_ISDIR(os.fstat(args[0]).st_mode)
                reached = "fsync-folder" if folder else "fsync-file"
            if reached == step and when == "before":
                os.kill(os.getpid(), signal.SIGKILL)
            answer = real[name](*args, **kwargs)
            if reached == step and when == "after":
                os.kill(os.getpid(), signal.SIGKILL)
            return answer

        return call

    for name in real:
        setattr(os, name, lethal(name))


async def save_for_ever(path: str, where: str) -> None:
    store = ConfigStore(path)
    number = next(iter(store.load().values())).priority
    die_at(where)
    while True:
        number += 1
        await store.save({"a": config(number)})
        os.write(1, b"%d\n" % number)


def save() -> None:
    for line in sys.stdin:
        path, _, where = line.strip().partition(" ")
        child = os.fork()
        if child == 0:
            trio.run(save_for_ever, path, where)
        os.write(1, b"%d\n" % child)
        os.waitpid(child, 0)
        os.write(1, b"gone\n")


def hold(config_path: str, state_path: str) -> None:
    with open_stores(config_path, state_path):
        print("open", flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    {"save": save, "hold": hold}[sys.argv[1]](*sys.argv[2:])
