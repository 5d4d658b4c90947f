"""A window's entries as one short line of text, for the state file.

`"0.4:264 1.4:5814"`: 264 tokens 0.4 seconds ago or a little earlier, 5814 a second before that.
Entries of one second are put together under the least age among them, so nothing that is read
back leaves the window early. As text because the file is written every second: a list of numbers
costs ten times as much to encode.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_TEXT: Final = 10_000
"""Characters; sixty entries need a tenth of it."""
TOGETHER: Final = 10
"""Slots of a minute's window that make a second."""
_ENTRY: Final = re.compile(r"(\d{1,9}(?:\.\d{1,6})?):(\d{1,16})")


def packed(entries: Iterable[tuple[float, int]]) -> str:
    """`entries`: (age in seconds, amount), as `SlidingSum.export` gives them."""
    seconds: dict[int, tuple[float, int]] = {}
    for age_s, amount in entries:
        second = int(age_s)
        least, total = seconds.get(second, (age_s, 0))
        seconds[second] = (min(least, age_s), total + amount)
    return " ".join(f"{max(0.0, age_s - 0.05):.1f}:{amount}" for age_s, amount in seconds.values())


def unpacked(text: object, older_s: float) -> list[tuple[float, int]]:
    """The entries, `older_s` seconds older; what is malformed is left out."""
    if not isinstance(text, str) or len(text) > MAX_TEXT:
        return []
    return [
        (float(match[1]) + older_s, int(match[2]))
        for entry in text.split(" ")
        if (match := _ENTRY.fullmatch(entry))
    ]
