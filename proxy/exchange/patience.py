"""How long a client is ready to wait, as its headers say."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

from proxy.errors import BadRequest

if TYPE_CHECKING:
    from proxy.exchange.ports import Headers

DEFAULT_PRIORITY: Final = 100
MAX_PRIORITY: Final = 1_000_000
_SECONDS: Final = re.compile(rb"\d{1,9}(\.\d{1,9})?")
_SDK_TIMEOUTS: Final = (b"x-stainless-read-timeout", b"x-stainless-timeout")
"""Of the official SDKs for Python, and for JavaScript (in whole seconds, rounded down)."""


class Patience(NamedTuple):
    """`wait_s`: for capacity. `answer_s`: until the client itself gives up; None if unknown.
    `priority`: its place among those that wait; lower is earlier. `again`: it says that it has
    asked before."""

    wait_s: float
    answer_s: float | None
    priority: int
    again: bool = False


def patience(headers: Headers, max_wait_s: float) -> Patience:
    """From `x-max-wait-ms`, `x-priority`, and the official SDKs' timeout and
    `x-stainless-retry-count`.

    A client can shorten the wait that the settings allow, not lengthen it. Errors: `BadRequest`
    for a value of ours that can't be read; the SDK's are ignored then.
    """
    wait_s, answer_s, priority, again = max_wait_s, None, DEFAULT_PRIORITY, False
    for name, value in headers:
        if name == b"x-max-wait-ms":
            if not value.isdigit() or len(value) > 9:
                raise _unreadable("x-max-wait-ms", value, "milliseconds as a whole number")
            wait_s = min(wait_s, int(value) / 1000)
        elif name == b"x-priority":
            if not value.isdigit() or len(value) > 7 or int(value) > MAX_PRIORITY:
                raise _unreadable("x-priority", value, f"a whole number from 0 to {MAX_PRIORITY}")
            priority = int(value)
        elif name in _SDK_TIMEOUTS and _SECONDS.fullmatch(value):
            answer_s = float(value)
        elif name == b"x-stainless-retry-count":
            again = value.isdigit() and value.strip(b"0") != b""
    if answer_s is not None:
        wait_s = min(wait_s, answer_s)
    return Patience(wait_s, answer_s, priority, again)


def _unreadable(name: str, value: bytes, wanted: str) -> BadRequest:
    given = value[:40].decode("latin-1")
    return BadRequest(f"The header `{name}` must be {wanted}, not {given!r}.", param=name)
