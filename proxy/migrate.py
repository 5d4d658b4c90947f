"""`python -m proxy migrate FILE`: the earlier system's data become instances, while the service is
stopped. While it runs, its admin API does the same."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from actors.documents import MAX_BYTES
from actors.errors import ChangeRefused, FileLocked
from actors.migration import plan_migration, read_document
from actors.store import ConfigStore, EarlierData, open_stores
from proxy.settings import load_settings

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Mapping

    from actors.migration import MigrationPlan
    from actors.models import InstanceConfig
    from actors.store import StateStore
    from proxy.settings import Settings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, metavar="FILE", help="JSON or YAML")
    parser.add_argument(
        "--overwrite", action="store_true", help="replace settings of instances that exist already"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="say what would be done, and do nothing"
    )


def run(options: argparse.Namespace) -> int:
    """0 if everything in the file is in place now, else 1.

    Errors: `BrokenFile`, `SettingsError`, `OSError` when a file can't be read.
    """
    settings = load_settings(os.environ)
    options.file.stat()  # a file that was named has to be there
    content = EarlierData(options.file).read(MAX_BYTES) or b""
    document = read_document(content, str(options.file))
    try:
        if options.dry_run:
            existing = ConfigStore(settings.instance_config_file).load()
            plan = plan_migration(document, existing, overwrite=options.overwrite)
        else:
            plan = _migrate(settings, options, content, document)
    except FileLocked:
        print(_while_running(settings, options), file=sys.stderr)
        return 1
    except ChangeRefused as error:
        print(f"Nothing was migrated: {error}", file=sys.stderr)
        return 1
    for line in _report(plan, dry_run=options.dry_run):
        print(line)
    return 1 if plan.skipped else 0


def _migrate(
    settings: Settings, options: argparse.Namespace, content: bytes, document: object
) -> MigrationPlan:
    with open_stores(settings.instance_config_file, settings.instance_state_file) as stores:
        config_store, state_store = stores
        existing = config_store.load()
        plan = plan_migration(document, existing, overwrite=options.overwrite)
        if plan.configs:
            print(f"backup: {EarlierData(options.file).back_up(content)}")
            trio.run(_save, config_store, state_store, existing, plan)
        return plan


async def _save(
    config_store: ConfigStore,
    state_store: StateStore,
    existing: Mapping[str, InstanceConfig],
    plan: MigrationPlan,
) -> None:
    """The configuration last: whatever happens in between, a second run completes the first."""
    states, warning = state_store.load()
    if warning:
        print(f"warning: {warning}")
    records = {name: state.model_dump() for name, state in {**states, **plan.states}.items()}
    await state_store.save(records)
    await config_store.save({**existing, **plan.configs})


def _while_running(settings: Settings, options: argparse.Namespace) -> str:
    query = "?overwrite=true" if options.overwrite else ""
    return (
        f"The service is running with {settings.instance_config_file}. Let it do the migration:\n"
        f"  curl -X POST --data-binary @{options.file} -H 'X-Admin-API-Key: ...' "
        f"'http://{settings.host}:{settings.port}/admin/instances/migrate{query}'"
    )


def _report(plan: MigrationPlan, *, dry_run: bool) -> Iterator[str]:
    for warning in plan.warnings:
        yield f"warning: {warning}"
    for name, fields in plan.unknown.items():
        yield f"unknown: {name}: {', '.join(fields)} (kept in the old file only)"
    for name, reason in plan.skipped.items():
        yield f"skipped: {name}: {reason}"
    for name in plan.unchanged:
        yield f"unchanged: {name}"
    for name in plan.configs:
        yield f"{'would be migrated' if dry_run else 'migrated'}: {name}"
    if dry_run or not plan.configs:
        yield "Nothing was written."
