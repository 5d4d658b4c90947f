"""What of a breaker survives a restart."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from tripped import SITUATIONS, START, due, fresh, outcome, situation, tripped

from actors.policy.breaker import FIRST_OPEN_S, MAX_OPEN_S


@pytest.mark.parametrize("where", SITUATIONS)
def test_export_survives_json_and_a_restart(where: str) -> None:
    breaker, now = situation(where)
    exported = json.loads(json.dumps(breaker.export(now)))
    restored, clock = fresh(), 50.0
    restored.restore(exported, 0.0, clock)
    if breaker.state == "closed":
        assert exported == {}
        assert restored.state == "closed"
        return
    assert restored.state == "open"
    later = clock + MAX_OPEN_S
    outcome(restored, False, later)
    assert (restored.next_admission(later) or 0.0) >= later + FIRST_OPEN_S


def test_the_open_time_goes_on_while_the_process_is_down() -> None:
    breaker = tripped()
    remaining_s = due(breaker) - START
    for down_s, left_s in (
        (-5.0, remaining_s),
        (0.0, remaining_s),
        (0.125, remaining_s - 0.125),
        (9.0, 0.0),
    ):
        restored = fresh()
        restored.restore(breaker.export(START), down_s, 50.0)
        assert restored.next_admission(50.0) == pytest.approx(50.0 + left_s)


@pytest.mark.parametrize(
    "exported",
    [
        {},
        {"open_s": 5.0},
        {"trips": 2},
        {"open_s": None, "trips": 2},
        {"open_s": "5", "trips": 2},
        {"open_s": math.nan, "trips": 2},
        {"open_s": -1.0, "trips": 2},
        {"open_s": 5.0, "trips": 0},
        {"open_s": 5.0, "trips": -3},
        {"open_s": 5.0, "trips": 1.5},
    ],
)
def test_a_malformed_export_leaves_it_closed(exported: dict[str, Any]) -> None:
    breaker = fresh()
    breaker.restore(exported, 0.0, START)
    assert breaker.state == "closed"


@pytest.mark.parametrize("open_s", [1e300, math.inf, 10**400])
def test_no_export_keeps_it_open_longer_than_the_cap(open_s: float) -> None:
    breaker = fresh()
    breaker.restore({"open_s": open_s, "trips": 10**400}, 0.0, START)
    assert breaker.next_admission(START) == START + MAX_OPEN_S
    outcome(breaker, False, START + MAX_OPEN_S)
    assert breaker.state == "open"
