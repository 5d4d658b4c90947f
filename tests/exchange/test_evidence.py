from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.messages import Evidence
from proxy.exchange.evidence import evidence


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, None),
        (
            {
                b"x-ratelimit-limit-tokens": b"1000",
                b"x-ratelimit-remaining-tokens": b"0",
                b"x-ratelimit-limit-requests": b"6",
                b"x-ratelimit-remaining-requests": b"5",
            },
            Evidence(1000, 0, 6, 5),
        ),
        ({b"x-ratelimit-remaining-tokens": b"7"}, Evidence(remaining_tokens=7)),
        ({b"x-ratelimit-limit-tokens": b"-1", b"x-ratelimit-remaining-tokens": b"-1"}, None),
        ({b"x-ratelimit-limit-tokens": b"0"}, None),
        ({b"x-ratelimit-limit-tokens": b"1e9"}, None),
        ({b"x-ratelimit-limit-tokens": b"9" * 40}, None),
        ({b"x-ratelimit-reset-tokens": b"12"}, None),
    ],
)
def test_only_credible_numbers_are_evidence(
    headers: dict[bytes, bytes], expected: Evidence | None
) -> None:
    assert evidence(list(headers.items())) == expected


@given(st.binary(max_size=30))
def test_garbage_is_no_evidence(value: bytes) -> None:
    found = evidence([(b"x-ratelimit-limit-tokens", value)])
    assert found is None or (found.limit_tokens or 0) > 0
