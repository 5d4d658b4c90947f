"""The folder of backups: one folder for each, which is whole as soon as it has its name.

A backup holds both files, what the service remembers beside them of owners, and a manifest with
time, sizes and SHA-256 of each. Its name is the UTC time at which it was made. Only this account
can read it: configurations hold keys.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from actors.whole_file import PRIVATE, sync_folder, write_new

from .pair import Pair

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from .pair import Part

FILES: dict[Part, str] = {
    "config": "instance_configs.json",
    "state": "instance_states.json",
    "owners": "instance_states.json.owners.jsonl",
}
MANIFEST = "manifest.json"
LATEST = "latest"
_FORMAT = 1
_ID = re.compile(r"\d{8}T\d{6}\.\d{6}Z")
_UNFINISHED = ".unfinished-"


class BackupDamaged(Exception):
    """A backup is not what its manifest says, or has none. The text says what is wrong."""


class NoSuchBackup(Exception):
    """There is no backup of this name."""


@dataclass(frozen=True, slots=True)
class Backup:
    folder: Path

    @property
    def id(self) -> str:
        return self.folder.name

    def manifest(self) -> dict[str, Any]:
        """Errors: `BackupDamaged`."""
        try:
            manifest = json.loads(self.folder.joinpath(MANIFEST).read_bytes())
            # Backups from before owners were among them are as good as ever.
            manifest["files"].setdefault("owners", None)
            entries = [manifest["files"][part] for part in FILES]
            if manifest["format"] != _FORMAT:
                raise BackupDamaged(f"{self.id} was made by another version of this script")
            if all(entry is None or {"bytes", "sha256"} <= set(entry) for entry in entries):
                return dict(manifest)
        except (OSError, ValueError, KeyError, TypeError):
            pass
        raise BackupDamaged(f"{self.id}: {MANIFEST} can't be read")

    def pair(self) -> Pair:
        """What was backed up, checked against the manifest. Errors: `BackupDamaged`."""
        files = self.manifest()["files"]
        contents = [self._checked(part, files[part]) for part in FILES]
        return Pair(*contents)

    def _checked(self, part: Part, entry: dict[str, Any] | None) -> bytes | None:
        if entry is None:
            return None
        name = FILES[part]
        try:
            content = self.folder.joinpath(name).read_bytes()
        except OSError as error:
            raise BackupDamaged(f"{self.id}: {name}: {error.strerror}") from None
        if (len(content), sha256(content).hexdigest()) != (entry["bytes"], entry["sha256"]):
            raise BackupDamaged(f"{self.id}: {name} is not what was backed up")
        return content


class Archive:
    """All backups in one folder. What else is in it is left alone."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def backups(self) -> list[Backup]:
        """The oldest first, damaged ones included."""
        try:
            names = sorted(filter(_ID.fullmatch, os.listdir(self.folder)))
        except FileNotFoundError:
            return []
        return [Backup(self.folder / name) for name in names]

    def find(self, name: str) -> Backup:
        """Errors: `NoSuchBackup`."""
        backups = self.backups()
        if name == LATEST and backups:
            return backups[-1]
        for backup in backups:
            if backup.id == name:
                return backup
        there = f"there are {len(backups)}; see `list`" if backups else "there are none"
        raise NoSuchBackup(f"{self.folder} has no backup {name}: {there}")

    def add(self, pair: Pair, sources: dict[Part, str], now: datetime, note: str = "") -> Backup:
        """A new backup, read back from the disk and found to be right.

        Errors: `OSError`, `BackupDamaged`; then there is none.
        """
        with self._locked():
            name = _fresh_name(self.folder, now)
            unfinished = self.folder / f"{_UNFINISHED}{name}"
            unfinished.mkdir(mode=0o700)
            try:
                manifest = _manifest(pair, sources, name, note)
                for part, file in FILES.items():
                    if (content := pair.of(part)) is not None:
                        write_new(unfinished / file, content)
                text = json.dumps(manifest, indent=2, ensure_ascii=False)
                write_new(unfinished / MANIFEST, text.encode("utf-8", "backslashreplace") + b"\n")
                sync_folder(unfinished)
                if Backup(unfinished).pair() != pair:
                    raise BackupDamaged(f"{name} was not written as it should be")
                unfinished.rename(self.folder / name)
            except BaseException:
                shutil.rmtree(unfinished, ignore_errors=True)
                raise
            sync_folder(self.folder)
        return Backup(self.folder / name)

    def rotate(self, keep: int) -> list[str]:
        """Removes the oldest so that `keep` remain, none if 0. The names of those removed."""
        removed = []
        with self._locked():
            for backup in self.backups()[:-keep] if keep else []:
                # Renamed first: half a backup must not look like a whole one.
                going = self.folder / f"{_UNFINISHED}{backup.id}"
                backup.folder.rename(going)
                shutil.rmtree(going)
                removed.append(backup.id)
        return removed

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One process at a time; what a killed one has left is cleared away."""
        if not self.folder.is_dir():
            self.folder.mkdir(parents=True, mode=0o700)
            # There are keys in here, which must not be committed by mistake.
            write_new(self.folder / ".gitignore", b"*\n")
        descriptor = os.open(self.folder / ".lock", os.O_RDWR | os.O_CREAT, PRIVATE)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            for name in os.listdir(self.folder):
                if name.startswith(_UNFINISHED):
                    shutil.rmtree(self.folder / name)
            yield
        finally:
            os.close(descriptor)


def _fresh_name(folder: Path, now: datetime) -> str:
    while (folder / f"{now:%Y%m%dT%H%M%S.%fZ}").exists():
        now += timedelta(microseconds=1)
    return f"{now:%Y%m%dT%H%M%S.%fZ}"


def _manifest(pair: Pair, sources: dict[Part, str], name: str, note: str) -> dict[str, Any]:
    made = datetime.strptime(name, "%Y%m%dT%H%M%S.%fZ").replace(tzinfo=UTC)
    return {
        "format": _FORMAT,
        "created": made.isoformat(),
        **({"note": note} if note else {}),
        "files": {part: _entry(pair.of(part), os.path.abspath(sources[part])) for part in FILES},
    }


def _entry(content: bytes | None, source: str) -> dict[str, Any] | None:
    if content is None:
        return None
    return {"source": source, "bytes": len(content), "sha256": sha256(content).hexdigest()}
