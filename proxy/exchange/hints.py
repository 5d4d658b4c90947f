"""When an upstream says to come back: one number from the many ways of saying it.

In this order: `retry-after-ms`, `x-ms-retry-after-ms`, `retry-after` (seconds or a date), the
`x-ratelimit-reset-*` of the limit that was hit, `x-rate-limit-reset-tokens` (seen on a 429 that had
nothing else: openai/openai-python#937), "retry after N seconds" in the body. What is malformed,
negative or zero says nothing, and the next in the order is asked. Pure; the only clock is the wall
time given for HTTP dates.
"""

from __future__ import annotations

import re
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from proxy.exchange.headers import header

if TYPE_CHECKING:
    from proxy.exchange.ports import Headers

Limit: TypeAlias = Literal["tokens", "requests"]

MAX_HINT_S: Final = 7 * 86_400.0
"""Longer hints are cut to this; how long one may bench an instance is decided elsewhere."""

_NUMBER: Final = re.compile(rb"\s*(\d{1,18}(?:\.\d{0,18})?)\s*")
_DURATION: Final = re.compile(
    rb"(?:(\d{1,18}(?:\.\d{1,18})?)d)?(?:(\d{1,18}(?:\.\d{1,18})?)h)?"
    rb"(?:(\d{1,18}(?:\.\d{1,18})?)m)?(?:(\d{1,18}(?:\.\d{1,18})?)s)?"
    rb"(?:(\d{1,18}(?:\.\d{1,18})?)ms)?"
)
_UNITS_S: Final = (86_400.0, 3_600.0, 60.0, 1.0, 0.001)
_IN_TEXT: Final = re.compile(
    rb"(?:retry after|try again in) (?:(\d[\d.]{0,18}) ?(milliseconds?|seconds?|minutes?|hours?)"
    rb"|(\d[\d.a-z]{0,40}))",
    re.IGNORECASE,
)
_WORDS_S: Final = {b"mil": 0.001, b"sec": 1.0, b"min": 60.0, b"hou": 3_600.0}
_OF_REQUESTS: Final = re.compile(
    rb'call rate limit|requests per (?:min|day)|"type"\s*:\s*"requests"', re.IGNORECASE
)
_OF_TOKENS: Final = re.compile(
    rb'token rate limit|tokens per (?:min|day)|"type"\s*:\s*"tokens"', re.IGNORECASE
)


def retry_after_s(headers: Headers, body: bytes, wall_now: float) -> float | None:
    """Seconds to stay away, above 0 and at most `MAX_HINT_S`; None if nothing credible was said.

    `wall_now`: epoch seconds, for `Retry-After` as a date. Never raises, whatever the input.
    """
    for name, unit_s in ((b"retry-after-ms", 0.001), (b"x-ms-retry-after-ms", 0.001)):
        seconds = _number_s(header(headers, name), unit_s)
        if seconds is not None:
            return seconds
    value = header(headers, b"retry-after")
    seconds = _number_s(value, 1.0) or _until_date_s(value, wall_now)
    if seconds is not None:
        return seconds
    for name in _reset_headers(limit_hit(headers, body)):
        seconds = duration_s(header(headers, name))
        if seconds is not None:
            return seconds
    return _in_text_s(body)


def limit_hit(headers: Headers, body: bytes) -> Limit | None:
    """Which limit a 429 speaks of: by its wording, else by what is said to remain; None if
    neither tells."""
    if _OF_REQUESTS.search(body):
        return "requests"
    if _OF_TOKENS.search(body):
        return "tokens"
    tokens = header(headers, b"x-ratelimit-remaining-tokens")
    requests = header(headers, b"x-ratelimit-remaining-requests")
    if (tokens == b"0") != (requests == b"0"):
        return "tokens" if tokens == b"0" else "requests"
    return None


def _reset_headers(limit: Limit | None) -> tuple[bytes, ...]:
    """The reset headers to believe: how soon the other limit resets is no answer."""
    tokens, requests = b"x-ratelimit-reset-tokens", b"x-ratelimit-reset-requests"
    odd_spelling = b"x-rate-limit-reset-tokens"
    match limit:
        case "requests":
            return (requests,)
        case "tokens":
            return tokens, odd_spelling
        case None:
            return tokens, requests, odd_spelling


def duration_s(value: bytes | None) -> float | None:
    """`12`, `0.5`, `6m0s`, `120ms` in seconds; None for nothing, for 0 and for anything else."""
    if value is None:
        return None
    plain = _number_s(value, 1.0)
    if plain is not None:
        return plain
    match = _DURATION.fullmatch(value.strip())
    if match is None:
        return None
    return _credible(
        sum(float(part) * unit for part, unit in zip(match.groups(), _UNITS_S, strict=True) if part)
    )


def _number_s(value: bytes | None, unit_s: float) -> float | None:
    match = None if value is None else _NUMBER.fullmatch(value)
    return None if match is None else _credible(float(match[1]) * unit_s)


def _until_date_s(value: bytes | None, wall_now: float) -> float | None:
    if value is None:
        return None
    try:
        at = parsedate_to_datetime(value.decode("latin-1"))
        if at.tzinfo is None:
            at = at.replace(tzinfo=UTC)  # An HTTP date is in GMT (RFC 9110 section 5.6.7).
        return _credible(at.timestamp() - wall_now)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def _in_text_s(body: bytes) -> float | None:
    match = _IN_TEXT.search(body)
    if match is None:
        return None
    if match[3] is None:
        return _number_s(match[1], _WORDS_S[match[2][:3].lower()])
    told = match[3].rstrip(b".")
    return None if told[-1:].isdigit() else duration_s(told)


def _credible(seconds: float) -> float | None:
    return min(seconds, MAX_HINT_S) if seconds > 0 else None
