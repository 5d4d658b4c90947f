"""Replaces a file as a whole: whoever reads it finds the old content or the new, never a part.

A temporary file in the same folder, fsync, rename, fsync of the folder. Everything here blocks on
the disk, and needs only the standard library, because scripts use it under any Python.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
from contextlib import suppress

PRIVATE = 0o600
_NO_FOLDER_SYNC = frozenset({errno.EINVAL, errno.ENOTSUP})
"""Some network and user-space filesystems can't fsync a folder; there is nothing more to do."""


def replace(path: str | os.PathLike[str], content: bytes, mode: int = PRIVATE) -> None:
    """`path` says `content`, durably, with `mode` and its former owner; a link is written through.

    Errors: `OSError`, and then the file is as it was.
    """
    target = os.path.realpath(path)
    install(target, content, mode, _owner_to_keep(target))
    sync_folder(os.path.dirname(target))


def install(
    target: str, content: bytes, mode: int = PRIVATE, owner: tuple[int, int] | None = None
) -> os.stat_result:
    """`target` says `content`; its folder has not been synced yet. Returns its status as it was
    written, whoever may change it since. `owner`: user and group, if not this process's.

    Errors: `OSError`, and then the file is as it was.
    """
    folder, name = os.path.split(target)
    temporary = os.path.join(folder, f".{name}.{secrets.token_hex(8)}.tmp")
    try:
        status = write_new(temporary, content, mode)
        if owner is not None:
            os.chown(temporary, *owner)
        os.rename(temporary, target)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise
    return status


def remove_leftovers(target: str) -> None:
    """Removes temporary files of a process that was killed while it replaced `target`."""
    folder, name = os.path.split(target)
    ours = re.compile(rf"\.{re.escape(name)}\.[0-9a-f]{{16}}\.tmp")
    with os.scandir(folder) as entries:
        for entry in entries:
            if ours.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                os.unlink(entry.path)


def write_new(path: str | os.PathLike[str], content: bytes, mode: int = PRIVATE) -> os.stat_result:
    """A file that was not there says `content` and is on the disk; its folder is not yet."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with open(descriptor, "wb") as file:
        os.fchmod(descriptor, mode)
        file.write(content)
        file.flush()
        os.fsync(descriptor)
        return os.fstat(descriptor)


def sync_folder(folder: str | os.PathLike[str]) -> None:
    """What was created, renamed or removed in `folder` is on the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_FOLDER_SYNC:
            raise
    finally:
        os.close(descriptor)


def _owner_to_keep(target: str) -> tuple[int, int] | None:
    """Root may work on the files of a service that runs as somebody else."""
    if os.geteuid() != 0:
        return None
    try:
        before = os.stat(target)
    except FileNotFoundError:
        return None
    return before.st_uid, before.st_gid
