"""Who gets which instance, and how the router takes its messages."""

from __future__ import annotations

import random
from functools import partial
from typing import Any

import pytest
import trio
from asking import Crowd, ask, crowded, lease, refused, take_down
from harness import RunningSystem, exact, instance_config, running_system
from trio.testing import MockClock, wait_all_tasks_blocked
from two_sizes import LARGE, SMALL

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
    InstanceRef,
    LeaseId,
    Outcome,
    Refused,
    RosterChanged,
    Withdraw,
)
from actors.policy.selection import Selector
from actors.policy.standing import Standing
from actors.router import Router, RouterAddress
from actors.system import SystemOptions

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
