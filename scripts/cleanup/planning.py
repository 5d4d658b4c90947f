"""Finds out what is to be done to a deployment; changes nothing."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from . import addresses, dotenv, imports
from .change import Change, Plan
from .survey import Found, NotLookedInto, read, reason, text_files

if TYPE_CHECKING:
    from pathlib import Path

REMOVED = {
    "app/instance/factory.py": "the switch between the two implementations is gone",
    "app/instance/manager.py": "the old instance manager",
    "migration/initialize_new_implementation.py": "the conversion is part of this script",
}
ENV_FILES = (".env", "app/.env")
_CONTEXT = "app/instance/instance_context.py"

_SECRET_VARIABLE = re.compile(
    r"^[ \t]*(?:export[ \t]+)?\w*(?:KEY|SECRET|TOKEN|PASSWORD)\w*[ \t]*=[ \t]*(.*)$", re.MULTILINE
)


def add_text_changes(root: Path, plan: Plan, not_these: set[str]) -> None:
    """Everything but the instances' data: removals, `.env`, old addresses, old imports.

    `not_these`: files that hold data, and are no one's script.
    """
    for path in (*REMOVED, *ENV_FILES):
        if (root / path).is_symlink():
            plan.failures.append((path, "is a symbolic link; see to what it leads to"))
    _add_removals(root, plan)
    for found in text_files(root, plan):
        if found.path not in REMOVED and found.path not in not_these:
            _add_rewriting(root, found, plan)


def _add_removals(root: Path, plan: Plan) -> None:
    for path, why in REMOVED.items():
        if (root / path).is_symlink():
            continue
        try:
            found = read(root, path)
        except (OSError, NotLookedInto) as error:
            plan.failures.append((path, reason(error)))
        else:
            if found is not None:
                _add(plan, found, None, why)


def _add_rewriting(root: Path, found: Found, plan: Plan) -> None:
    # Bytes that are no UTF-8 come back as they were.
    text = found.content.decode("utf-8", "surrogateescape")
    name = PurePosixPath(found.path).name
    done: list[str] = []
    if name == ".env" or name.startswith(".env."):
        plan.secrets.update(_secrets(text))
    if found.path in ENV_FILES:
        text, done = dotenv.cleaned(text)
    elif dotenv.OBSOLETE in text:
        plan.notes.append(f"{found.path} speaks of {dotenv.OBSOLETE}, which means nothing now")
    text, count = addresses.rewritten(text)
    if count:
        done.append(_counted(count, "old address", "old addresses"))
    lines = addresses.doubtful_lines(text)
    if lines:
        where = ", ".join(map(str, lines))
        plan.notes.append(f"{found.path}, line {where}: is this an old address?")
    if found.path.endswith(".py"):
        text, count = _rewrite_imports(root, found.path, text, plan)
        if count:
            done.append(_counted(count, "old import", "old imports"))
    if done:
        _add(plan, found, text.encode("utf-8", "surrogateescape"), "; ".join(done))


def _rewrite_imports(root: Path, path: str, text: str, plan: Plan) -> tuple[str, int]:
    rewritten, count = imports.rewritten(text, PurePosixPath(path).parts[:-1])
    if count and path == _CONTEXT:
        plan.notes.append(
            f"{path} imports a module that is removed; it can't import itself instead"
        )
        return text, 0
    if count and not (root / _CONTEXT).exists():
        plan.notes.append(f"{path} now imports {imports.PACKAGE}.{imports.NEW}, which isn't here")
    return rewritten, count


def _add(plan: Plan, found: Found, after: bytes | None, why: str) -> None:
    if after is not None and not found.mode & 0o222:
        plan.failures.append((found.path, "is write-protected"))
        return
    change = Change(found.path, found.content, after, found.mode, found.modified_ns, why)
    plan.changes.append(change)


def _secrets(text: str) -> set[str]:
    return {value.strip().strip("\"'") for value in _SECRET_VARIABLE.findall(text)}


def _counted(count: int, one: str, many: str) -> str:
    return f"{count} {one if count == 1 else many}"
