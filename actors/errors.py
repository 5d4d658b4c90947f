"""What can go wrong with a change of configuration or state, for whoever asked for it."""

from __future__ import annotations


class ChangeRefused(Exception):
    """A change that was not made; nothing is different from before."""


class NameTaken(ChangeRefused):
    def __init__(self, name: str) -> None:
        super().__init__(f"an instance named {name!r} exists already")
        self.name = name


class UnknownInstance(ChangeRefused):
    def __init__(self, name: str) -> None:
        super().__init__(f"there is no instance named {name!r}")
        self.name = name


class InvalidChange(ChangeRefused):
    """`problems`: (field, what is wrong and what would be right), one entry per field at fault."""

    def __init__(self, problems: list[tuple[str, str]]) -> None:
        super().__init__("; ".join(f"{field}: {message}" for field, message in problems))
        self.problems = problems


class StoreFailed(ChangeRefused):
    """The file could not be written, so the change was not made."""


class InvalidEdit(ChangeRefused):
    """Somebody has edited the configuration file, and what it says now can't be used.

    What it said before is still in force, and nothing is written over the edit. `problems`: as
    those of `InvalidChange`, with places in the file instead of fields.
    """

    def __init__(self, path: str, problems: list[tuple[str, str]]) -> None:
        (place, reason), more = problems[0], len(problems) - 1
        others = f" (and {more} more problem{'s' * (more > 1)})" if more else ""
        super().__init__(f"{path} was edited and can't be used: {place}: {reason}{others}")
        self.path = path
        self.problems = problems


class BrokenFile(Exception):
    """A file that cannot be read as what it should be. `place`: line and column, or the field."""

    def __init__(self, path: str, place: str, reason: str) -> None:
        super().__init__(f"{path}: {place}: {reason}")
        self.path = path
        self.place = place
        self.reason = reason


class FileLocked(Exception):
    """Another process owns this file."""

    def __init__(self, path: str) -> None:
        super().__init__(f"{path} is in use by another proxy process")
        self.path = path


class InstanceCrashed(Exception):
    """The instance's task failed with this very message in hand."""
