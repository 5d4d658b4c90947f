"""What is ahead of somebody who comes, and what is kept for whom."""

from __future__ import annotations

import pytest
import trio
from asking import OK, Crowd, crowded, lease, refused, settled
from harness import exact, instance_config, running_system
from trio.testing import MockClock, wait_all_tasks_blocked
from two_sizes import SMALL

from actors.lease import Lease
from actors.messages import Evidence, Refused


async def test_who_can_not_be_served_in_time_for_the_queue_is_refused_at_once(
    autojump_clock: MockClock,
) -> None:
    async with crowded(SMALL, taken=100) as (system, crowd):
        for _ in range(3):
            await crowd.join(30, patience_s=65)
        late = await refused(system, 30, patience_s=65)
        assert trio.current_time() == 0
        assert late.retry_at == pytest.approx(120, abs=1)
        assert (await crowd.join(10, patience_s=65)).answer is None, "what is left is for others"
        assert (await crowd.join(30, patience_s=125)).answer is None
        crowd.disperse()


async def test_those_behind_are_not_ahead(autojump_clock: MockClock) -> None:
    async with crowded(SMALL, taken=100) as (_, crowd):
        ordinary = await crowd.join(90, patience_s=65)
        urgent = await crowd.join(90, patience_s=65, priority=1)
        assert urgent.answer is None
        await trio.sleep(66)
        assert urgent.instance == "small"
        assert isinstance(ordinary.answer, Refused)


async def test_who_leaves_is_not_ahead_any_more(autojump_clock: MockClock) -> None:
    async with crowded(SMALL, taken=100) as (system, crowd):
        first = await crowd.join(90, patience_s=65)
        assert (await refused(system, 90, patience_s=65)).retry_at == pytest.approx(120, abs=1)
        first.scope.cancel()
        await wait_all_tasks_blocked()
        assert (await lease(system, 90, patience_s=65)).config.name == "small"


async def test_who_was_told_to_come_back_goes_before_those_who_have_waited(
    autojump_clock: MockClock,
) -> None:
    async with crowded(SMALL, taken=100) as (system, crowd):
        told = (await refused(system, 60, patience_s=9)).retry_at
        assert told == pytest.approx(60, abs=0.2)
        await trio.sleep(55)
        waiting = await crowd.join(60, patience_s=200)
        await trio.sleep_until(told + 1)
        assert waiting.instance == "small", "nobody has come back yet"
        back = await crowd.join(60, patience_s=65, again=True)
        ordinary = await crowd.join(60, patience_s=200)
        pretender = await crowd.join(60, patience_s=200, again=True)
        await trio.sleep(200)
        served = [each.at for each in (back, ordinary, pretender)]
        assert served == pytest.approx([120, 180, 240], abs=1)
        assert crowd.answered == [waiting, back, ordinary, pretender]


async def test_once_clients_do_come_back_their_places_are_kept(autojump_clock: MockClock) -> None:
    async with crowded(SMALL) as (system, crowd):
        for _ in range(20):
            first = await crowd.join(100)
            assert isinstance(first.answer, Lease)
            told = (await refused(system, 100)).retry_at
            assert told is not None
            await trio.sleep_until(told)
            assert (await crowd.join(100, again=True)).instance == "small"
            await trio.sleep(61)
        await lease(system, 20)
        await trio.sleep(30)
        await lease(system, 60)
        told = (await refused(system, 80)).retry_at
        assert told is not None
        now = trio.current_time()
        await lease(system, 20, patience_s=100)
        assert trio.current_time() == now, "what is free now is kept for nobody who is not there"
        await trio.sleep_until(told - 1)
        newcomer = await refused(system, 80, patience_s=30)
        assert newcomer.retry_at == pytest.approx(told + 60, abs=1)
        await trio.sleep_until(told)
        assert (await crowd.join(80, again=True)).instance == "small"


async def test_a_model_with_a_limit_of_its_own_is_not_kept_waiting_by_another(
    autojump_clock: MockClock,
) -> None:
    config = instance_config("both", max_tpm=100, supported_models=["gpt-4", "other"])
    async with running_system(config) as system, trio.open_nursery() as nursery:
        for model in ("gpt-4", "other"):
            taken = await lease(system, exact(10, model=model))
            taken.settle(OK, 10, Evidence(limit_tokens=100))
        await wait_all_tasks_blocked()
        await lease(system, 90)
        crowd = Crowd(system, nursery)
        assert (await crowd.join(50, patience_s=100)).answer is None
        assert (await lease(system, exact(50, model="other"))).config.name == "both"
        nursery.cancel_scope.cancel()


async def test_what_somebody_first_in_line_waits_for_is_not_given_to_the_next(
    autojump_clock: MockClock,
) -> None:
    """Here nothing but the claim keeps it: the next one fits there when the line is looked at."""
    one, two = (instance_config(name, max_tpm=100) for name in ("one", "two"))
    async with running_system(one, two) as system, trio.open_nursery() as nursery:
        ended = await lease(system, 60, excluded={"two"})
        await trio.sleep(30)
        await lease(system, 40, excluded={"two"})
        await trio.sleep(15)
        await lease(system, 100, excluded={"one"})
        crowd = Crowd(system, nursery)
        first = await crowd.join(100, patience_s=200)
        second = await crowd.join(10, patience_s=200)
        await trio.sleep(25)
        await settled(ended)
        await trio.sleep(75)
        assert (first.instance, first.at) == ("one", pytest.approx(90, abs=0.5))
        assert (second.instance, second.at) == ("two", pytest.approx(105, abs=0.5))
        nursery.cancel_scope.cancel()


async def test_who_leaves_the_line_is_not_ahead_of_anybody(autojump_clock: MockClock) -> None:
    async with crowded(SMALL, taken=100) as (_, crowd):
        await crowd.join(10, patience_s=100)
        gone = await crowd.join(50, patience_s=100)
        gone.scope.cancel()
        await wait_all_tasks_blocked()
        later = await crowd.join(90, patience_s=65)
        assert later.answer is None
        await trio.sleep(65)
        assert later.instance == "small"
        crowd.disperse()
