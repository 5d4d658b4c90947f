"""`backup_old_implementation/`: what the files were before, so that each run can be undone.

There is a numbered folder for each run that changed something, with copies of the files as they
were and a manifest of what was done. It is complete before the first file is touched.
"""

from __future__ import annotations

import json
import os
import shutil
from datetime import UTC, datetime
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from actors.whole_file import replace, sync_folder, write_new

from .survey import BACKUP_FOLDER

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from .change import Change, Plan

MANIFEST = "manifest.json"
ASIDE = "unknown_fields.json"
CHANGED_SINCE = "changed_since"
_FORMAT = 1


class BackupUnusable(Exception):
    """The backup is not what it should be; the text says what is wrong."""


class Safekeeping:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.folder = root / BACKUP_FOLDER

    def runs(self) -> list[Path]:
        """The oldest first."""
        if not self.folder.is_dir():
            return []
        numbers = sorted(int(name) for name in os.listdir(self.folder) if name.isdecimal())
        return [self.folder / str(number) for number in numbers]

    def keep(self, plan: Plan) -> Path:
        """A new run with everything that undoing `plan` takes. Errors: `OSError`; nothing is
        kept then."""
        self._make_folder()
        runs = self.runs()
        run = self.folder / str(int(runs[-1].name) + 1 if runs else 1)
        run.mkdir(mode=0o700)
        try:
            before = {change.path: change.before for change in plan.changes}
            for path, content in {**plan.copies, **before}.items():
                if content is not None:
                    copy = _copy(run, path)
                    copy.parent.mkdir(parents=True, exist_ok=True)
                    write_new(copy, content)
            if plan.aside:
                write_new(run / ASIDE, _json(plan.aside))
            self.record(run, plan.changes)
        except BaseException:
            shutil.rmtree(run, ignore_errors=True)
            raise
        sync_folder(self.folder)
        return run

    def record(self, run: Path, changes: list[Change]) -> None:
        """The run's manifest says `changes`; a run without any is removed."""
        if not changes:
            self.remove(run)
            return
        entries = [_entry(change) for change in changes]
        replace(run / MANIFEST, _json({"format": _FORMAT, "changes": entries}))

    def touched(self) -> set[str]:
        """The paths of everything that can be undone. Errors: `BackupUnusable`."""
        return {entry["path"] for run in self.runs() for entry in _entries(run)}

    def undo(self, run: Path) -> Iterator[tuple[str, str, str | None]]:
        """Undoes one run and removes it. Yields (path, what was done, why it could not be done).

        What has been changed since is kept, below `changed_since/`. If anything fails the run
        stays, to be undone again. Errors: `BackupUnusable`, before anything is done.
        """
        undone = [(entry, _before(run, entry)) for entry in _entries(run)]
        failed = False
        for entry, before in reversed(undone):
            path = entry["path"]
            try:
                yield path, self._put_back(entry, before), None
            except OSError as error:
                failed = True
                yield path, "", error.strerror or str(error)
        if not failed:
            self.remove(run)

    def remove(self, run: Path) -> None:
        """Without it; without the whole folder if nothing is left in it."""
        shutil.rmtree(run)
        if set(os.listdir(self.folder)) <= {".gitignore"}:
            shutil.rmtree(self.folder)

    def _make_folder(self) -> None:
        if not self.folder.is_dir():
            self.folder.mkdir(mode=0o700)
            # There are keys in here, which must not be committed by mistake.
            write_new(self.folder / ".gitignore", b"*\n")

    def _put_back(self, entry: dict[str, Any], before: bytes | None) -> str:
        """What was done, in words; "" if it was as before already."""
        path = self.root / entry["path"]
        try:
            present = path.read_bytes()
        except FileNotFoundError:
            present = None
        if present == before:
            return ""
        words = "put back" if before is not None else "removed"
        if present is not None and _digest(present) != entry["after_sha256"]:
            moment = f"{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}"
            kept = _copy(self.folder / CHANGED_SINCE / moment, entry["path"])
            kept.parent.mkdir(parents=True, exist_ok=True)
            write_new(kept, present)
            words += f"; what it said is kept as {kept.relative_to(self.root)}"
        if before is None:
            path.unlink()
            sync_folder(path.parent)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            replace(path, before, entry["mode"])
            os.utime(path, ns=(entry["modified_ns"], entry["modified_ns"]))
        return words


def _copy(folder: Path, path: str) -> Path:
    """Where the copy of `path` is in `folder`; an absolute path goes below it too."""
    return folder / "files" / path.lstrip("/")


def _entry(change: Change) -> dict[str, Any]:
    return {
        "path": change.path,
        "done": change.verb,
        "why": change.why,
        "mode": change.mode,
        "modified_ns": change.modified_ns,
        "before_sha256": _digest(change.before),
        "after_sha256": _digest(change.after),
    }


def _entries(run: Path) -> list[dict[str, Any]]:
    """Errors: `BackupUnusable`."""
    try:
        manifest = json.loads(run.joinpath(MANIFEST).read_bytes())
        entries: list[dict[str, Any]] = manifest["changes"]
        known = manifest["format"] == _FORMAT
    except (OSError, ValueError, KeyError, TypeError):
        raise BackupUnusable(f"{run / MANIFEST} can't be read") from None
    if not known:
        raise BackupUnusable(f"{run} was made by another version of this script")
    return entries


def _before(run: Path, entry: dict[str, Any]) -> bytes | None:
    """Errors: `BackupUnusable`."""
    if entry["before_sha256"] is None:
        return None
    copy = _copy(run, entry["path"])
    try:
        content = copy.read_bytes()
    except OSError as error:
        raise BackupUnusable(f"{copy}: {error.strerror}") from None
    if _digest(content) != entry["before_sha256"]:
        raise BackupUnusable(f"{copy} is not what was backed up")
    return content


def _digest(content: bytes | None) -> str | None:
    return None if content is None else sha256(content).hexdigest()


def _json(document: object) -> bytes:
    text = json.dumps(document, indent=2, ensure_ascii=False)
    return text.encode("utf-8", "backslashreplace") + b"\n"
