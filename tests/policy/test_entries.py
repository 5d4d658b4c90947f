from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.policy.entries import packed, unpacked

ENTRIES = st.lists(st.tuples(st.floats(0, 61), st.integers(1, 10**9)), max_size=62)


@given(ENTRIES, st.floats(0, 100))
def test_nothing_is_lost_and_nothing_gets_older_than_it_is(
    entries: list[tuple[float, int]], older_s: float
) -> None:
    back = unpacked(packed(entries), older_s)
    assert sum(amount for _, amount in back) == sum(amount for _, amount in entries)
    assert len(back) == len(entries)
    for limit in (10.0, 30.5, 60.0):
        younger = sum(amount for age_s, amount in entries if age_s <= limit)
        assert sum(amount for age_s, amount in back if age_s - older_s <= limit + 1e-9) >= younger


@given(ENTRIES)
def test_nothing_gets_notably_younger(entries: list[tuple[float, int]]) -> None:
    back = unpacked(packed(entries), 0.0)
    for limit in (10.0, 30.5, 60.0):
        kept = sum(amount for age_s, amount in back if age_s <= limit)
        assert kept <= sum(amount for age_s, amount in entries if age_s <= limit + 0.2)


@pytest.mark.parametrize(
    "text", [None, 3, [], "", "x", "1:", ":2", "1:-5", "nan:1", "1e9:1", "9" * 20_000]
)
def test_what_is_malformed_is_left_out(text: object) -> None:
    assert unpacked(text, 0.0) == []
