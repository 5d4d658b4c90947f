"""What `backup_monitor.py` does: one function for each command; it returns the exit status."""

from __future__ import annotations

import argparse
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import project_environment
from project_environment import HOW_TO_MAKE_IT

from . import offline, online, records
from .archive import Archive, Backup, BackupDamaged, NoSuchBackup
from .pair import NoPair, paths, read_pair
from .service import Service, ServiceFailed
from .watch import Watcher

if TYPE_CHECKING:
    from collections.abc import Callable

    from .records import Kind, Records
    from .voice import Voice

DONE, FAILED = 0, 1
_FAILURES = (BackupDamaged, NoPair, NoSuchBackup, ServiceFailed)


def run(options: argparse.Namespace, voice: Voice) -> int:
    """Runs the command that `options` name. What an operator can mend is said, not raised."""
    try:
        return _COMMANDS[options.command](options, voice)
    except _FAILURES as error:
        voice.fail(str(error))
    except OSError as error:
        voice.fail(_said(error))
    return FAILED


def backup(options: argparse.Namespace, voice: Voice) -> int:
    archive = Archive(options.backup_dir)
    pair = read_pair(options.config_file, options.state_file)
    where = paths(options.config_file, options.state_file)
    made = archive.add(pair, where, datetime.now(UTC))
    removed = archive.rotate(options.max_backups)
    files = made.manifest()["files"]
    text = f"backed up to {made.folder}: {_sizes(files)}"
    if files["state"] is None:
        text += f"; {options.state_file} is not there yet"
    if removed:
        text += f"; {len(removed)} older removed"
    voice.say("backup", text, backup=made.id, folder=str(made.folder), files=files, removed=removed)
    return DONE


def job(options: argparse.Namespace, voice: Voice) -> int:
    """Until it is interrupted, at fixed times; what fails once is tried again the next time."""
    status, due = DONE, time.monotonic()
    try:
        while True:
            status = run(argparse.Namespace(**{**vars(options), "command": "backup"}), voice)
            due += options.interval
            time.sleep(max(0.0, due - time.monotonic()))
    except KeyboardInterrupt:
        return status


def monitor(options: argparse.Namespace, voice: Voice) -> int:
    """Until it is interrupted, or one look with `--once`."""
    service = Service(options.url)
    watchers = [
        Watcher(path, records.kind_of(path), options.alert_after, service.is_up)
        for path in options.files
    ]
    if not records.fully_checked():
        text = f"checking no more than the shape of the records: {HOW_TO_MAKE_IT}"
        voice.say("notice", text, message=text)
    try:
        while True:
            for watcher in watchers:
                _look(watcher, voice)
            if options.once:
                break
            time.sleep(options.interval)
    except KeyboardInterrupt:
        pass
    return FAILED if any(watcher.in_trouble for watcher in watchers) else DONE


def restore(options: argparse.Namespace, voice: Voice) -> int:
    archive = Archive(options.backup_dir)
    chosen = archive.find(options.backup)
    configs, states = _records(chosen, "config"), _records(chosen, "state")
    if options.url:
        return _restore_online(options, chosen, configs, states, voice)
    return _restore_offline(options, chosen, archive, voice)


def list_backups(options: argparse.Namespace, voice: Voice) -> int:
    status = DONE
    backups = Archive(options.backup_dir).backups()
    for each in backups:
        try:
            each.pair()
            manifest = each.manifest()
        except BackupDamaged as error:
            status = FAILED
            voice.say("damaged", f"{each.id}  DAMAGED: {error}", backup=each.id, reason=str(error))
            continue
        note = manifest.get("note", "")
        text = f"{each.id}  {_sizes(manifest['files'])}" + (f"  ({note})" if note else "")
        voice.say("backup", text, backup=each.id, files=manifest["files"], note=note)
    if not backups:
        voice.say("none", f"there are no backups in {options.backup_dir}", backups=0)
    return status


_COMMANDS: dict[str, Callable[[argparse.Namespace, Voice], int]] = {
    "backup": backup,
    "job": job,
    "monitor": monitor,
    "restore": restore,
    "list": list_backups,
}


def _look(watcher: Watcher, voice: Voice) -> None:
    for event in watcher.look(time.time()):
        text = f"{'ALERT ' if event.alert else ''}{watcher.path}: {event.text}"
        voice.say(event.kind, text, file=watcher.path, alert=event.alert, **event.facts)


def _records(chosen: Backup, kind: Kind) -> Records:
    """Errors: `BackupDamaged`, also for what the service would refuse."""
    content = chosen.pair().of(kind)
    found = records.Content() if content is None else records.read(content, kind)
    if found.problems:
        raise BackupDamaged(f"{chosen.id}: {kind}: {found.problems[0]}")
    return found.records


def _restore_offline(
    options: argparse.Namespace, chosen: Backup, archive: Archive, voice: Voice
) -> int:
    if not project_environment.enter("trio", "filelock", "pydantic"):
        voice.fail(HOW_TO_MAKE_IT)
        return FAILED
    from actors.errors import FileLocked

    try:
        kept = offline.restore(
            chosen, options.config_file, options.state_file, archive, datetime.now(UTC)
        )
    except FileLocked as error:
        voice.fail(f"{error}; --url restores into the running service")
        return FAILED
    text = f"restored {chosen.id} to {options.config_file} and {options.state_file}"
    if kept:
        text += f"; what they said before is backup {kept.id}"
    voice.say("restored", text, backup=chosen.id, kept=kept and kept.id)
    return DONE


def _restore_online(
    options: argparse.Namespace, chosen: Backup, configs: Records, states: Records, voice: Voice
) -> int:
    if not options.admin_key:
        voice.fail("the admin key is missing: set ADMIN_API_KEY")
        return FAILED
    service = Service(options.url, options.admin_key)
    report = online.Report()
    try:
        online.restore(service, configs, states, report)
    finally:
        for text in report.done:
            voice.say("done", text, message=text)
        for text in report.failed:
            voice.fail(text)
    verdict = "with failures" if report.failed else "completely"
    text = f"restored {chosen.id} into {service.url} {verdict}"
    voice.say("restored", text, backup=chosen.id, url=service.url, failures=len(report.failed))
    return FAILED if report.failed else DONE


def _sizes(files: dict[str, dict[str, object] | None]) -> str:
    return ", ".join(f"{kind} {entry['bytes']} bytes" for kind, entry in files.items() if entry)


def _said(error: OSError) -> str:
    return f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror)
