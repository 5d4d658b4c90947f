"""The memory of owners on disk: a file to which lines are added, written anew now and then.

One JSON object per line: `{"id": "files/file-1", "instance": "east"}`, and `null` for the instance
of what is gone. It belongs to the state file and lies beside it, under the same lock.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import trio
from pydantic_core import from_json

from actors.models import INSTANCE_NAME_PATTERN
from actors.whole_file import install, remove_leftovers, sync_folder
from proxy.bound.ids import is_key

if TYPE_CHECKING:
    import logging
    from collections.abc import Iterable, Sequence

    from proxy.bound.owners import Entry, Owners

INTERVAL_S: Final = 1.0
"""News of this time are written together; as much is lost when the process is killed."""
LAST_WRITE_S: Final = 5.0
SPARE_LINES: Final = 1000
"""The file is written anew when it has twice as many lines as needed, and these."""
MAX_LINE_BYTES: Final = 1024

_NAME: Final = re.compile(INSTANCE_NAME_PATTERN)


def journal_path(state_path: str | os.PathLike[str]) -> Path:
    """`instance_states.json.owners.jsonl` for `instance_states.json`, in the same folder. A link
    to a state file elsewhere is followed, as for the state file itself."""
    return Path(f"{os.path.realpath(state_path)}.owners.jsonl")


class JournalFile:
    """The file. Everything here blocks. Errors: `OSError`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines = 0
        self.damaged = 0
        """Lines that could not be read; the file is then written anew at the next occasion."""

    def load(self) -> Iterable[Entry]:
        """The entries in the order in which they were written; a line that is none is left out,
        as the last one may be that was being written when the process was killed."""
        if os.access(self.path.parent, os.W_OK):
            remove_leftovers(os.fspath(self.path))
        try:
            file = self.path.open("rb")
        except FileNotFoundError:
            return
        with file:
            while line := file.readline(MAX_LINE_BYTES):
                self.lines += 1
                found = _entry(line)
                if found is None:
                    self.damaged += 1
                else:
                    yield found

    def append(self, entries: Sequence[Entry]) -> None:
        """Durable when it returns."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        with open(os.open(self.path, flags, 0o600), "ab") as file:
            file.write(_text(entries))
            file.flush()
            os.fsync(file.fileno())
        self.lines += len(entries)

    def replace(self, entries: Sequence[Entry]) -> None:
        """The file says `entries` and nothing else: the old file or the new one is found."""
        install(os.fspath(self.path), _text(entries))
        sync_folder(os.fspath(self.path.parent))
        self.lines = len(entries)
        self.damaged = 0


def _entry(line: bytes) -> Entry | None:
    if not line.endswith(b"\n"):
        return None
    try:
        document: Any = from_json(line)
    except ValueError:
        return None
    if not isinstance(document, dict):
        return None
    key, owner = document.get("id"), document.get("instance")
    if not isinstance(key, str) or not is_key(key):
        return None
    if owner is None and "instance" in document:
        return key, None
    return (key, owner) if isinstance(owner, str) and _NAME.fullmatch(owner) else None


def _text(entries: Sequence[Entry]) -> bytes:
    # Keys and names hold nothing that JSON would escape.
    return b"".join(
        b'{"id": "%b", "instance": %b}\n'
        % (key.encode(), b"null" if owner is None else b'"%b"' % owner.encode())
        for key, owner in entries
    )


class Journal:
    """Keeps the file true to `owners`, a second behind. A failure to write is logged, and the
    next second tries again: serving matters more than remembering."""

    def __init__(self, file: JournalFile, owners: Owners, log: logging.Logger) -> None:
        self._file = file
        self._owners = owners
        self._log = log
        self._behind = False
        """The file may lack what is not news any more: only writing it anew helps."""
        self._reported = False

    async def run(self) -> None:
        """Writes until cancelled; then what is left, and in which order it was used."""
        try:
            while True:
                await trio.sleep(INTERVAL_S)
                await self._write()
        finally:
            with trio.CancelScope(deadline=trio.current_time() + LAST_WRITE_S, shield=True):
                await self._write(ordered=self._owners.reordered)

    async def _write(self, *, ordered: bool = False) -> None:
        """`ordered`: the longest unused has to come first."""
        file, news = self._file, self._owners.news()
        if news == [] and not self._behind and not ordered:
            return
        most = 2 * len(self._owners) + SPARE_LINES
        anew = ordered or self._behind or file.damaged or news is None
        anew = anew or file.lines + len(news or ()) > most
        self._behind = True  # also if this is cancelled
        try:
            if news is None or anew:
                await trio.to_thread.run_sync(file.replace, self._owners.entries())
            else:
                await trio.to_thread.run_sync(file.append, news)
        except OSError as error:
            if not self._reported:
                self._log.error("owners not saved: %s: %s", file.path, error.strerror)
            self._reported = True
        else:
            self._behind = self._reported = False
