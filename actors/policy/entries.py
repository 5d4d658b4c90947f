"""What a window holds as one short line of text, for the state file.

`"0.4 1 264 5814 0 12"`: 264 tokens just now, 5814 at least 0.4 seconds ago, none in the second
before that, and 12 at least 2.4 seconds ago. Ages are rounded down, so nothing that is read back
leaves the window early. As text because the file is written every second: a list of numbers costs
ten times as much to encode.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from actors.policy.window import Amounts

MAX_TEXT: Final = 10_000
"""Characters; a minute needs a tenth of it."""
_TEXT: Final = re.compile(r"(-?\d{1,9}\.\d) (\d{1,6}(?:\.\d{1,6})?)((?: \d{1,16})+)")


def packed(held: Amounts) -> str:
    """ "" for an empty window."""
    if not held.amounts:
        return ""
    amounts = " ".join(map(str, held.amounts))
    return f"{held.second_s - 0.05:.1f} {held.step_s:g} {amounts}"


def unpacked(text: object, older_s: float) -> list[tuple[float, int]] | None:
    """(age in seconds, amount) of everything, `older_s` seconds older; None if it can't be read,
    which is not to say that there was nothing."""
    if not isinstance(text, str) or len(text) > MAX_TEXT:
        return None
    if not text:
        return []
    match = _TEXT.fullmatch(text)
    if match is None:
        return None
    second_s, step_s = float(match[1]), float(match[2])
    newest, *others = map(int, match[3].split())
    entries = [(0.0, newest), *((second_s + n * step_s, amount) for n, amount in enumerate(others))]
    return [(age_s + older_s, amount) for age_s, amount in entries if amount]
