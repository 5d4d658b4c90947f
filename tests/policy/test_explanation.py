"""What an explanation answers to what a request meets."""

from __future__ import annotations

import pytest
from harness import exact

from actors.mailbox import Reply
from actors.messages import Acquire, LeaseId
from actors.policy.explanation import Outlook, explanation
from actors.policy.headroom import Obstacle

REFUSED_KEY = Obstacle("bad_credential", 11.0)
FULL = Obstacle("no_headroom", 18.0)


@pytest.mark.parametrize(
    ("met", "wait_until", "expected"),
    [
        ((REFUSED_KEY, FULL), 20.0, ("wait", 18.0)),
        ((FULL, Obstacle("no_headroom", 15.0)), 20.0, ("wait", 15.0)),
        ((Obstacle("rate_limited", 30.0), FULL), 20.0, ("wait", 18.0)),
        ((REFUSED_KEY, FULL), 15.0, ("saturated", 99.0)),
        ((REFUSED_KEY,), 20.0, ("unavailable", 11.0)),
        ((Obstacle("breaker_open"),), 10.0, ("unavailable", None)),
    ],
)
def test_the_time_is_that_of_what_is_waited_for(
    met: tuple[Obstacle, ...], wait_until: float, expected: tuple[str, float | None]
) -> None:
    ask = Acquire(LeaseId(0), exact(1), wait_until, Reply())
    by_name = {str(place): obstacle for place, obstacle in enumerate(met)}
    told = explanation((), (), by_name, ask, Outlook(0, False, 99.0), 10.0)
    assert (told.answer, told.retry_at) == expected
