"""The two files on disk. Nothing else in this package opens a file.

A file is only ever replaced as a whole (`actors.whole_file`). Whoever reads it, or restarts after a
crash at any point, finds the old content or the new. While the stores are open, a lock keeps every
other process from writing the same files.
"""

from __future__ import annotations

import errno
import os
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, BinaryIO, Final, TypeAlias

import trio
from filelock import FileLock, Timeout

from actors.clock import wall_now
from actors.errors import BrokenFile, FileLocked, InvalidEdit, StoreFailed
from actors.records import TOP_LEVEL, read_configs, read_states, written
from actors.whole_file import PRIVATE, install, remove_leftovers, sync_folder

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from actors.models import InstanceConfig, InstanceState
    from actors.problems import Problem

_REMEDIES: Final = {
    errno.EBUSY: "; if the file itself is a mount point, mount its folder instead",
}

Fingerprint: TypeAlias = tuple[int, int, int]
"""Inode, size and modification time (ns): enough to see that somebody has edited the file."""
_NO_FILE: Final = (0, 0, 0)


class _Store:
    """One file, replaced as a whole or not at all.

    A symbolic link is written through: its target is what gets replaced. All but `_save` blocks
    on the disk.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        self._accepted: Fingerprint | None = None
        self._saving = trio.Lock()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """While inside, no other process can be; what a killed one left is cleared away.

        The lock is `<file>.lock`, held by the operating system (flock): it ends with the process,
        however that ends. A folder without write permission needs none, because nothing can be
        saved there.

        Errors: `FileLocked`, at once; `OSError` when there can be no lock file.
        """
        target = os.path.realpath(self.path)
        folder = os.path.dirname(target)
        if not os.path.isdir(folder):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), folder)
        if not os.access(folder, os.W_OK):
            yield
            return
        lock = FileLock(f"{target}.lock", timeout=0, mode=PRIVATE, thread_local=False)
        try:
            lock.acquire()
        except Timeout:
            raise FileLocked(self.path) from None
        try:
            remove_leftovers(target)
            yield
        finally:
            lock.release()

    def changed_on_disk(self) -> Fingerprint | None:
        """Tells one edit from another if the file is another than the one last loaded without a
        problem, or saved; None if it is that one, or can't be seen now."""
        try:
            found = _fingerprint(os.stat(self.path))
        except FileNotFoundError:
            found = _NO_FILE
        except OSError:
            return None
        return None if found == (self._accepted or _NO_FILE) else found

    def _read(self) -> tuple[bytes | None, Fingerprint | None]:
        try:
            with open(self.path, "rb") as file:
                # Taken before reading: an edit meanwhile then shows as a change, never as none.
                fingerprint = _fingerprint(os.fstat(file.fileno()))
                return file.read(), fingerprint
        except FileNotFoundError:
            return None, None

    async def _save(self, records: Mapping[str, Any]) -> None:
        """Durable when it returns, and saves end in the order in which they began.

        Cancelled, it has either not begun or runs to its end: the thread is never abandoned.
        """
        snapshot = dict(records)
        async with self._saving:
            try:
                await trio.to_thread.run_sync(self._replace, snapshot)
            except OSError as error:
                reason = f"{error.strerror}{_REMEDIES.get(error.errno or 0, '')}"
                raise StoreFailed(f"{self.path} could not be written: {reason}") from error
            except ValueError as error:  # a number that JSON can't express
                raise StoreFailed(f"{self.path} could not be written: {error}") from error

    def _replace(self, records: Mapping[str, Any]) -> None:
        content = written(records)
        target = os.path.realpath(self.path)
        with ExitStack() as stack:
            try:
                old: BinaryIO | None = stack.enter_context(open(target, "rb"))
            except FileNotFoundError:
                old = None
            fingerprint = _fingerprint(install(target, content))
            try:
                sync_folder(os.path.dirname(target))
            except OSError:
                # Refused, so it must not be found after a restart either.
                self._accepted = _put_back(target, old)
                raise
        self._accepted = fingerprint


class ConfigStore(_Store):
    """The instances' configuration. Keys that are `${NAME}` references stay references.

    `environ`: where those references must resolve.
    """

    def __init__(
        self, path: str | os.PathLike[str], environ: Mapping[str, str] = os.environ
    ) -> None:
        super().__init__(path)
        self._environ = environ

    def load(self) -> dict[str, InstanceConfig]:
        """The configurations by name, in the order of the file; none when there is no file.

        Errors: `BrokenFile` with the first problem, the file left as it is; `OSError`.
        """
        content, fingerprint = self._read()
        configs, problems = self._parse(content)
        if problems:
            (place, reason), more = problems[0], len(problems) - 1
            others = f" (and {more} more problem{'s' * (more > 1)})" if more else ""
            raise BrokenFile(self.path, place, reason + others)
        self._accepted = fingerprint
        return configs

    def inspect(self) -> tuple[dict[str, InstanceConfig], list[Problem]]:
        """As `load`, but with every problem instead of an exception for the first."""
        return self._parse(self._read()[0])

    def _parse(self, content: bytes | None) -> tuple[dict[str, InstanceConfig], list[Problem]]:
        return ({}, []) if content is None else read_configs(content, self._environ)

    async def edit(self) -> Fingerprint | None:
        """As `changed_on_disk`, without blocking."""
        return await trio.to_thread.run_sync(self.changed_on_disk, abandon_on_cancel=True)

    async def take_over(self) -> dict[str, InstanceConfig]:
        """The configurations by name that an edit has put into the file. Checkpoints.

        Errors: `InvalidEdit` if they, or the file itself, can't be used; it stays an edit then.
        """
        return await trio.to_thread.run_sync(self._take_over)

    def _take_over(self) -> dict[str, InstanceConfig]:
        try:
            content, fingerprint = self._read()
        except OSError as error:
            raise InvalidEdit(self.path, [(TOP_LEVEL, str(error.strerror))]) from error
        if content is None:
            raise InvalidEdit(self.path, [(TOP_LEVEL, "the file is gone")])
        configs, problems = self._parse(content)
        if problems:
            raise InvalidEdit(self.path, problems)
        self._accepted = fingerprint
        return configs

    async def keep_edit(self) -> str | None:
        """Copies the file to `<name>.discarded-<UTC time>` and returns that; None if there is no
        file. Checkpoints. Errors: `StoreFailed`."""

        def keep() -> str | None:
            content, _ = self._read()
            target = os.path.realpath(self.path)
            return None if content is None else _write_beside(target, "discarded", content)

        try:
            return await trio.to_thread.run_sync(keep)
        except OSError as error:
            raise StoreFailed(f"{self.path} could not be copied: {error.strerror}") from error

    async def save(self, configs: Mapping[str, InstanceConfig]) -> None:
        """The file says `configs`, durably, mode 0600. Checkpoints.

        Errors: `StoreFailed`, and then the file says what it said before.
        """
        await self._save(configs)


class StateStore(_Store):
    """What was observed of the instances. Worth keeping, never worth refusing to start for."""

    def load(self) -> tuple[dict[str, InstanceState], str | None]:
        """The states by name, and a warning when the file was broken.

        A broken one is renamed to `<name>.broken-<UTC time>`, and there are no states then.
        Errors: `OSError` when the file can't be read at all.
        """
        content, fingerprint = self._read()
        states, problems = ({}, []) if content is None else read_states(content)
        if not problems:
            self._accepted = fingerprint
            return states, None
        place, reason = problems[0]
        return {}, f"{self.path}: {place}: {reason}; starting without it: {self._set_aside()}"

    def _set_aside(self) -> str:
        target = os.path.realpath(self.path)
        aside = f"{target}.broken-{_moment()}"
        try:
            os.rename(target, aside)
        except OSError as error:
            return f"it could not be set aside ({error.strerror})"
        return f"it is kept as {aside}"

    async def save(self, records: Mapping[str, Mapping[str, Any]]) -> None:
        """The file says `records`, durably, mode 0600. Checkpoints.

        Errors: `StoreFailed`, and then the file says what it said before.
        """
        await self._save(records)


class EarlierData:
    """The file with the earlier system's combined data. Only read, never written. Blocks."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)

    def read(self, limit: int) -> bytes | None:
        """At most `limit` + 1 bytes of it; None if there is no file. Errors: `OSError`."""
        try:
            with open(self.path, "rb") as file:
                return file.read(limit + 1)
        except FileNotFoundError:
            return None

    def back_up(self, content: bytes) -> str:
        """`content` is in `<name>.backup-<UTC time>`, mode 0600, durably. Errors: `OSError`."""
        return _write_beside(os.path.realpath(self.path), "backup", content)


@contextmanager
def open_stores(
    config_path: str | os.PathLike[str],
    state_path: str | os.PathLike[str],
    environ: Mapping[str, str] = os.environ,
) -> Iterator[tuple[ConfigStore, StateStore]]:
    """Both stores, locked against other processes until the end of the block.

    Errors: `FileLocked` when another process has one of them open; `OSError`.
    """
    configs, states = ConfigStore(config_path, environ), StateStore(state_path)
    with configs.locked(), states.locked():
        yield configs, states


def _write_beside(target: str, label: str, content: bytes) -> str:
    beside = f"{target}.{label}-{_moment()}"
    install(beside, content)
    sync_folder(os.path.dirname(beside))
    return beside


def _moment() -> str:
    return f"{datetime.fromtimestamp(wall_now(), UTC):%Y%m%dT%H%M%S.%fZ}"


def _put_back(target: str, old: BinaryIO | None) -> Fingerprint | None:
    if old is None:
        os.unlink(target)
        return None
    return _fingerprint(install(target, old.read()))


def _fingerprint(status: os.stat_result) -> Fingerprint:
    return status.st_ino, status.st_size, status.st_mtime_ns
