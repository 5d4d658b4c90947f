"""What a request has met on its way, and the explanation of what it would meet."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from asking import Crowd, ask, crowded, lease, refused
from harness import RunningSystem, exact, instance_config, running_system
from trio.testing import MockClock
from two_sizes import LARGE, SMALL

from actors.lease import Lease
from actors.mailbox import Reply
from actors.messages import Acquire, Answer, CountFirst, Demand, Explanation, LeaseId, Refused


async def test_who_gets_the_first_choice_has_met_nothing(autojump_clock: MockClock) -> None:
    async with running_system(SMALL, LARGE) as system:
        assert (await lease(system, 10)).met == {}


async def test_a_lease_and_a_refusal_tell_what_was_met_first(autojump_clock: MockClock) -> None:
    async with running_system(SMALL, LARGE) as system:
        await lease(system, 100)
        second = await lease(system, 50)
        assert second.config.name == "large"
        assert list(second.met) == ["small"]
        assert second.met["small"].reason == "no_headroom"
        refusal = await refused(system, 10_000)
        assert [(name, o.reason, o.limit) for name, o in refusal.met.items()] == [
            ("small", "too_large", 100),
            ("large", "too_large", 1000),
        ]


async def test_who_has_waited_can_tell_for_what(autojump_clock: MockClock) -> None:
    async with crowded(SMALL, taken=100) as (_, crowd):
        served, not_served = [await crowd.join(60, patience_s=s) for s in (70, 61)]
        await trio.sleep(70)
        assert isinstance(served.answer, Lease)
        assert served.answer.met["small"].reason == "no_headroom"
        assert isinstance(not_served.answer, Refused)
        assert set(not_served.answer.met) == {"small"}
        crowd.disperse()


async def explained(
    system: RunningSystem, demand: Demand | int, *, patience_s: float = 0.0, **wishes: Any
) -> Explanation:
    if isinstance(demand, int):
        demand = exact(demand)
    wait_until = trio.current_time() + patience_s
    return await system.leases.explain(
        Acquire(LeaseId(0), demand, wait_until, Reply[Answer](), **wishes)
    )


@pytest.mark.parametrize("patience_s", [0.0, 65.0, 1000.0])
@pytest.mark.parametrize("tokens", [10, 60, 100])
async def test_an_explanation_says_what_an_ask_gets(
    autojump_clock: MockClock, tokens: int, patience_s: float
) -> None:
    async with running_system(SMALL) as system, trio.open_nursery() as nursery:
        await lease(system, 60)
        await trio.sleep(5)
        await lease(system, 40)
        crowd = Crowd(system, nursery)
        for waiting in (30, 30, 30):
            await crowd.join(waiting, patience_s=100)
        told = await explained(system, tokens, patience_s=patience_s)
        asked = await crowd.join(tokens, patience_s=patience_s)
        if asked.answer is None:
            assert told.answer == "wait"
            await trio.sleep(150)
            assert told.retry_at == pytest.approx(asked.at, abs=1)
        else:
            assert isinstance(asked.answer, Refused)
            assert (told.answer, told.retry_at) == (asked.answer.reason, asked.answer.retry_at)
        nursery.cancel_scope.cancel()


async def test_an_explanation_has_the_wishes_of_the_request() -> None:
    configs = [instance_config(name, max_tpm=1000) for name in ("one", "two", "three")]
    async with running_system(*configs) as system:
        for key in range(8):
            told = {(await explained(system, 10, affinity=key)).answer for _ in range(5)}
            answer = await system.leases.acquire(exact(10), 0.0, affinity=key)
            assert isinstance(answer, Lease)
            assert told == {answer.config.name}
        bound = await explained(system, 10, only=frozenset({"two"}))
        assert bound.answer == "two"
        assert [(each.name, each.obstacle) for each in bound.judgements] == [
            ("two", None),
            ("one", "bound_elsewhere"),
            ("three", "bound_elsewhere"),
        ]
        avoiding = await explained(system, 10, avoided=frozenset({"one", "three"}))
        assert avoiding.answer == "two"


@pytest.mark.parametrize(("priority", "answer"), [(1, "wait"), (100, "saturated")])
async def test_an_explanation_knows_who_is_ahead(
    autojump_clock: MockClock, priority: int, answer: str
) -> None:
    async with crowded(SMALL, taken=100) as (system, crowd):
        await crowd.join(60, patience_s=100, priority=50)
        told = await explained(system, 60, patience_s=65, priority=priority)
        assert told.answer == answer
        # Nobody was told to come back, so nobody has.
        again = await explained(system, 60, patience_s=65, priority=50, again=True)
        assert again.answer == "saturated"
        crowd.disperse()


async def test_an_explanation_is_counted_first_where_the_request_would_be() -> None:
    async with running_system(SMALL) as system:
        await lease(system, 100)
        demand = Demand("gpt-4", 10, 20, 30, 0)
        asked = await ask(system, demand, patience_s=100)
        assert isinstance(asked, CountFirst)
        assert (await explained(system, demand, patience_s=100)).answer == "count_first"
