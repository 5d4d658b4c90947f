"""Several lists as one: nothing twice, nothing left out, in one order, whatever the pages."""

from __future__ import annotations

import math
from typing import Any
from urllib.parse import parse_qsl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.bound.lists import Cursor, Part, after_cursor, in_order, merged, wanted
from proxy.errors import BadRequest


@pytest.mark.parametrize(
    ("query", "family", "limit", "asked"),
    [
        (b"", "batches", 20, {"order": "desc", "limit": "20"}),
        (b"", "files", 10_000, {"order": "desc"}),
        (b"limit=3&order=asc", "files", 3, {"order": "asc", "limit": "3"}),
        (
            b"purpose=batch&api-version=2024-10-21",
            "files",
            10_000,
            {"purpose": "batch", "order": "desc"},
        ),
        (b"after=batch_1&limit=100", "batches", 100, {"order": "desc", "limit": "100"}),
    ],
)
def test_what_is_asked_for(query: bytes, family: str, limit: int, asked: dict[str, str]) -> None:
    found = wanted(query, family)
    assert found.limit == limit
    assert dict(parse_qsl(found.query(None).decode())) == asked
    assert dict(parse_qsl(found.query("x&y").decode())) == {**asked, "after": "x&y"}


@pytest.mark.parametrize(
    ("query", "param"),
    [
        (b"limit=0", "limit"),
        (b"limit=101", "limit"),
        (b"limit=-1", "limit"),
        (b"limit=ten", "limit"),
        (b"limit=" + b"9" * 5000, "limit"),
        (b"limit=%C2%B2", "limit"),
        (b"order=up", "order"),
        (b"after=..%2Fadmin", "after"),
        (b"before=batch_1", "before"),
        (b"&".join(b"a%d=1" % n for n in range(50)), None),
    ],
)
def test_what_can_not_be_asked_for(query: bytes, param: str | None) -> None:
    with pytest.raises(BadRequest) as refused:
        wanted(query, "batches")
    assert refused.value.param == param


def test_an_empty_list_has_the_shape_of_one() -> None:
    assert merged([Part("a", [], more=False)], limit=5, descending=True) == {
        "object": "list",
        "data": [],
        "first_id": None,
        "last_id": None,
        "has_more": False,
    }


def test_what_has_no_time_or_a_strange_one_is_listed_all_the_same() -> None:
    strange = ["yesterday", None, 10**400, -(10**400), math.inf, -math.inf, math.nan, -1, [5]]
    items = [{"id": "x", "created_at": at} for at in strange]
    page = merged(
        [Part("a", items, more=False), Part("b", [{"created_at": 5}], more=False)],
        limit=99,
        descending=True,
    )
    assert page["data"] == [{"created_at": 5}, *items]
    assert in_order(items, descending=False) == items


Stocks = dict[str, list[dict[str, Any]]]


@st.composite
def stocks(draw: st.DrawFn) -> Stocks:
    """What each instance has, the newest first."""
    found: Stocks = {}
    for owner in draw(st.sets(st.sampled_from("abcd"), min_size=1)):
        times = sorted(draw(st.lists(st.integers(0, 5), max_size=8)), reverse=True)
        found[owner] = [
            {"id": f"{owner}{number}", "created_at": at} for number, at in enumerate(times)
        ]
    return found


@given(stocks(), st.integers(1, 5), st.booleans(), st.sampled_from(["all", "order", "nothing"]))
def test_page_after_page_gives_everything_once_and_in_order(
    found: Stocks, limit: int, descending: bool, knows: str
) -> None:
    """`knows`: what the upstreams know of the query: `order` and `after`, the first, neither."""
    if knows != "nothing" and not descending:
        found = {owner: items[::-1] for owner, items in found.items()}
    found = {owner: in_order(items, descending=descending) for owner, items in found.items()}
    cursor: Cursor | None = None
    seen: list[dict[str, Any]] = []
    for _ in range(100):
        parts = []
        for owner, items in found.items():
            listed = items
            if knows == "all" and cursor is not None and cursor.owner == owner:
                ids = [item["id"] for item in items]
                listed = items[ids.index(cursor.id) + 1 :]
            left = after_cursor(listed, owner, cursor, descending=descending)
            parts.append(Part(owner, left[: limit + 1], len(left) > limit + 1))
        page = merged(parts, limit=limit, descending=descending)
        seen += page["data"]
        if not page["has_more"]:
            break
        last = page["data"][-1]
        assert page["last_id"] == last["id"]
        cursor = Cursor(last["id"], float(last["created_at"]), last["id"][0])
    everything = [item for items in found.values() for item in items]
    assert sorted(item["id"] for item in seen) == sorted(item["id"] for item in everything)
    times = [item["created_at"] for item in seen]
    assert times == sorted(times, reverse=descending)
