"""Makes the changes of a plan, once everything that undoing them takes has been kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

from actors.whole_file import replace, sync_folder

from . import conversion
from .survey import reason

if TYPE_CHECKING:
    from pathlib import Path

    from .change import Change, Plan
    from .conversion import Places


class ChangedMeanwhile(Exception):
    """A file does not say any more what it said when its change was planned."""


def apply(root: Path, where: Places, plan: Plan) -> list[Change]:
    """The changes that were made; why the others were not is among the failures of `plan`."""
    data = [change for change in plan.changes if change.path in where.instances]
    done = _made(root, [change for change in plan.changes if change not in data], plan)
    if data:
        try:
            with conversion.no_service_runs_on(root, where):
                done += _made(root, data, plan)
        except conversion.Obstacle as why:
            plan.failures += [(change.path, str(why)) for change in data]
    return done


def _made(root: Path, changes: list[Change], plan: Plan) -> list[Change]:
    done = []
    for change in changes:
        try:
            _make(root / change.path, change)
        except OSError as error:
            plan.failures.append((change.path, reason(error)))
        except ChangedMeanwhile:
            plan.failures.append((change.path, "was changed meanwhile; run this again"))
        else:
            done.append(change)
    return done


def _make(path: Path, change: Change) -> None:
    """Errors: `OSError`, `ChangedMeanwhile`."""
    if _content(path) != change.before:
        raise ChangedMeanwhile
    if change.after is None:
        path.unlink()
        sync_folder(path.parent)
    else:
        replace(path, change.after, change.mode)


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
