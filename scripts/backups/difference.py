"""Which instances, and which fields of them, are different. Values stay out: some are keys."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .records import Records

_MISSING = object()


@dataclass(frozen=True, slots=True)
class Difference:
    added: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    changed: dict[str, list[str]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.added or self.removed or self.changed)

    def __str__(self) -> str:
        parts = [f"{shown(name)} was added" for name in self.added]
        parts += [f"{shown(name)} was removed" for name in self.removed]
        parts += [
            f"{shown(name)} changed ({', '.join(map(shown, fields))})"
            for name, fields in self.changed.items()
        ]
        return "; ".join(parts) or "the records are the same"


def difference(before: Records, after: Records) -> Difference:
    """From `before` to `after`, in the order of the files."""
    changed = {name: _fields(before[name], after[name]) for name in after if name in before}
    return Difference(
        added=[name for name in after if name not in before],
        removed=[name for name in before if name not in after],
        changed={name: fields for name, fields in changed.items() if fields},
    )


def shown(name: str) -> str:
    """`name` for a line of text: short, and with nothing that a terminal would act on."""
    name = name if len(name) <= 80 else f"{name[:77]}..."
    return name if name.isprintable() and name else ascii(name)


def _fields(before: dict[str, object], after: dict[str, object]) -> list[str]:
    return [
        name
        for name in {**before, **after}
        if before.get(name, _MISSING) != after.get(name, _MISSING)
    ]
