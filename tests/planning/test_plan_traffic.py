"""What a traffic file says, what comes of it, and what is said of a wrong one."""

from __future__ import annotations

import json
import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from planned import CHAT, spec, written

from proxy.planning.arrivals import Ask, rate
from proxy.planning.lengths import Lognormal
from proxy.planning.traffic import Traffic, TrafficError, TrafficSpec, read_traffic


def traffic(**fields: Any) -> Traffic:
    return Traffic(TrafficSpec.model_validate_json(json.dumps(spec(**fields)), strict=True))


def test_requests_come_at_the_rate_that_was_asked_for() -> None:
    asks = list(traffic(duration_s=3600, requests_per_minute=600).asks(seed=1))
    assert len(asks) == pytest.approx(36_000, abs=4 * math.sqrt(36_000))
    assert all(earlier.at_s <= later.at_s for earlier, later in pairwise(asks))
    assert asks[0].at_s >= 0
    assert asks[-1].at_s < 3600


def test_the_rate_follows_the_points_in_straight_lines() -> None:
    points = [[10, 0], [20, 100], [30, 100], [40, 20]]
    made = traffic(requests_per_minute=points).spec
    assert [rate(made, at_s) for at_s in (0, 10, 15, 20, 25, 35, 40, 1000)] == [
        0,
        0,
        50,
        100,
        100,
        60,
        20,
        20,
    ]


def test_a_burst_multiplies_the_rate_while_it_lasts() -> None:
    burst = {"every_s": 40, "lasts_s": 10, "times": 3, "from_s": 5}
    made = traffic(requests_per_minute=100, bursts=[burst]).spec
    assert [rate(made, at_s) for at_s in (0, 5, 14, 15, 44, 45, 54, 55)] == [
        100,
        300,
        300,
        100,
        100,
        300,
        300,
        100,
    ]


def test_requests_in_a_burst_are_drawn_as_often_as_it_says() -> None:
    burst = {"every_s": 40, "lasts_s": 10, "times": 9}
    made = traffic(duration_s=4000, requests_per_minute=100, bursts=[burst])
    asks = list(made.asks(seed=3))
    within = sum(ask.at_s % 40 < 10 for ask in asks)
    assert within / len(asks) == pytest.approx(0.75, abs=0.02)


def test_the_same_seed_gives_the_same_requests_and_another_one_others() -> None:
    made = traffic()
    assert list(made.asks(1)) == list(made.asks(1))
    assert list(made.asks(1)) != list(made.asks(2))


def test_kinds_of_requests_come_in_their_shares() -> None:
    other = {**CHAT, "model": "o3", "share": 3, "stream_share": 0.5, "max_tokens": {"kind": "none"}}
    made = traffic(duration_s=3600, requests_per_minute=200, requests=[CHAT, other])
    asks = list(made.asks(seed=1))
    others = [ask for ask in asks if ask.model == "o3"]
    assert made.models == ("gpt-4o", "o3")
    assert len(others) / len(asks) == pytest.approx(0.75, abs=0.02)
    assert sum(ask.stream for ask in others) / len(others) == pytest.approx(0.5, abs=0.03)
    assert {ask.max_tokens for ask in others} == {None}
    assert {ask.max_tokens for ask in asks if ask.model == "gpt-4o"} == {60}
    assert {ask.output_tokens for ask in asks} == {60}
    assert all(50 <= ask.input_tokens <= 250 for ask in asks)


@given(seed=st.integers(0, 1000), median=st.integers(1, 5000), factor=st.floats(1, 20))
def test_lognormal_lengths_have_the_percentiles_that_were_asked_for(
    seed: int, median: int, factor: float
) -> None:
    import random

    p95 = math.ceil(median * factor)
    drawn = Lognormal(kind="lognormal", median=median, p95=p95)
    rng = random.Random(seed)
    values = sorted(drawn.draw(rng) for _ in range(2000))
    assert values[0] >= 1
    assert sum(value <= median + 1 for value in values) >= 0.4 * len(values)
    assert sum(value >= median - 1 for value in values) >= 0.4 * len(values)
    assert sum(value > p95 + 1 for value in values) <= 0.08 * len(values)


def test_a_request_uses_no_more_output_than_it_allows() -> None:
    assert Ask(0, "m", 100, 50).tokens == 150
    assert Ask(0, "m", 100, 50, max_tokens=20).tokens == 120
    assert Ask(0, "m", 100, 50, max_tokens=80).tokens == 150


# -- traces ------------------------------------------------------------------------------------


def test_a_trace_is_read_in_the_order_of_time_and_begins_at_zero(tmp_path: Path) -> None:
    lines = [
        {"time": 1005.5, "model": "a", "input_tokens": 10, "output_tokens": 20, "user": "x"},
        {"time": 1000, "model": "b", "input_tokens": 30, "output_tokens": 0, "stream": True},
        {"time": 1002, "model": "a", "input_tokens": 5, "output_tokens": 1, "max_tokens": 9},
    ]
    text = "\n\n".join(map(json.dumps, lines)) + "\n"
    made = read_traffic(written(tmp_path / "trace.jsonl", text))
    assert list(made.asks(seed=1)) == [
        Ask(0, "b", 30, 0, None, True),
        Ask(2, "a", 5, 1, 9),
        Ask(5.5, "a", 10, 20),
    ]
    assert made.models == ("b", "a")
    assert made.duration_s == 6.5


def test_a_spec_names_a_trace_beside_it_and_may_cut_it(tmp_path: Path) -> None:
    line = {"model": "a", "input_tokens": 10, "output_tokens": 20}
    lines = [json.dumps({"time": time, **line}) for time in range(10)]
    written(tmp_path / "recorded.jsonl", "\n".join(lines))
    made = read_traffic(
        written(tmp_path / "spec.json", {"trace": "recorded.jsonl", "duration_s": 4})
    )
    assert [ask.at_s for ask in made.asks(seed=1)] == [0, 1, 2, 3]
    assert made.duration_s == 4


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "holds no request"),
        ('{"time": 0}', "line 1: model: is missing"),
        ("\n{", "line 2: Invalid JSON"),
        (
            '{"time": 0, "model": "a", "input_tokens": -1, "output_tokens": 1}',
            "line 1: input_tokens: must be greater than or equal to 0, not -1",
        ),
    ],
)
def test_a_wrong_trace_is_refused_with_its_line(tmp_path: Path, text: str, said: str) -> None:
    path = written(tmp_path / "trace.jsonl", text)
    with pytest.raises(TrafficError) as refused:
        read_traffic(path)
    assert str(refused.value).startswith(f"{path}: {said}")


# -- what is wrong with a spec -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"requests_per_minute": -1}, "requests_per_minute[0][1]: must be greater than"),
        ({"requests_per_minute": "60"}, "requests_per_minute: must be a list, not '60'"),
        ({"requests_per_minute": [[0, 1], [0, 2]]}, "points of ascending times; sort them"),
        ({"duration_s": 0}, "duration_s: must be greater than 0, not 0"),
        ({"bursts": [{"every_s": 10, "lasts_s": 1}]}, "bursts[0].times: is missing"),
        ({"rate": 7}, "rate: is not a known field; remove it"),
        ({"requests": []}, "give requests_per_minute and requests, or trace"),
        ({"trace": "x.jsonl"}, "a trace says itself what comes when"),
        (
            {"requests": [{**CHAT, "output_tokens": {"kind": "gauss", "tokens": 3}}]},
            'requests[0].output_tokens: must have a "kind" of "constant", "uniform" or "lognormal"',
        ),
        (
            {"requests": [{**CHAT, "input_tokens": {"kind": "constant", "tokens": "9"}}]},
            "requests[0].input_tokens.tokens: must be a valid integer, not '9'",
        ),
        (
            {"requests": [{**CHAT, "input_tokens": {"kind": "uniform", "least": 9, "most": 3}}]},
            "requests[0].input_tokens: least (9) must not exceed most (3); swap them",
        ),
        (
            {"requests": [{**CHAT, "input_tokens": {"kind": "lognormal", "median": 9, "p95": 3}}]},
            "must be in ascending order; raise the one that is too small",
        ),
        (
            {"resources": {"default": {"window": "hour"}}},
            "resources.default.window: must be 'minute', 'sliding' or 'bucket', not 'hour'",
        ),
        (
            {"resources": {"instances": {"east": {"stranger": [[60, 0.3], [20, 0]]}}}},
            "stranger must be in the order of its times; sort it",
        ),
    ],
)
def test_a_wrong_spec_is_refused_with_field_value_and_remedy(
    tmp_path: Path, fields: dict[str, Any], said: str
) -> None:
    path = written(tmp_path / "spec.json", spec(**fields))
    with pytest.raises(TrafficError) as refused:
        read_traffic(path)
    assert str(path) in str(refused.value)
    assert said in str(refused.value)


def test_every_problem_is_told_at_once(tmp_path: Path) -> None:
    path = written(tmp_path / "spec.json", spec(duration_s=-1, bursts=[{}], returning_share=2))
    with pytest.raises(TrafficError) as refused:
        read_traffic(path)
    assert len(str(refused.value).splitlines()) == 5


@pytest.mark.parametrize("text", ["{", "[]", "{'a': 1}", "7"])
def test_what_is_no_json_object_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(TrafficError):
        read_traffic(written(tmp_path / "spec.json", text))


def test_the_example_is_valid() -> None:
    example = Path(__file__).parents[2] / "docs" / "examples" / "traffic.json"
    assert read_traffic(example).models == ("gpt-4o",)
