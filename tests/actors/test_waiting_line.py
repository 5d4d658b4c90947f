"""Those who wait for capacity: in which order, for how long, and at what cost."""

from __future__ import annotations

import pytest
import trio
from asking import DOWN, OK, Crowd, ask, crowded, lease, refused, settled, take_down
from harness import exact, instance_config, running_system
from trio.testing import MockClock, wait_all_tasks_blocked
from two_sizes import LARGE, SMALL

from actors.lease import Lease
from actors.messages import CountFirst, Demand, Refused
from actors.system import SystemOptions


@pytest.mark.parametrize(("tokens", "about"), [(30, 60), (60, 60), (61, 70), (100, 70)])
async def test_without_patience_the_refusal_names_a_time_that_is_true(
    autojump_clock: MockClock, tokens: int, about: float
) -> None:
    async with running_system(SMALL) as system:
        await lease(system, 60)
        await trio.sleep(10)
        await lease(system, 40)
        answer = await refused(system, tokens)
        assert answer.reason == "saturated"
        assert answer.retry_at is not None
        assert about <= answer.retry_at <= about + 0.2
        await trio.sleep_until(answer.retry_at)
        await lease(system, tokens)


async def test_patience_that_can_not_help_is_not_used_up(autojump_clock: MockClock) -> None:
    async with running_system(SMALL) as system:
        await lease(system, 100)
        answer = await refused(system, 50, patience_s=59)
        assert trio.current_time() == 0
        assert answer.retry_at == pytest.approx(60, abs=0.2)
        await lease(system, 50, patience_s=61)
        assert trio.current_time() == answer.retry_at


async def test_the_line_is_served_in_the_order_of_arrival(autojump_clock: MockClock) -> None:
    async with crowded(SMALL, taken=100) as (_, crowd):
        asked = [await crowd.join(100, patience_s=1000) for _ in range(5)]
        await trio.sleep(301)
        assert crowd.answered == asked
        assert [each.at for each in asked] == pytest.approx([60, 120, 180, 240, 300], abs=1)


async def test_a_burst_that_has_to_wait_keeps_its_order(autojump_clock: MockClock) -> None:
    async with crowded(SMALL) as (_, crowd):
        asked = []
        for _ in range(4):
            asked.append(crowd.start(100, patience_s=1000))
            await trio.lowlevel.checkpoint()  # lease ids in the order of starting
        await trio.sleep(181)
        assert crowd.answered == asked


async def test_a_line_longer_than_an_instances_mailbox_loses_nobody(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actors.child.INSTANCE_MAILBOX", 3)
    async with crowded(SMALL, taken=100) as (_, crowd):
        asked = [await crowd.join(10, patience_s=61) for _ in range(10)]
        await trio.sleep(61)
        assert crowd.answered == asked
        assert all(isinstance(each.answer, Lease) for each in asked)


async def test_capacity_that_is_given_back_serves_the_line_at_once(
    autojump_clock: MockClock,
) -> None:
    generic = instance_config("generic", provider_type="generic", max_tpm=100)
    async with running_system(generic) as system, trio.open_nursery() as nursery:
        held = await lease(system, 100)
        crowd = Crowd(system, nursery)
        asked = await crowd.join(80, patience_s=61)
        await trio.sleep(5)
        held.settle(OK, 20)
        await wait_all_tasks_blocked()
        assert (asked.instance, asked.at) == ("generic", 5)


async def test_whose_turn_comes_too_late_learns_it_at_once_with_a_true_time(
    autojump_clock: MockClock,
) -> None:
    async with crowded(SMALL, taken=100) as (system, crowd):
        first = await crowd.join(100, patience_s=65)
        second = await crowd.join(100, patience_s=65)
        assert isinstance(second.answer, Refused)
        assert second.at == 0
        assert second.answer.retry_at == pytest.approx(120, abs=1)
        await trio.sleep_until(second.answer.retry_at)
        assert first.instance == "small"
        await lease(system, 100)


async def test_patience_ends_on_time(autojump_clock: MockClock) -> None:
    """The breaker awaits the outcome of a probe, so nothing says how long that takes."""
    async with running_system(LARGE) as system, trio.open_nursery() as nursery:
        await trio.sleep_until(await take_down(system, "large"))
        await lease(system, 10)
        began = trio.current_time()
        asked = await Crowd(system, nursery).join(10, patience_s=7)
        assert asked.answer is None
        await trio.sleep(8)
        assert asked.answer == Refused("unavailable")
        assert asked.at == began + 7
        assert system.router.address.waiting == 0


async def test_capacity_at_the_very_end_of_patience_is_used(autojump_clock: MockClock) -> None:
    async with running_system(SMALL) as system:
        await lease(system, 100)
        retry_at = (await refused(system, 100)).retry_at
        assert retry_at is not None
        await lease(system, 100, patience_s=retry_at)
        assert trio.current_time() == retry_at


async def test_a_withdrawn_request_lets_the_next_one_through(autojump_clock: MockClock) -> None:
    async with crowded(SMALL, taken=50) as (_, crowd):
        large = await crowd.join(90, patience_s=100)
        small = await crowd.join(20, patience_s=100)
        assert small.answer is None, "nobody is overtaken"
        large.scope.cancel()
        await wait_all_tasks_blocked()
        assert (small.instance, small.at) == ("small", 0)


async def test_the_line_is_bounded_and_a_withdrawal_frees_a_place(
    autojump_clock: MockClock,
) -> None:
    options = SystemOptions(seed=1, max_waiting=2)
    async with crowded(SMALL, options=options, taken=100) as (system, crowd):
        first, _ = [await crowd.join(10, patience_s=100) for _ in range(2)]
        assert system.router.address.waiting == 2
        answer = await refused(system, 10, patience_s=100)
        assert answer.reason == "saturated"
        assert answer.retry_at == pytest.approx(60, abs=1)
        first.scope.cancel()
        await wait_all_tasks_blocked()
        assert system.router.address.waiting == 1
        third = await crowd.join(10, patience_s=100)
        assert third.answer is None
        crowd.disperse()


async def test_nobody_waits_with_bounds_instead_of_a_count(autojump_clock: MockClock) -> None:
    async with running_system(SMALL) as system:
        await lease(system, 100)
        answer = await ask(system, Demand("gpt-4", 10, 20, 30, 0), patience_s=100)
        assert isinstance(answer, CountFirst)


async def test_those_who_wait_cost_nothing(autojump_clock: MockClock) -> None:
    async with crowded(SMALL, taken=100) as (system, crowd):
        for _ in range(50):
            await crowd.join(10, patience_s=400)
        turns = 0
        turn = system.router.turn

        def counted_turn() -> None:
            nonlocal turns
            turns += 1
            turn()

        system.router.turn = counted_turn  # type: ignore[method-assign]
        received = system.router.address.mailbox.statistics().received
        await trio.sleep(59)
        assert turns <= 1
        assert system.router.address.mailbox.statistics().received == received
        await trio.sleep(2)
        assert len(crowd.answered) == 10
        assert turns <= 40
        crowd.disperse()


@pytest.mark.parametrize("model", ["gpt-4", "other"])
async def test_large_requests_are_not_starved_by_small_ones(
    autojump_clock: MockClock, model: str
) -> None:
    config = instance_config("both", max_tpm=100, supported_models=["gpt-4", "other"])
    async with crowded(config) as (_, crowd):
        for _ in range(50):
            crowd.start(exact(4, model=model), patience_s=5)
            await trio.sleep(1)
        large = crowd.start(80, patience_s=90)
        for _ in range(90):
            crowd.start(exact(4, model=model), patience_s=5)
            await trio.sleep(1)
        assert isinstance(large.answer, Lease)
        assert large.at is not None
        assert large.at <= 111
        crowd.disperse()


@pytest.mark.parametrize("reason", ["failed there", "too large for it"])
async def test_who_waits_for_one_instance_keeps_nobody_from_another(
    autojump_clock: MockClock, reason: str
) -> None:
    async with running_system(SMALL, LARGE) as system, trio.open_nursery() as nursery:
        await lease(system, 1000, excluded={"small"})
        crowd = Crowd(system, nursery)
        if reason == "failed there":
            await crowd.join(10, patience_s=100, excluded={"small"})
        else:
            await crowd.join(500, patience_s=100)
        asked = await crowd.join(10, patience_s=100)
        assert (asked.instance, asked.at) == ("small", 0)
        nursery.cancel_scope.cancel()


async def test_who_stands_behind_goes_where_those_before_can_not(
    autojump_clock: MockClock,
) -> None:
    async with running_system(SMALL, LARGE) as system, trio.open_nursery() as nursery:
        full = await lease(system, 100)
        await lease(system, 1000)
        crowd = Crowd(system, nursery)
        await crowd.join(10, patience_s=61, excluded={"small"})
        behind = await crowd.join(10, patience_s=61)
        assert behind.answer is None
        await settled(full, DOWN)  # never reached the upstream: given back
        assert (behind.instance, behind.at) == ("small", 0)
        nursery.cancel_scope.cancel()


async def test_an_outage_of_all_that_is_waited_for_is_told_at_once(
    autojump_clock: MockClock,
) -> None:
    async with running_system(SMALL) as system, trio.open_nursery() as nursery:
        await lease(system, 100)
        asked = await Crowd(system, nursery).join(10, patience_s=100)
        await trio.sleep(3)
        await system.administration.update_state("small", {"status": "error"})
        await wait_all_tasks_blocked()
        assert (asked.answer, asked.at) == (Refused("unavailable"), 3)


async def test_a_line_that_has_ended_holds_nobody_up(autojump_clock: MockClock) -> None:
    async with running_system(SMALL) as system, trio.open_nursery() as nursery:
        await lease(system, 100)
        await trio.sleep(55)
        crowd = Crowd(system, nursery)
        await crowd.join(10, patience_s=6)
        await system.administration.update_state("small", {"rate_limited_until": 4e9})
        await trio.sleep(10)
        assert len(crowd.answered) == 1
        await system.administration.update_state("small", {"status": "healthy"})
        late = await crowd.join(10, patience_s=6)
        assert late.at == 65
