"""The picture: well-formed, complete, and within its frame."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.planning.chart import Line, Panel, short, svg

SVG = "{http://www.w3.org/2000/svg}"
VALUES = st.lists(st.floats(0, 1e12), min_size=0, max_size=50)


def parsed(panels: list[Panel], duration_s: float = 600) -> ElementTree.Element:
    return ElementTree.fromstring(svg("what & why <1>", panels, duration_s))


def texts(root: ElementTree.Element) -> list[str]:
    return ["".join(text.itertext()) for text in root.iter(f"{SVG}text")]


@given(first=VALUES, second=VALUES, duration_s=st.floats(1, 604_800))
def test_every_point_lies_within_the_picture(
    first: list[float], second: list[float], duration_s: float
) -> None:
    lines = [Line("demand", "#ccc", first, "area"), Line("served", "#00f", second)]
    root = parsed([Panel("tokens", lines, 200), Panel("queue", lines[1:], 100)], duration_s)
    width, height = float(root.get("width", "0")), float(root.get("height", "0"))
    for shape in (*root.iter(f"{SVG}polyline"), *root.iter(f"{SVG}polygon")):
        for point in shape.get("points", "").split():
            x, y = map(float, point.split(","))
            assert 0 <= x <= width
            assert 0 <= y <= height


def test_title_panels_and_legend_are_there() -> None:
    lines = [Line("served (a<b)", "#00f", [1.0, 2.0]), Line("limit", "#f00", [3.0, 3.0], "limit")]
    root = parsed([Panel("Tokens & more", lines, 100)])
    written = texts(root)
    for text in ("what & why <1>", "Tokens & more", "served (a<b)", "limit", "time (min:s)"):
        assert text in written
    assert len(root.findall(f"{SVG}polyline")) == 2


def test_a_value_is_as_high_as_its_share_of_the_axis() -> None:
    root = parsed([Panel("p", [Line("l", "#00f", [0.0, 50.0, 100.0])], 100)])
    line = root.find(f"{SVG}polyline")
    assert line is not None
    heights = [float(point.split(",")[1]) for point in line.get("points", "").split()]
    assert heights[0] - heights[1] == pytest.approx(50)
    assert heights[1] - heights[2] == pytest.approx(50)


@pytest.mark.parametrize(
    ("duration_s", "first", "last"),
    [(600, "0:00", "10:00"), (3600, "0:00", "60:00"), (86_400, "0:00", "24:00")],
)
def test_the_time_axis_is_in_round_steps(duration_s: float, first: str, last: str) -> None:
    written = texts(parsed([Panel("p", [Line("l", "#00f", [0.0, 1.0])], 100)], duration_s))
    times = [text for text in written if re.fullmatch(r"\d+:\d\d", text)]
    assert times[0] == first
    assert times[-1] == last
    assert 5 <= len(times) <= 13


def test_numbers_on_the_axis_are_short() -> None:
    assert [short(value) for value in (0, 0.5, 950, 1500, 240_000, 3e6, 2.5e9)] == [
        "0",
        "0.5",
        "950",
        "1.5 k",
        "240 k",
        "3 M",
        "2.5 G",
    ]
