from __future__ import annotations

import random
from functools import partial
from typing import Any

import pytest
import trio
from asking import DOWN, OK, Crowd, ask, crowded, lease, refused, settled, take_down
from harness import RunningSystem, exact, instance_config, running_system
from trio.testing import MockClock, wait_all_tasks_blocked

from actors.lease import Lease
from actors.mailbox import Mailbox, Reply
from actors.messages import (
    NO_MODEL,
    Acquire,
    Answer,
    CapacityFreed,
    CountFirst,
    Declined,
    Demand,
    Evidence,
    Explanation,
    InstanceRef,
    LeaseId,
    Outcome,
    Refused,
    RosterChanged,
    Withdraw,
)
from actors.policy.breaker import RAMP_S
from actors.policy.selection import Selector
from actors.policy.standing import Standing
from actors.router import Router, RouterAddress
from actors.system import SystemOptions

SMALL, LARGE = (
    instance_config("small", priority=1, max_tpm=100),
    instance_config("large", priority=2, max_tpm=1000),
)


# -- choosing ----------------------------------------------------------------------------------


async def test_a_request_goes_to_the_first_that_can_take_it() -> None:
    async with running_system(SMALL, LARGE) as system:
        names = [(await lease(system, 40)).config.name for _ in range(4)]
        assert names == ["small", "small", "large", "large"]


async def test_an_excluded_instance_is_passed_over() -> None:
    async with running_system(SMALL, LARGE) as system:
        assert (await lease(system, 10, excluded={"small"})).config.name == "large"
        everywhere = await refused(system, 10, excluded={"small", "large"})
        assert everywhere == Refused("unavailable")


async def confined(
    system: RunningSystem, tokens: int, *only: str, patience_s: float = 0.0
) -> Lease | Refused | CountFirst:
    wait_until = trio.current_time() + patience_s
    return await system.leases.acquire(exact(tokens), wait_until, only=frozenset(only))


async def test_an_ask_that_is_confined_goes_nowhere_else(autojump_clock: MockClock) -> None:
    async with running_system(SMALL, LARGE) as system:
        for only in (("large",), ("large", "gone")):
            answer = await confined(system, 10, *only)
            assert isinstance(answer, Lease)
            assert answer.config.name == "large"
        assert await confined(system, 10, "gone") == Refused("unknown_model")
        await lease(system, 90, excluded={"large"})
        full = await confined(system, 50, "small")
        assert isinstance(full, Refused)
        assert full.reason == "saturated"
        started = trio.current_time()
        waited = await confined(system, 50, "small", patience_s=100.0)
        assert isinstance(waited, Lease)
        assert waited.config.name == "small"
        assert 0 < trio.current_time() - started <= 61


async def test_those_who_are_confined_to_a_full_instance_keep_nobody_from_another(
    autojump_clock: MockClock,
) -> None:
    one, two = instance_config("one", max_tpm=100), instance_config("two", max_tpm=100)
    async with running_system(one, two) as system, trio.open_nursery() as nursery:
        await lease(system, 100, excluded={"two"})
        blocking = await lease(system, 100, excluded={"one"})
        for _ in range(10):
            nursery.start_soon(partial(confined, system, 60, "one", patience_s=100.0))
        await wait_all_tasks_blocked()
        crowd = Crowd(system, nursery)
        other = crowd.start(10, patience_s=100.0)
        await wait_all_tasks_blocked()
        assert other.answer is None
        blocking.settle(Outcome("cancelled", reached=False))
        await trio.sleep(1)
        assert other.instance == "two"
        nursery.cancel_scope.cancel()


async def test_what_needs_no_model_goes_to_any_enabled_instance_however_full() -> None:
    nothing = exact(0, model=NO_MODEL)
    off = instance_config("off", priority=0, enabled=False)
    async with running_system(off, SMALL, LARGE) as system:
        await lease(system, 100, excluded={"large"})
        assert isinstance(await confined(system, 50, "small"), Refused)
        first = await lease(system, nothing)
        assert first.config.name == "small"
        assert first.tokens == 0
        assert (await lease(system, nothing, excluded={"small"})).config.name == "large"
        await take_down(system, "large")
        assert (await refused(system, nothing, excluded={"small"})).reason == "unavailable"


async def test_an_avoided_instance_comes_last_and_is_better_than_none(
    autojump_clock: MockClock,
) -> None:
    async with running_system(SMALL, LARGE) as system, trio.open_nursery() as nursery:
        avoided = {"small"}
        assert (await lease(system, 600, avoided=avoided)).config.name == "large"
        assert (await lease(system, 300, avoided=avoided)).config.name == "large"
        assert (await lease(system, 80, avoided=avoided)).config.name == "large"
        assert (await lease(system, 80, avoided=avoided)).config.name == "small"
        # Which one comes free first decides, not which one is avoided.
        await system.administration.update_state("large", {"rate_limited_until": 4e9})
        waiting = await Crowd(system, nursery).join(80, avoided=avoided, patience_s=70)
        await trio.sleep(61)
        assert waiting.instance == "small"


async def test_a_burst_that_one_instance_declines_goes_on_to_the_next() -> None:
    """All are forwarded before the first is decided: what the router reads is stale by then."""
    async with crowded(SMALL, LARGE) as (_, crowd):
        asked = [crowd.start(30) for _ in range(10)]
        await wait_all_tasks_blocked()
        names = [each.instance for each in asked]
        assert (names.count("small"), names.count("large")) == (3, 7)


async def test_a_burst_beyond_all_limits_is_refused_and_not_lost() -> None:
    async with crowded(SMALL) as (_, crowd):
        asked = [crowd.start(30) for _ in range(10)]
        await wait_all_tasks_blocked()
        answers = [each.answer for each in asked]
        assert sum(isinstance(answer, Lease) for answer in answers) == 3
        assert (
            sum(answer.reason == "saturated" for answer in answers if isinstance(answer, Refused))
            == 7
        )


async def test_an_exact_count_is_asked_for_when_the_preferred_instance_depends_on_it() -> None:
    picky = instance_config("picky", priority=1, max_input_tokens=100)
    async with running_system(picky, LARGE) as system:
        assert isinstance(await ask(system, Demand("gpt-4", 10, 20, 200, 0)), CountFirst)
        assert (await lease(system, 100)).config.name == "picky"
        assert (await lease(system, 101)).config.name == "large"


async def test_no_count_is_asked_for_when_it_decides_nothing() -> None:
    picky = instance_config("picky", priority=3, max_input_tokens=100)
    async with running_system(LARGE, picky) as system:
        assert (await lease(system, Demand("gpt-4", 10, 20, 200, 0))).config.name == "large"


@pytest.mark.parametrize(
    ("demand", "answer"),
    [
        (exact(10, model="gpt-5"), Refused("unknown_model")),
        (exact(51), Refused("input_too_long", limit=50)),
        (exact(50, output=51), Refused("too_large", limit=100)),
    ],
)
async def test_what_no_instance_ever_takes_is_refused_at_once(
    demand: Demand, answer: Refused
) -> None:
    only = instance_config("only", max_tpm=100, max_input_tokens=50)
    async with running_system(only) as system:
        assert await ask(system, demand, patience_s=100) == answer


async def test_a_full_router_mailbox_is_told_to_the_sender(autojump_clock: MockClock) -> None:
    options = SystemOptions(seed=1, router_mailbox=2)
    async with crowded(LARGE, options=options) as (_, crowd):
        await wait_all_tasks_blocked()
        asked = [crowd.start(1) for _ in range(6)]
        await wait_all_tasks_blocked()
        reasons = [each.answer.reason for each in asked if isinstance(each.answer, Refused)]
        assert reasons == ["overloaded"] * 3  # the first one is answered at once, two go in


# -- waiting -----------------------------------------------------------------------------------


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


# -- what is ahead -----------------------------------------------------------------------------


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


# -- what was met on the way -------------------------------------------------------------------


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


# -- an open breaker ---------------------------------------------------------------------------


async def test_a_request_waits_for_a_breaker_that_admits_a_probe_in_time(
    autojump_clock: MockClock,
) -> None:
    async with running_system(LARGE) as system, trio.open_nursery() as nursery:
        until = await take_down(system, "large")
        assert await ask(system, 10) == Refused("unavailable", until)
        crowd = Crowd(system, nursery)
        probe, second = [await crowd.join(10, patience_s=5) for _ in range(2)]
        await trio.sleep(2)
        assert probe.at == until
        assert second.answer is None, "one probe at a time"
        assert isinstance(probe.answer, Lease)
        await settled(probe.answer)
        assert (second.instance, second.at) == ("large", 2)


async def test_a_probe_that_fails_keeps_the_others_waiting_for_the_next(
    autojump_clock: MockClock,
) -> None:
    async with running_system(LARGE) as system, trio.open_nursery() as nursery:
        await take_down(system, "large")
        crowd = Crowd(system, nursery)
        probe, second = [await crowd.join(10, patience_s=9) for _ in range(2)]
        await trio.sleep(2)
        assert isinstance(probe.answer, Lease)
        await settled(probe.answer, DOWN)
        assert second.answer is None
        await trio.sleep(2)
        assert isinstance(second.answer, Lease)


async def test_a_probe_without_an_end_holds_nobody_longer_than_it_must(
    autojump_clock: MockClock,
) -> None:
    async with running_system(LARGE) as system, trio.open_nursery() as nursery:
        until = await take_down(system, "large")
        crowd = Crowd(system, nursery)
        probe, second = [await crowd.join(10, patience_s=100) for _ in range(2)]
        await trio.sleep(90)
        assert (probe.at, second.at) == (until, until + RAMP_S)
        assert (probe.instance, second.instance) == ("large", "large")


async def test_an_outage_longer_than_patience_is_told_at_once(autojump_clock: MockClock) -> None:
    async with running_system(LARGE) as system:
        until = await take_down(system, "large")
        patience_s = (until - trio.current_time()) / 2
        assert await ask(system, 10, patience_s=patience_s) == Refused("unavailable", until)
        assert trio.current_time() == 0


async def test_a_breaker_about_to_admit_is_worth_more_than_a_limit_far_away(
    autojump_clock: MockClock,
) -> None:
    async with running_system(SMALL, LARGE) as system:
        await lease(system, 100)
        await take_down(system, "large")
        assert (await lease(system, 10, patience_s=5)).config.name == "large"
        assert trio.current_time() <= 1


@pytest.mark.parametrize(
    "outcome",
    [
        Outcome("credential_error", status=401, reason="401", reached=True),
        Outcome("model_error", status=404, reason="404", reached=True),
    ],
)
async def test_what_only_people_mend_is_not_waited_for(
    autojump_clock: MockClock, outcome: Outcome
) -> None:
    async with running_system(LARGE) as system:
        await settled(await lease(system, 10), outcome)
        answer = await refused(system, 10, patience_s=100)
        assert (answer.reason, answer.retry_at) == ("unavailable", 60)
        assert trio.current_time() == 0


# -- the actor ---------------------------------------------------------------------------------


def test_handling_messages_takes_no_task() -> None:
    """Outside trio nothing can wait: each message is one atomic change."""
    address = RouterAddress(Mailbox(10))
    router = Router(address, Selector("priority", random.Random(1)), 10)
    standing, mailbox = Standing(SMALL, random.Random(1)), Mailbox[Any, Any](10)
    standing.reserve(LeaseId(1), exact(50), 0.0)
    waiting, back = (
        Acquire(LeaseId(number), exact(60), 100.0, Reply[Answer]()) for number in (2, 3)
    )
    for message in (
        RosterChanged((InstanceRef(SMALL, mailbox, standing),)),
        waiting,
        Declined(back),
        CapacityFreed("small"),
        Withdraw(waiting.lease_id),
        RosterChanged(()),
    ):
        router.handle(message, 0.0)
    assert (len(mailbox), len(router._line)) == (0, 1), "one of them was withdrawn"


async def test_closing_refuses_everybody() -> None:
    async with crowded(SMALL, taken=100) as (system, crowd):
        waiting = await crowd.join(10, patience_s=100)
        unread = crowd.start(10, patience_s=100)
        await trio.lowlevel.checkpoint()
        system.router.close()
        await wait_all_tasks_blocked()
        assert waiting.answer == unread.answer == Refused("unavailable")
        assert await ask(system, 10) == Refused("unavailable")
