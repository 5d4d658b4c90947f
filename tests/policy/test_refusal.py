from __future__ import annotations

import pytest

from actors.messages import CountFirst, Refused
from actors.policy.headroom import Obstacle
from actors.policy.refusal import refusal


@pytest.mark.parametrize(
    ("obstacles", "answer"),
    [
        ([], Refused("unknown_model")),
        ([None, Obstacle("disabled")], None),
        ([Obstacle("no_headroom", 12.0), Obstacle("rate_limited", 9.0)], Refused("saturated", 9.0)),
        (
            [Obstacle("no_headroom", 12.0), Obstacle("breaker_open", 3.0)],
            Refused("saturated", 12.0),
        ),
        (
            [Obstacle("breaker_open", 3.0), Obstacle("bad_credential", 8.0)],
            Refused("unavailable", 3.0),
        ),
        ([Obstacle("quarantined")], Refused("unavailable")),
        (
            [Obstacle("input_too_long", limit=10), Obstacle("input_too_long", limit=20)],
            Refused("input_too_long", limit=20),
        ),
        (
            [Obstacle("input_too_long", limit=10), Obstacle("too_large", limit=500)],
            Refused("too_large", limit=500),
        ),
        ([Obstacle("input_too_long", limit=10), Obstacle("count_first")], CountFirst()),
        (
            [Obstacle("input_too_long", limit=10), Obstacle("no_headroom", 5.0)],
            Refused("saturated", 5.0),
        ),
    ],
)  # fmt: skip
def test_the_obstacles_decide_the_answer(
    obstacles: list[Obstacle | None], answer: Refused | CountFirst | None
) -> None:
    assert refusal(obstacles) == answer


def test_having_failed_everywhere_is_told_apart_from_an_unknown_model() -> None:
    assert refusal([], excluded=True) == Refused("unavailable", tried_all=True)
