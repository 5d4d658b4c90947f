"""Restoring while the service does not run: both files are replaced.

What the service remembers of owners is put back only where it is gone: a later memory knows more,
and what it says of ids never becomes wrong.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from actors.whole_file import replace, sync_folder

from .pair import paths, read_pair

if TYPE_CHECKING:
    from datetime import datetime

    from .archive import Archive, Backup


def restore(
    backup: Backup, config_path: str, state_path: str, archive: Archive, now: datetime
) -> Backup | None:
    """Both files say what `backup` says; what they said before is a backup too, and returned.

    None if there was nothing else to keep. Needs the project's environment.
    Errors: `FileLocked` if a service runs on these files; `BackupDamaged`, `NoPair`, `OSError`.
    """
    from actors.store import open_stores

    wanted = backup.pair()
    with open_stores(config_path, state_path):
        present = read_pair(config_path, state_path, any_content=True)
        where = paths(config_path, state_path)
        kept = None
        said = present.config, present.state
        if said not in ((wanted.config, wanted.state), (None, None)):
            kept = archive.add(present, where, now, f"before {backup.id} was restored")
        if present.owners is None:
            _put(where["owners"], wanted.owners)
        _put(config_path, wanted.config)
        _put(state_path, wanted.state)
    return kept


def _put(path: str, content: bytes | None) -> None:
    if content is not None:
        replace(path, content)
    elif os.path.exists(path):
        os.unlink(path)
        sync_folder(os.path.dirname(os.path.abspath(path)))
