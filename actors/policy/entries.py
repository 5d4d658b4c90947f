"""A window's entries as one short line of text, for the state file.

`"1.4:5814 0.4:264"`: 264 tokens 0.4 seconds ago or a little earlier, 5814 a second before that.
Ages are rounded down, so nothing that is read back leaves the window early. As text because the
file is written every second: a list of numbers costs ten times as much to encode.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_TEXT: Final = 10_000
"""Characters; sixty entries need a tenth of it."""
_ENTRY: Final = re.compile(r"(\d{1,9}(?:\.\d{1,6})?):(\d{1,16})")


def packed(entries: Iterable[tuple[float, int]]) -> str:
    """`entries`: (age in seconds, amount), as `SlidingSum.export` gives them."""
    return " ".join([f"{max(0.0, age_s - 0.05):.1f}:{amount}" for age_s, amount in entries])


def unpacked(text: object, older_s: float) -> list[tuple[float, int]]:
    """The entries, `older_s` seconds older; what is malformed is left out."""
    if not isinstance(text, str) or len(text) > MAX_TEXT:
        return []
    return [
        (float(match[1]) + older_s, int(match[2]))
        for entry in text.split(" ")
        if (match := _ENTRY.fullmatch(entry))
    ]
