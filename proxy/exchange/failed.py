"""An attempt that gave the client nothing, kept for the case that no other does better."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from proxy.exchange.classify import Verdict
    from proxy.exchange.ports import Headers, UpstreamFailure


@dataclass(frozen=True, slots=True)
class Failed:
    """`status` is None if there was no answer at all. `ours`: what was refused is what this proxy
    had added, and will not add again."""

    verdict: Verdict
    instance: str
    status: int | None = None
    headers: Headers | None = None
    body: bytes = b""
    failure: UpstreamFailure | None = None
    ours: bool = False


def more_telling(last: Failed | None, failed: Failed) -> Failed:
    """Of two failures the one that helps the client more, as the failure table says."""
    if last is None or failed.verdict.rule.telling >= last.verdict.rule.telling:
        return failed
    return last
