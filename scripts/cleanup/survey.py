"""Which files of a folder are looked into, and what is in them."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from project_environment import REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .change import Plan

BACKUP_FOLDER = "backup_old_implementation"
LARGEST_BYTES = 4 * 1024 * 1024
"""A script or a page is smaller; what is larger was made by a program, from something smaller."""

# fmt: off
SUFFIXES = frozenset((
    ".bash", ".bat", ".bru", ".cfg", ".cjs", ".cmd", ".conf", ".cs", ".curl", ".env", ".fish",
    ".go", ".hcl", ".html", ".http", ".ini", ".ipynb", ".j2", ".java", ".jinja", ".js", ".json",
    ".jsx", ".kt", ".lua", ".markdown", ".md", ".mjs", ".php", ".pl", ".ps1", ".psm1", ".py", ".rb",
    ".rest", ".rs", ".rst", ".sh", ".tf", ".toml", ".ts", ".tsx", ".txt", ".yaml", ".yml", ".zsh",
))
NAMES = frozenset(("Dockerfile", "Jenkinsfile", "Justfile", "Makefile", "Procfile", "justfile"))
_NOT_ENTERED = frozenset((
    ".git", ".hg", ".svn", "node_modules", "__pycache__", "site-packages", ".tox", ".nox",
    ".mypy_cache", ".pytest_cache", ".ruff_cache", BACKUP_FOLDER, "backups",
))
_OURS = frozenset((
    ".ci", ".github", "actors", "docs", "proxy", "scripts", "tests", "README.md", "CHANGELOG.md",
    "pyproject.toml", "constraints.txt", ".env.example", "LICENSE", "Dockerfile",
))
# fmt: on
"""What this project brings along, if the folder is a checkout of it: that speaks of old
addresses on purpose."""


class NotLookedInto(Exception):
    """Something that is no regular file, or too large for one that somebody wrote."""


@dataclass(frozen=True, slots=True)
class Found:
    """A regular file. `path`: relative to the root, with `/`."""

    path: str
    content: bytes
    mode: int
    modified_ns: int


def text_files(root: Path, plan: Plan) -> Iterator[Found]:
    """The scripts and documents below `root`, in order; `plan` is told what can't be read."""

    def failed(error: OSError) -> None:
        plan.failures.append((os.path.relpath(error.filename, root), reason(error)))

    for folder, folders, names in os.walk(root, onerror=failed):
        folders[:] = sorted(name for name in folders if _entered(Path(folder, name)))
        for name in sorted(names):
            path = Path(folder, name)
            if path.is_symlink() or not _is_interesting(path) or _is_ours(path):
                continue
            relative = path.relative_to(root).as_posix()
            try:
                found = read(root, relative)
            except NotLookedInto as why:
                plan.notes.append(f"{relative} {why}; it was not looked into")
            except OSError as error:
                plan.failures.append((relative, reason(error)))
            else:
                if found is not None and b"\0" not in found.content:
                    yield found


def read(root: Path, path: str) -> Found | None:
    """The file, or None if there is none. Errors: `OSError`, `NotLookedInto`."""
    try:
        with open(root / path, "rb", opener=_without_waiting) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise NotLookedInto("is no regular file")
            if status.st_size > LARGEST_BYTES:
                raise NotLookedInto(f"is larger than {LARGEST_BYTES} bytes")
            mode = stat.S_IMODE(status.st_mode)
            return Found(path, file.read(), mode, status.st_mtime_ns)
    except FileNotFoundError:
        return None


def reason(error: OSError | NotLookedInto) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)  # a named pipe would wait for a writer


def _entered(folder: Path) -> bool:
    return not (folder.name in _NOT_ENTERED or (folder / "pyvenv.cfg").exists() or _is_ours(folder))


def _is_ours(path: Path) -> bool:
    return path.name in _OURS and path.parent.resolve() == REPOSITORY


def _is_interesting(path: Path) -> bool:
    name = path.name
    if path.suffix.lower() in SUFFIXES or name in NAMES or name == ".env":
        return True
    return name.startswith(".env.")
