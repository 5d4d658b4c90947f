"""What is to be done to one file, and all that is to be done."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

Verb: TypeAlias = Literal["changed", "created", "removed"]


@dataclass(frozen=True, slots=True)
class Change:
    """From `before` to `after`, either of which is None where there is no file.

    `path`: relative to the root, or absolute. `mode` and `modified_ns` are those of the file before
    it was touched, for a new one the mode that it gets and 0. `why`: in words.
    """

    path: str
    before: bytes | None
    after: bytes | None
    mode: int
    modified_ns: int
    why: str

    @property
    def verb(self) -> Verb:
        if self.before is None:
            return "created"
        return "removed" if self.after is None else "changed"


@dataclass
class Plan:
    """`notes`: what a person should know or look at. `failures`: (path, why it is left as it is).
    `copies`: path → content of files that stay as they are and are worth keeping all the same.
    `aside`: instance → fields without a meaning here; their values may be secrets. `secrets`:
    texts that must not be printed."""

    changes: list[Change] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    failures: list[tuple[str, str]] = field(default_factory=list)
    copies: dict[str, bytes] = field(default_factory=dict)
    aside: dict[str, dict[str, object]] = field(default_factory=dict)
    secrets: set[str] = field(default_factory=set)
