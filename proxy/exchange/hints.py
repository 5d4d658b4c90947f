"""When an upstream says to come back: one number from the many ways of saying it.

Precedence and spellings: docs/failures.md. Pure; the only clock is the wall time given for HTTP
dates.
"""

from __future__ import annotations

import re
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Final

from proxy.exchange.headers import header

if TYPE_CHECKING:
    from proxy.exchange.ports import Headers

_IN_TEXT: Final = re.compile(rb"retry after (\d{1,7})\s*(milli)?second", re.IGNORECASE)
_DURATION: Final = re.compile(
    r"(?:(\d+(?:\.\d+)?)d)?(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m(?!s))?"
    r"(?:(\d+(?:\.\d+)?)s)?(?:(\d+(?:\.\d+)?)ms)?"
)
_UNITS_S: Final = (86_400.0, 3_600.0, 60.0, 1.0, 0.001)
MAX_HINT_S: Final = 7 * 86_400.0


def retry_after_s(headers: Headers, body: bytes, wall_now: float) -> float | None:
    """Seconds to stay away, or None if nothing credible was said.

    `wall_now`: epoch seconds, for `Retry-After` as a date. Never raises, whatever the input.
    """
    for name, unit_s in (
        (b"retry-after-ms", 0.001),
        (b"x-ms-retry-after-ms", 0.001),
        (b"retry-after", 1.0),
    ):
        value = header(headers, name)
        if value is not None:
            seconds = _number(value, unit_s)
            if seconds is None and name == b"retry-after":
                seconds = _date(value, wall_now)
            if seconds is not None:
                return seconds
    for name in _reset_headers(body):
        value = header(headers, name)
        # A reset of 0 without any retry header was seen together with limits of -1: it says
        # nothing.
        if value is not None and (seconds := duration_s(value)):
            return seconds
    in_text = _IN_TEXT.search(body)
    if in_text:
        return _sane(int(in_text[1]) * (0.001 if in_text[2] else 1.0))
    return None


def _reset_headers(body: bytes) -> tuple[bytes, ...]:
    """The reset headers to believe, the one for the limit that the wording names first."""
    tokens, requests = b"x-ratelimit-reset-tokens", b"x-ratelimit-reset-requests"
    odd_spelling = b"x-rate-limit-reset-tokens"
    if b"call rate limit" in body:
        return requests, tokens, odd_spelling
    return tokens, requests, odd_spelling


def duration_s(value: bytes) -> float | None:
    """`12`, `0.5`, `6m0s`, `120ms` in seconds; None for anything else."""
    plain = _number(value, 1.0)
    if plain is not None:
        return plain
    match = _DURATION.fullmatch(value.decode("latin-1").strip())
    if match is None or not any(match.groups()):
        return None
    return _sane(
        sum(float(part) * unit for part, unit in zip(match.groups(), _UNITS_S, strict=True) if part)
    )


def _number(value: bytes, unit_s: float) -> float | None:
    if not re.fullmatch(rb"\s*\d{1,12}(\.\d{1,9})?\s*", value):
        return None
    return _sane(float(value) * unit_s)


def _date(value: bytes, wall_now: float) -> float | None:
    try:
        at = parsedate_to_datetime(value.decode("latin-1")).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None
    return _sane(max(0.0, at - wall_now))


def _sane(seconds: float) -> float | None:
    return seconds if 0 <= seconds <= MAX_HINT_S else None
