"""What an answer's headers say of the limits that its upstream enforces."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from actors.messages import Evidence

if TYPE_CHECKING:
    from proxy.exchange.ports import Headers

_PREFIX: Final = b"x-ratelimit-"


def evidence(headers: Headers) -> Evidence | None:
    """None if no header says anything credible. Never raises.

    -1, which some surfaces send for "unknown" (openai/openai-dotnet#838), is nothing; so is a
    limit of 0 and whatever is no number. Cost: one prefix test per header.
    """
    seen: dict[bytes, int] = {}
    for name, value in headers:
        if name.startswith(_PREFIX) and value.isdigit() and len(value) <= 12:
            seen[name[len(_PREFIX) :]] = int(value)
    if not seen:
        return None
    found = Evidence(
        seen.get(b"limit-tokens") or None,
        seen.get(b"remaining-tokens"),
        seen.get(b"limit-requests") or None,
        seen.get(b"remaining-requests"),
    )
    return None if found == Evidence() else found
