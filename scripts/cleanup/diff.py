"""What would be changed, for people to read before it is. No key is in it."""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .change import Change

_AFTER_A_WORD = re.compile(
    r"""((?:api[-_]?key|authorization|password|secret|token)["']?\s*[:=]\s*["']?|bearer\s+)
    ([^\s"'`,;$<{%][^\s"'`,;]{3,})""",
    re.IGNORECASE | re.VERBOSE,
)
_MASK = "****"
_SHORTEST_SECRET = 4
"""Masking anything shorter would garble every line and hide nothing."""


def lines(change: Change, secrets: set[str]) -> Iterator[str]:
    """A unified diff without context: lines beside a change are nobody's business. Of a file that
    would be removed, only that."""
    if change.after is None:
        yield f"would remove {change.path}: {change.why}"
        return
    before = "/dev/null" if change.before is None else change.path
    for line in difflib.unified_diff(
        _lines(change.before or b""), _lines(change.after), before, change.path, n=0, lineterm=""
    ):
        yield masked(line, secrets)


def masked(text: str, secrets: set[str]) -> str:
    """`text` without the `secrets`, and without what looks like one."""
    long_enough = [secret for secret in secrets if len(secret) >= _SHORTEST_SECRET]
    for secret in sorted(long_enough, key=len, reverse=True):
        text = text.replace(secret, _MASK)
    return _AFTER_A_WORD.sub(rf"\1{_MASK}", text)


def _lines(content: bytes) -> list[str]:
    return content.decode("utf-8", "backslashreplace").splitlines()
