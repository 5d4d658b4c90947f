"""The earlier system's combined data, converted into the configuration and state files.

The only part that needs the project's environment.
"""

from __future__ import annotations

import os
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backups.records import EveryVariable
from project_environment import HOW_TO_MAKE_IT

from .change import Change, Plan
from .survey import NotLookedInto, read, reason

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from actors.migration import MigrationPlan
    from actors.models import InstanceConfig, InstanceState

DATA_FILES = ("instance_data.json", "instance_data.yaml", "instance_data.yml")
_DATA_VARIABLES = ("INSTANCE_DATA_FILE", "INSTANCE_MANAGER_STATE_FILE")
"""Ours, and that of the earlier system."""

_IN_USE = (
    "a service runs on it; stop it first (into a running one, "
    "POST /admin/instances/migrate converts the data)"
)


class Obstacle(Exception):
    """Why the instances' data is left as it is. `path`: of the file that is in the way."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(reason)
        self.path = path


@dataclass(frozen=True, slots=True)
class Places:
    """Files, relative to the root or absolute."""

    data: list[str]
    config: str
    state: str

    @property
    def instances(self) -> tuple[str, str]:
        return self.config, self.state


def places(root: Path, named: list[str], variables: Mapping[str, str]) -> Places:
    """`named`: data files that have to be there. If none are, those that happen to be there."""
    candidates = [*(variables[name] for name in _DATA_VARIABLES if name in variables), *DATA_FILES]
    data = named or [each for each in candidates if (root / each).is_file()]
    return Places(
        list(dict.fromkeys(_from(root, each) for each in data)),
        _from(root, variables.get("INSTANCE_CONFIG_FILE", "instance_configs.json")),
        _from(root, variables.get("INSTANCE_STATE_FILE", "instance_states.json")),
    )


def _from(root: Path, path: str) -> str:
    """`path` relative to the root if it is below it."""
    absolute = Path(os.path.abspath(root / path))
    below = absolute.is_relative_to(root)
    return absolute.relative_to(root).as_posix() if below else str(absolute)


def add_conversion(root: Path, where: Places, plan: Plan) -> None:
    """What `where.data` asks for is in `plan`. Instances that exist already are left alone."""
    try:
        _convert(root, where, plan)
    except Obstacle as why:
        plan.failures.append((why.path, str(why)))


@contextmanager
def no_service_runs_on(root: Path, where: Places) -> Iterator[None]:
    """While inside, no service can be started on the two files. Errors: `Obstacle`."""
    try:
        from actors.errors import FileLocked
        from actors.store import open_stores
    except ModuleNotFoundError:
        raise Obstacle(where.config, HOW_TO_MAKE_IT) from None
    config, state = root / where.config, root / where.state
    locks = [Path(f"{os.path.realpath(path)}.lock") for path in (config, state)]
    new_locks = [lock for lock in locks if not lock.exists()]
    with ExitStack() as stack:
        try:
            stack.enter_context(open_stores(config, state))
        except FileLocked:
            raise Obstacle(where.config, _IN_USE) from None
        except OSError as error:
            raise Obstacle(where.config, reason(error)) from None
        for lock in new_locks:
            # Whoever comes between this and the release finds that it has locked a deleted file.
            stack.callback(lock.unlink, missing_ok=True)
        yield


def _convert(root: Path, where: Places, plan: Plan) -> None:
    """Errors: `Obstacle`."""
    from actors.records import read_configs, read_states

    configs = _existing(root, where.config, lambda text: read_configs(text, EveryVariable()))
    states = _existing(root, where.state, read_states)
    plan.secrets.update(config.api_key for config in configs.values())
    converted = []
    for path in where.data:
        try:
            content, migration = _migration(root, path, configs)
        except Obstacle as why:
            plan.failures.append((why.path, str(why)))
            continue
        _tell(path, migration, plan)
        configs |= migration.configs
        states |= migration.states
        plan.secrets.update(config.api_key for config in migration.configs.values())
        if migration.configs:
            plan.copies[path] = content
            count = len(migration.configs)
            converted.append(f"{count} instance{'' if count == 1 else 's'} from {path}")
    if converted:
        origin = ", ".join(converted)
        _add_writing(root, where.config, configs, origin, plan)
        _add_writing(root, where.state, states, origin, plan)


def _existing(root: Path, path: str, reader: Any) -> dict[str, Any]:
    """Errors: `Obstacle`: a broken file must not be written over."""
    content = _content(root, path)
    if content is None:
        return {}
    records, problems = reader(content)
    if problems:
        place, why = problems[0]
        raise Obstacle(path, f"{place}: {why}; mend it first, nothing was converted")
    return dict(records)


def _migration(
    root: Path, path: str, existing: dict[str, InstanceConfig]
) -> tuple[bytes, MigrationPlan]:
    """What is in the file, and what it asks for. Errors: `Obstacle`."""
    from actors.errors import BrokenFile, InvalidChange
    from actors.migration import plan_migration, read_document

    content = _content(root, path)
    if content is None:
        raise Obstacle(path, "does not exist")
    try:
        document = read_document(content, path)
        return content, plan_migration(document, existing, overwrite=False)
    except BrokenFile as error:
        raise Obstacle(path, f"{error.place}: {error.reason}") from None
    except InvalidChange as error:
        raise Obstacle(path, str(error)) from None


def _content(root: Path, path: str) -> bytes | None:
    try:
        found = read(root, path)
    except (OSError, NotLookedInto) as error:
        raise Obstacle(path, reason(error)) from None
    return None if found is None else found.content


def _tell(path: str, migration: MigrationPlan, plan: Plan) -> None:
    plan.notes += [f"{path}: {name} was skipped: {why}" for name, why in migration.skipped.items()]
    if not migration.configs:
        return
    plan.notes += [f"{path}: {warning}" for warning in migration.warnings]
    for name in migration.configs.keys() & migration.unknown.keys():
        fields = migration.unknown[name]
        plan.aside[name] = fields
        plan.notes.append(f"{path}: {name} has fields without a meaning here: {', '.join(fields)}")


def _add_writing(
    root: Path,
    path: str,
    records: dict[str, InstanceConfig] | dict[str, InstanceState],
    why: str,
    plan: Plan,
) -> None:
    from actors.records import written

    found, after = read(root, path), written(records)
    if found is None:
        plan.changes.append(Change(path, None, after, 0o600, 0, why))
    else:
        plan.changes.append(Change(path, found.content, after, found.mode, found.modified_ns, why))
