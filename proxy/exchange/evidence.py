"""What an answer's headers say of the limits that its upstream enforces."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from actors.messages import Evidence

if TYPE_CHECKING:
    from proxy.exchange.ports import Headers

MAX_DIGITS: Final = 12
_PLACES: Final = {
    b"x-ratelimit-limit-tokens": 0,
    b"x-ratelimit-remaining-tokens": 1,
    b"x-ratelimit-limit-requests": 2,
    b"x-ratelimit-remaining-requests": 3,
}
"""Where in an `Evidence` a header stands."""


def evidence(headers: Headers) -> Evidence | None:
    """None if no header says anything credible. Never raises.

    -1, which some surfaces send for "unknown" (openai/openai-dotnet#838), is nothing; so is a
    limit of 0 and whatever is no number. Cost: one look-up per header.
    """
    seen: list[int | None] | None = None
    for name, value in headers:
        place = _PLACES.get(name)
        if place is None or not value.isdigit() or len(value) > MAX_DIGITS:
            continue
        number = int(value)
        if number or place % 2:  # a limit of 0 is none
            seen = seen or [None, None, None, None]
            seen[place] = number
    return None if seen is None else Evidence._make(seen)
