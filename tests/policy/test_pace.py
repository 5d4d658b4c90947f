"""Requests are paced within the minute."""

from __future__ import annotations

import pytest
from limit_told import lease

from actors.messages import Evidence
from actors.policy.learning import WEAR_S
from actors.policy.pace import Pace
from actors.policy.quota import Quota


@pytest.mark.parametrize(
    ("limit", "at_once", "in_ten_seconds"), [(600, 10, 100), (6, 1, 1), (90, 2, 15)]
)
def test_requests_are_paced_within_the_minute(
    limit: int, at_once: int, in_ten_seconds: int
) -> None:
    pace = Pace()
    pace.limit.observe(limit, 0)
    sent: list[float] = []
    now = 0.0
    while now < 10:
        if pace.free(now):
            pace.count(now)
            sent.append(now)
        else:
            now = max(pace.earliest(now), now + 1e-6)
    assert len([at for at in sent if at < 1]) == at_once
    assert len(sent) == in_ten_seconds


@pytest.mark.parametrize(
    ("remaining", "at_once"),
    [
        pytest.param(126, 2, id="seven tenths of three, in whole requests"),
        pytest.param(178, 3, id="others who send next to nothing do not slow it"),
    ],
)
def test_what_others_send_is_left_out_of_the_pace_within_the_minute_too(
    remaining: int, at_once: int
) -> None:
    pace = Pace()
    pace.limit.observe(180, 0)
    pace.observe_remaining(remaining, 0, 0)
    sent = 0
    while pace.free(0):
        pace.count(0)
        sent += 1
    assert sent == at_once
    assert pace.free(1.1)


def test_a_refusal_for_requests_slows_the_pace_for_a_while() -> None:
    pace = Pace()
    pace.limit.observe(600, 0)
    for _ in range(9):
        pace.count(0)
    assert pace.free(0)
    pace.refused(0)
    assert not pace.free(0)
    assert pace.free(WEAR_S)


def test_requests_of_others_slow_the_pace() -> None:
    quota = Quota()
    quota.reserve(lease(1), 10, 0)
    quota.settle(lease(1), 10, "estimate", Evidence(limit_requests=600, remaining_requests=599), 1)
    assert quota.pace.free(2)
    quota.reserve(lease(2), 10, 2)
    quota.settle(lease(2), 10, "estimate", Evidence(limit_requests=600, remaining_requests=0), 3)
    assert not quota.pace.free(4)
