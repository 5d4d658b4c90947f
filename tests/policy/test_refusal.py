from __future__ import annotations

import pytest

from actors.messages import Refused
from actors.policy.headroom import Obstacle
from actors.policy.refusal import opens_by, refusal


@pytest.mark.parametrize(
    ("obstacles", "answer"),
    [
        ([], Refused("unknown_model")),
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
        (
            [Obstacle("input_too_long", limit=10), Obstacle("no_headroom", 5.0)],
            Refused("saturated", 5.0),
        ),
    ],
)  # fmt: skip
def test_the_obstacles_decide_the_answer(obstacles: list[Obstacle], answer: Refused) -> None:
    assert refusal(obstacles) == answer


def test_having_failed_everywhere_is_told_apart_from_an_unknown_model() -> None:
    assert refusal([], excluded=True) == Refused("unavailable")


@pytest.mark.parametrize(
    ("obstacle", "worth_it"),
    [
        (Obstacle("no_headroom", 12.0), True),
        (Obstacle("no_headroom", 12.1), False),
        (Obstacle("rate_limited", 3.0), True),
        (Obstacle("breaker_open", 3.0), True),
        (Obstacle("breaker_open", 13.0), False),
        (Obstacle("breaker_open", None), True),
        (Obstacle("bad_credential", 3.0), False),
        (Obstacle("model_missing", 3.0), False),
        (Obstacle("quarantined"), False),
        (Obstacle("too_large", limit=5), False),
    ],
)
def test_waiting_is_for_what_passes_in_time(obstacle: Obstacle, worth_it: bool) -> None:
    assert opens_by(obstacle, 12.0) is worth_it
