"""Replaces a file as a whole: whoever reads it finds the old content or the new, never a part.

Only the standard library, because scripts use it under any Python.
"""

from __future__ import annotations

import errno
import os
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
    folder, name = os.path.split(target)
    # The name that the service itself gives to such a file, so that it clears away what a killed
    # script has left.
    temporary = os.path.join(folder, f".{name}.{secrets.token_hex(8)}.tmp")
    try:
        write_new(temporary, content, mode)
        _keep_owner(target, temporary)
        os.replace(temporary, target)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise
    sync_folder(folder)


def write_new(path: str | os.PathLike[str], content: bytes, mode: int = PRIVATE) -> None:
    """A file that was not there says `content` and is on the disk; its folder is not yet."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with open(descriptor, "wb") as file:
        os.fchmod(file.fileno(), mode)
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


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


def _keep_owner(target: str, temporary: str) -> None:
    """Root may work on the files of a service that runs as somebody else."""
    if os.geteuid() != 0:
        return
    with suppress(FileNotFoundError):
        before = os.stat(target)
        os.chown(temporary, before.st_uid, before.st_gid)
