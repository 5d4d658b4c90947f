from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from actors.policy.retry_budget import FLOOR, SHARE, SPAN_S, RetryBudget


def test_a_quiet_service_retries_freely_up_to_the_floor() -> None:
    budget = RetryBudget()
    assert [budget.take(0.0) for _ in range(FLOOR + 2)] == [True] * FLOOR + [False] * 2
    assert budget.take(SPAN_S + 1)


@given(st.lists(st.tuples(st.floats(0, 0.2), st.booleans()), max_size=600))
def test_retries_are_a_share_of_requests_in_every_span(steps: list[tuple[float, bool]]) -> None:
    budget = RetryBudget()
    now = 0.0
    requests: list[float] = []
    retries: list[float] = []
    for pause, retry in steps:
        now += pause
        if retry:
            if budget.take(now):
                retries.append(now)
        else:
            budget.request(now)
            requests.append(now)
        recent = [at for at in requests if at > now - SPAN_S * 1.06]
        assert (
            len([at for at in retries if at > now - SPAN_S])
            <= max(FLOOR, SHARE * (len(recent) + 1))
            or not retry
        )
