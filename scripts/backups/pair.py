"""Reads both files as they were at one and the same moment, with what belongs to the state file.

The service replaces each of them as a whole, whenever it has something new to say. Readings belong
together if no file was replaced or written to from before the first reading to after the last;
otherwise all are read again.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import Literal, TypeAlias

from . import records

Part: TypeAlias = Literal["config", "state", "owners"]
Fingerprint: TypeAlias = tuple[int, ...]
"""Enough of a file's status to see that it was replaced or written to."""

_PAUSE_S = 0.05
_LIMIT_S = 5.0
"""The service writes once in a second, and an editor is done much sooner."""


class NoPair(Exception):
    """There is nothing that is worth a backup; the text says which file, and why."""


@dataclass(frozen=True, slots=True)
class Pair:
    """What both files said at one moment, and `owners`, which of the instances has which file,
    response and so on. None: it was not there."""

    config: bytes | None
    state: bytes | None
    owners: bytes | None = None

    def of(self, part: Part) -> bytes | None:
        return {"config": self.config, "state": self.state, "owners": self.owners}[part]


def paths(config_path: str, state_path: str) -> dict[Part, str]:
    """Where everything is: the service keeps its memory of owners beside the state file."""
    owners = f"{os.path.realpath(state_path)}.owners.jsonl"
    return {"config": config_path, "state": state_path, "owners": owners}


def fingerprint(path: str) -> Fingerprint | None:
    """None if there is no such file. Errors: other `OSError`s."""
    try:
        return _fingerprint(os.stat(path))
    except FileNotFoundError:
        return None


def read_pair(config_path: str, state_path: str, *, any_content: bool = False) -> Pair:
    """A consistent pair. Unless `any_content`, the configuration is there and both are valid.

    Waits up to five seconds for files that somebody is just writing. Before the service's first
    start there is no state. Errors: `NoPair`; `OSError` if a file is there and can't be read.
    """
    deadline = time.monotonic() + _LIMIT_S
    while True:
        pair = _attempt(*paths(config_path, state_path).values())
        if pair is None:
            flaw: str | None = f"{config_path} or {state_path} is written all the time"
        elif any_content:
            flaw = None
        elif pair.config is None:
            raise NoPair(f"{config_path} does not exist: see INSTANCE_CONFIG_FILE")
        else:
            flaw = _flaw(config_path, "config", pair) or _flaw(state_path, "state", pair)
        if pair is not None and flaw is None:
            return pair
        if time.monotonic() >= deadline:
            raise NoPair(flaw)
        time.sleep(_PAUSE_S)


def _attempt(*paths: str) -> Pair | None:
    before = [fingerprint(path) for path in paths]
    readings = [_read(path) for path in paths]
    after = [fingerprint(path) for path in paths]
    if before != after or before != [seen for _, seen in readings]:
        return None
    return Pair(*(content for content, _ in readings))


def _read(path: str) -> tuple[bytes | None, Fingerprint | None]:
    try:
        with open(path, "rb") as file:
            return file.read(), _fingerprint(os.fstat(file.fileno()))
    except FileNotFoundError:
        return None, None


def _fingerprint(status: os.stat_result) -> Fingerprint:
    return (
        status.st_dev,
        status.st_ino,
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
    )


def _flaw(path: str, kind: records.Kind, pair: Pair) -> str | None:
    content = pair.of(kind)
    problems = () if content is None else records.read(content, kind).problems
    return f"{path}: {problems[0]}" if problems else None
