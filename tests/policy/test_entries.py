from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.policy.entries import packed, unpacked
from actors.policy.window import Amounts

HELD = st.builds(
    Amounts,
    st.floats(-1, 1),
    st.sampled_from([1.0, 0.5, 0.1]),
    st.lists(st.integers(0, 10**9), max_size=62),
)


def ages(held: Amounts) -> list[tuple[float, int]]:
    """(age in seconds, amount), as `Amounts` says."""
    since = [0.0, *(held.second_s + n * held.step_s for n in range(len(held.amounts)))]
    return list(zip(since, held.amounts, strict=False))


@given(HELD, st.floats(0, 100))
def test_nothing_is_lost_and_nothing_gets_older_than_it_is(held: Amounts, older_s: float) -> None:
    back = unpacked(packed(held), older_s)
    assert back is not None
    assert sum(amount for _, amount in back) == sum(held.amounts)
    for limit_s in (0.0, 10.0, 30.5, 60.0):
        younger = sum(amount for age_s, amount in ages(held) if age_s <= limit_s)
        assert sum(amount for age_s, amount in back if age_s - older_s <= limit_s + 1e-9) >= younger


@given(HELD)
def test_nothing_gets_notably_younger(held: Amounts) -> None:
    back = unpacked(packed(held), 0.0)
    assert back is not None
    for limit_s in (10.0, 30.5, 60.0):
        kept = sum(amount for age_s, amount in back if age_s <= limit_s)
        assert kept <= sum(amount for age_s, amount in ages(held) if age_s <= limit_s + 0.2)


def test_the_text_is_what_the_file_shows() -> None:
    text = packed(Amounts(0.47, 1.0, [264, 5814, 0, 12]))
    assert text == "0.4 1 264 5814 0 12"
    assert unpacked(text, 10.0) == [(10.0, 264), (10.4, 5814), (12.4, 12)]
    assert packed(Amounts(0.47, 1.0, [])) == ""
    assert unpacked("0.0 1 7", 2.0) == [(2.0, 7)]


@pytest.mark.parametrize(
    "text",
    [
        None,
        3,
        [],
        " ",
        "x",
        "1.4:5814 0.4:264",
        "0.4",
        "0.4 1",
        "0.4 1 -5",
        "nan 1 1",
        "1e9 1 1",
        "0.4 1 2.5",
        "1 1 7",
        "0.4 1" + " 9" * 20_000,
    ],
)
def test_what_is_malformed_is_not_an_empty_window(text: object) -> None:
    assert unpacked(text, 0.0) is None


def test_an_empty_window_is_read_as_one() -> None:
    assert unpacked(packed(Amounts(0.3, 1.0, [])), 2.0) == []
