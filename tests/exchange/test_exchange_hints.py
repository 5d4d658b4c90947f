"""When to come back: the many ways in which upstreams say it."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.exchange.hints import MAX_HINT_S, duration_s, limit_hit, retry_after_s

NOW = 1_795_000_000.0  # Wed, 18 Nov 2026 11:06:40 GMT

CLASSIC_TOKENS = (
    b'{"error":{"code":"429","message":"Requests to the ChatCompletions_Create Operation under '
    b"Azure OpenAI API version 2024-10-21 have exceeded token rate limit of your current OpenAI S0 "
    b"pricing tier. Please retry after 20 seconds. Please go here: "
    b"https://aka.ms/oai/quotaincrease if you would like to further increase the default rate "
    b'limit."}}'
)
CLASSIC_CALLS = CLASSIC_TOKENS.replace(b"token rate", b"call rate").replace(b"20 sec", b"7 sec")
SINCE_2025 = (
    b'{"error":{"code":"RateLimitReached","message":"Your requests to gpt-4.1 for my-gpt in East '
    b"US 2 have exceeded the token rate limit for your current AIServices S0 pricing tier. This "
    b"request was for ChatCompletions_Create under Azure OpenAI API version 2024-10-21. Please "
    b"retry after 86400 seconds. To increase your default rate limit, visit: "
    b'https://aka.ms/oai/quotaincrease."}}'
)
NO_CAPACITY = (
    b'{"error":{"type":"too_many_requests","code":"no_capacity","message":"The system is currently '
    b"experiencing high demand and cannot process your request. Your request exceeds the maximum "
    b'usage size allowed during peak load."}}'
)
OPENAI = (
    b'{"error":{"message":"Rate limit reached for gpt-4 in organization org-x on requests per min '
    b'(RPM): Limit 3, Used 3, Requested 1. Please try again in 6m0s. Visit https://x.",'
    b'"type":"requests","param":null,"code":"rate_limit_exceeded"}}'
)


@pytest.mark.parametrize(
    ("headers", "body", "seconds"),
    [
        # Each before all that follow it in the order of precedence
        ([("retry-after-ms", "1500"), ("retry-after", "9")], CLASSIC_TOKENS, 1.5),
        ([("x-ms-retry-after-ms", "250"), ("retry-after", "9")], CLASSIC_TOKENS, 0.25),
        ([("retry-after", "9"), ("x-ratelimit-reset-tokens", "3")], CLASSIC_TOKENS, 9.0),
        ([("retry-after", "1.5")], b"", 1.5),
        ([("retry-after", "Wed, 18 Nov 2026 11:07:10 GMT")], CLASSIC_TOKENS, 30.0),
        ([("x-ratelimit-reset-tokens", "3")], CLASSIC_TOKENS, 3.0),
        ([("x-rate-limit-reset-tokens", "4")], CLASSIC_TOKENS, 4.0),
        ([], CLASSIC_TOKENS, 20.0),
        ([], CLASSIC_CALLS, 7.0),
        ([], SINCE_2025, 86_400.0),
        ([], NO_CAPACITY, None),
        ([], NO_CAPACITY.replace(b"peak load.", b"peak load. Please retry after 20 seconds"), 20.0),
        ([], OPENAI, 360.0),
        ([("x-ratelimit-reset-requests", "8.64s")], OPENAI, 8.64),
        # Dates in all three forms of RFC 9110, one without a zone, one in the past
        ([("retry-after", "Wednesday, 18-Nov-26 11:07:10 GMT")], b"", 30.0),
        ([("retry-after", "Wed Nov 18 11:07:10 2026")], b"", 30.0),
        ([("retry-after", "Wed, 18 Nov 2026 11:07:10 -0000")], b"", 30.0),
        ([("retry-after", "Wed, 18 Nov 2026 11:06:00 GMT")], CLASSIC_TOKENS, 20.0),
        # The reset that matters is that of the limit that was hit
        (
            [("x-ratelimit-reset-tokens", "50"), ("x-ratelimit-reset-requests", "2")],
            CLASSIC_CALLS,
            2.0,
        ),
        (
            [("x-ratelimit-reset-requests", "1"), ("x-ratelimit-reset-tokens", "50")],
            CLASSIC_TOKENS,
            50.0,
        ),
        ([("x-ratelimit-reset-requests", "1")], CLASSIC_TOKENS, 20.0),
        ([("x-ratelimit-reset-tokens", "1")], CLASSIC_CALLS, 7.0),
        (
            [
                ("x-ratelimit-remaining-requests", "0"),
                ("x-ratelimit-remaining-tokens", "500"),
                ("x-ratelimit-reset-tokens", "50"),
                ("x-ratelimit-reset-requests", "2"),
            ],
            b"",
            2.0,
        ),
        ([("x-ratelimit-reset-requests", "2"), ("x-ratelimit-reset-tokens", "5")], b"", 5.0),
        ([("x-ratelimit-reset-requests", "2")], b"", 2.0),
        # What says nothing lets the next one speak
        ([("retry-after-ms", "soon"), ("retry-after", "later")], CLASSIC_TOKENS, 20.0),
        ([("retry-after-ms", "-1"), ("retry-after", "-1")], b"", None),
        ([("retry-after-ms", "0"), ("retry-after", "0")], CLASSIC_TOKENS, 20.0),
        ([("retry-after", "1e3")], b"", None),
        ([("retry-after", "nan")], b"", None),
        ([("retry-after", "inf")], b"", None),
        # As seen on the Responses API: limits of -1, resets of 0
        (
            [("x-ratelimit-limit-tokens", "-1"), ("x-ratelimit-reset-tokens", "0")],
            b"",
            None,
        ),
        # Longer than anybody means
        ([("retry-after", "999999999999")], b"", MAX_HINT_S),
        ([], b"try again in 1.2s.", 1.2),
        ([], b"Try again in 120ms", 0.12),
        ([], b"Please retry after 500 milliseconds.", 0.5),
        ([], b"retry after 2 minutes", 120.0),
        ([], b"retry after 1 hour", 3600.0),
        ([], b"retry after 5", None),
        ([], b"retry after 5 apples", None),
    ],
)
def test_the_wait_is_the_one_that_was_told(
    headers: list[tuple[str, str]], body: bytes, seconds: float | None
) -> None:
    encoded = [(name.encode(), value.encode()) for name, value in headers]
    told = retry_after_s(encoded, body, NOW)
    assert told == (None if seconds is None else pytest.approx(seconds))


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (b"12", 12.0),
        (b" 0.5 ", 0.5),
        (b"6m0s", 360.0),
        (b"1h30m", 5400.0),
        (b"2d", 172_800.0),
        (b"1d2h3m4.5s6ms", 93_784.506),
        (b"120ms", 0.12),
        (b"1m120ms", 60.12),
        (b"0", None),
        (b"0s", None),
        (b"", None),
        (b"-5s", None),
        (b"5x", None),
        (b"s", None),
        (b"5s6m", None),
        (b"\xb25s", None),
        (None, None),
    ],
)
def test_durations_are_plain_seconds_or_have_units(
    value: bytes | None, seconds: float | None
) -> None:
    assert duration_s(value) == (None if seconds is None else pytest.approx(seconds))


@pytest.mark.parametrize(
    ("headers", "body", "limit"),
    [
        ({}, CLASSIC_TOKENS, "tokens"),
        ({}, CLASSIC_CALLS, "requests"),
        ({}, SINCE_2025, "tokens"),
        ({}, OPENAI, "requests"),
        ({}, NO_CAPACITY, None),
        ({}, b"", None),
        ({b"x-ratelimit-remaining-tokens": b"0"}, NO_CAPACITY, "tokens"),
        ({b"x-ratelimit-remaining-requests": b"0"}, b"", "requests"),
        (
            {b"x-ratelimit-remaining-requests": b"0", b"x-ratelimit-remaining-tokens": b"0"},
            b"",
            None,
        ),
        ({b"x-ratelimit-remaining-requests": b"-1"}, b"", None),
    ],
)
def test_the_wording_says_which_limit_was_hit_and_else_what_remains(
    headers: dict[bytes, bytes], body: bytes, limit: str | None
) -> None:
    assert limit_hit(list(headers.items()), body) == limit


HINT_HEADERS = st.sampled_from(
    [
        b"retry-after-ms",
        b"x-ms-retry-after-ms",
        b"retry-after",
        b"x-ratelimit-reset-tokens",
        b"x-ratelimit-reset-requests",
        b"x-rate-limit-reset-tokens",
        b"x-ratelimit-remaining-tokens",
    ]
)
DATES = st.text("0123456789 :-+,.MonJaTueWedThFriSatSunGMTUZ\x00\xa0", max_size=40).map(
    lambda text: text.encode("latin-1")
)
VALUES = (
    st.binary(max_size=60)
    | DATES
    | st.floats().map(lambda value: str(value).encode())
    | st.integers().map(lambda value: str(value).encode())
    | st.from_regex(rb"(\d{1,30}(\.\d{1,30})?(d|h|m|s|ms)?){1,6}", fullmatch=True)
)
BODIES = st.binary(max_size=80) | st.builds(
    lambda start, value, end: start + value + end,
    st.sampled_from([b"Please retry after ", b"try again in "]),
    VALUES,
    st.sampled_from([b"", b" seconds", b" milliseconds.", b"s"]),
)


@settings(deadline=None)
@given(st.lists(st.tuples(HINT_HEADERS, VALUES), max_size=6), BODIES, st.floats())
def test_no_input_raises_or_gives_a_wait_that_is_none(
    headers: list[tuple[bytes, bytes]], body: bytes, wall_now: float
) -> None:
    seconds = retry_after_s(headers, body, wall_now)
    assert seconds is None or (0 < seconds <= MAX_HINT_S and math.isfinite(seconds))
