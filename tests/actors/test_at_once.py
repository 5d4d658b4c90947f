"""An ask that comes alone is handled in the requester's task, and nothing else is different."""

from __future__ import annotations

import random
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from math import inf
from typing import Any
from unittest.mock import patch

import pytest
import trio
from asking import DOWN, OK, Crash, Crowd, ask, crashing, lease, refused
from harness import RunningSystem, exact, instance_config, running_system
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from actors.errors import ChangeRefused, InstanceCrashed
from actors.lease import ALONE_S, Lease
from actors.mailbox import Reply
from actors.messages import Acquire, Answer, CountFirst, Grant, LeaseId, Outcome, Refused, Settle
from actors.policy.headroom import Obstacle
from actors.policy.standing import Standing
from actors.supervisor import RestartIntensity
from actors.system import SystemOptions

ONE, TWO = instance_config("one", max_tpm=100), instance_config("two", max_tpm=100)
FULL = Outcome("rate_limited", bench_s=2.0, reason="429", limit="tokens", reached=True)
NEVER, ALWAYS = inf, -1.0
"""Values of `ALONE_S`."""


def asking(tokens: int) -> Acquire:
    reply: Reply[Answer] = Reply()
    return Acquire(LeaseId(0), exact(tokens), 0.0, reply)


# -- one after the other -----------------------------------------------------------------------


@pytest.mark.parametrize("passes", range(6))
@pytest.mark.parametrize("alone_s", [NEVER, ALWAYS])
async def test_who_comes_alone_does_not_overtake_who_waits_for_what_was_just_freed(
    autojump_clock: MockClock, passes: int, alone_s: float
) -> None:
    """Wherever the news of it is by then."""
    one = instance_config("one", max_tpm=100, provider_type="generic")
    with patch("actors.lease.ALONE_S", alone_s):
        async with running_system(one) as system, trio.open_nursery() as nursery:
            crowd = Crowd(system, nursery)
            held = await lease(system, 100)
            older = await crowd.join(60, patience_s=100)
            await trio.sleep(1)
            held.settle(OK, 0)
            for _ in range(passes):
                await trio.lowlevel.checkpoint()
            younger = crowd.start(60, patience_s=200)
            await wait_all_tasks_blocked()
            assert isinstance(older.answer, Lease)
            assert younger.answer is None
            nursery.cancel_scope.cancel()


async def test_the_router_wakes_earlier_for_who_was_put_into_the_line_meanwhile(
    autojump_clock: MockClock,
) -> None:
    with patch("actors.lease.ALONE_S", ALWAYS):
        async with running_system(ONE, TWO) as system, trio.open_nursery() as nursery:
            started = trio.current_time()
            crowd = Crowd(system, nursery)
            await lease(system, 100, excluded={"two"})
            await trio.sleep(10)
            await lease(system, 100, excluded={"one"})
            await crowd.join(100, patience_s=100, excluded={"one"})
            earlier = await crowd.join(100, patience_s=100, excluded={"two"})
            await trio.sleep(100)
            assert earlier.at is not None
            assert 60 <= earlier.at - started < 60.2


async def test_a_question_is_answered_beside_asks_that_are_handled_at_once(
    autojump_clock: MockClock,
) -> None:
    with patch("actors.lease.ALONE_S", ALWAYS):
        async with running_system(ONE) as system, trio.open_nursery() as nursery:
            crowd, explained = Crowd(system, nursery), []

            async def explain() -> None:
                explained.append(await system.leases.explain(asking(60)))

            for _ in range(10):
                nursery.start_soon(explain)
                crowd.start(60)
            await wait_all_tasks_blocked()
            assert len(explained) == 10
            assert [type(each.answer) for each in crowd.answered].count(Lease) == 1
            assert len(crowd.answered) == 10


async def test_a_router_that_fails_in_a_requesters_task_ends_the_system(
    autojump_clock: MockClock,
) -> None:
    def fail(*_: object) -> None:
        raise Crash

    with pytest.RaisesGroup(Crash, flatten_subgroups=True):
        async with running_system(ONE) as system:
            await wait_all_tasks_blocked()
            with patch.object(system.router, "_decide", fail):
                await ask(system, 10)  # never answered, as if the router's own task had failed


@pytest.mark.parametrize("fails", [False, True])
async def test_what_comes_during_a_turn_at_once_is_for_the_instances_own_task(
    autojump_clock: MockClock, fails: bool
) -> None:
    """Or for its next one."""
    later = asking(60)

    def another_comes(message: object) -> bool:
        if message is later:
            return False
        system.supervisor._children["one"].mailbox.offer(later, at_once=True)
        assert not later.reply.answered
        return fails

    options = SystemOptions(seed=1, supervisor_type=crashing(another_comes))
    async with running_system(ONE, options=options) as system:
        await wait_all_tasks_blocked()
        with pytest.raises(InstanceCrashed) if fails else nullcontext():
            await ask(system, 40)
        await wait_all_tasks_blocked()
        assert isinstance(later.reply.value(), Grant)
        assert system.standing("one").account.reserved_tokens == (60 if fails else 100)
        assert len(system.supervisor._children["one"].crashes) == fails


async def test_an_ask_that_is_declined_at_once_goes_round_again(autojump_clock: MockClock) -> None:
    async with running_system(ONE) as system:
        await wait_all_tasks_blocked()
        standing = system.standing("one")
        judged: list[Obstacle | None] = [Obstacle("no_headroom", trio.current_time()), None]

        def as_scripted(*given: Any) -> Obstacle | None:
            return judged.pop() if judged else Standing.assess(standing, *given)

        with patch.object(standing, "assess", as_scripted), trio.fail_after(1):
            await lease(system, 10)
        assert not judged


async def test_an_ask_for_an_instance_that_has_retired_is_refused(
    autojump_clock: MockClock,
) -> None:
    """It still has a lease, so its actor still waits for messages."""
    with patch("actors.lease.ALONE_S", ALWAYS):
        async with running_system(ONE) as system:
            held = await lease(system, 10)
            await system.administration.remove("one")
            await refused(system, 10)
            held.settle(OK, 10)
            await wait_all_tasks_blocked()
            assert not system.supervisor._retiring


# -- many at random ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Visit:
    """Times in seconds. `leaves_after_s`: if it has no answer by then, or not yet ended."""

    at_s: float
    tokens: int
    priority: int
    again: bool
    patience_s: float
    leaves_after_s: float
    holds_s: float
    outcome: Outcome


def visits(rng: random.Random) -> list[Visit]:
    """No two things happen at the same time: the order of tasks must not matter."""

    def about(*times_s: float) -> float:
        return rng.choice(times_s) * (1 + 0.01 * rng.random())

    found, at_s = [], 0.0
    for _ in range(rng.randrange(5, 40)):
        at_s += about(0.4 * ALONE_S, 0.7 * ALONE_S, 1.3 * ALONE_S, 0.1, 3, 20)
        found.append(
            Visit(
                at_s=at_s,
                tokens=rng.choice([5, 10, 10, 40, 100]),
                priority=rng.choice([100, 100, 100, 1]),
                again=rng.random() < 0.1,
                patience_s=rng.choice([0, 0.5, 30, 300, 300]),
                leaves_after_s=about(inf, inf, inf, 0.0001, 0.05, 10, 50),
                holds_s=about(0.0003, 0.01, 1.7, 33),
                outcome=rng.choice([OK, OK, OK, FULL, DOWN]),
            )
        )
    return found


async def visit(system: RunningSystem, each: Visit) -> tuple[str, float]:
    """What came of it, and when."""
    answer = "left"
    answered_at: float | None = None
    with trio.move_on_after(each.leaves_after_s):
        try:
            got = await ask(
                system,
                each.tokens,
                patience_s=each.patience_s,
                priority=each.priority,
                again=each.again,
            )
        except InstanceCrashed:
            return "crashed", trio.current_time()
        answered_at = trio.current_time()
        if isinstance(got, CountFirst):
            return "count first", answered_at
        if isinstance(got, Refused):
            return got.reason, answered_at
        answer = got.config.name
        with got:
            await trio.sleep(each.holds_s)
            got.settle(each.outcome, each.tokens if each.outcome is OK else None)
    return answer, answered_at or trio.current_time()


async def change(system: RunningSystem, rng: random.Random) -> None:
    """An operator at work."""
    name = rng.choice(["one", "two", "three"])
    actions = (
        lambda: system.administration.update_config(name, {"max_tpm": rng.choice([50, 200])}),
        lambda: system.administration.update_config(name, {"enabled": rng.random() < 0.7}),
        lambda: system.administration.update_state(name, {"current_tpm": rng.choice([0, 90])}),
        lambda: system.administration.remove(name),
        lambda: system.administration.add(instance_config(name, max_tpm=100)),
    )
    with suppress(ChangeRefused):  # there is one, or none; or it crashed
        await rng.choice(actions)()


async def answers(
    seed: int, alone_s: float, crash_share: float = 0.0, changes: int = 0
) -> list[tuple[str, float]]:
    """What becomes of each visit, in their order; and then nothing of them is left anywhere."""
    rng, chance = random.Random(seed), random.Random(seed)

    def crash(message: object) -> bool:
        return isinstance(message, Acquire | Settle) and chance.random() < crash_share

    options = SystemOptions(
        seed=1,
        supervisor_type=crashing(crash),
        intensity=RestartIntensity(restarts=10**6),
        max_waiting=15,
    )
    provider = rng.choice(["azure", "generic"])
    configs = [
        instance_config(name, max_tpm=100, provider_type=provider)
        for name in ("one", "two", "three")[: rng.randrange(1, 4)]
    ]
    found: dict[int, tuple[str, float]] = {}
    with patch("actors.lease.ALONE_S", alone_s):
        async with running_system(*configs, options=options) as system:
            started = trio.current_time()

            async def come(number: int, each: Visit) -> None:
                await trio.sleep_until(started + each.at_s)
                answer, at = await visit(system, each)
                found[number] = answer, round(at - started, 6)

            async def operate() -> None:
                for _ in range(changes):
                    await trio.sleep(rng.choice([0.01, 3, 17]) * (1 + 0.01 * rng.random()))
                    await change(system, rng)

            with trio.fail_after(10_000):
                async with trio.open_nursery() as nursery:
                    for number, each in enumerate(visits(rng)):
                        nursery.start_soon(come, number, each)
                    nursery.start_soon(operate)
            await wait_all_tasks_blocked()
            nothing_is_left(system)
    return [found[number] for number in sorted(found)]


def nothing_is_left(system: RunningSystem) -> None:
    assert not system.supervisor._retiring
    for child in system.supervisor._children.values():
        account = child.standing.account
        assert (account.leases, account.reserved_tokens) == ({}, 0)
        assert not any(quota._open for quota in child.standing.capacity.quotas.values())
        assert len(child.mailbox) == 0
    assert system.router.address.waiting == 0
    assert len(system.router.address.mailbox) == 0
    assert not system.router._bookings._booked


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_everybody_gets_the_same_answer_at_the_same_time(seed: int) -> None:
    never, some, always = (
        trio.run(answers, seed, alone_s, clock=MockClock(autojump_threshold=0))
        for alone_s in (NEVER, ALONE_S, ALWAYS)
    )
    assert never == some
    assert never == always


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_whatever_fails_everybody_gets_an_answer_and_nothing_is_left(seed: int) -> None:
    for alone_s in (ALONE_S, ALWAYS):
        trio.run(answers, seed, alone_s, 0.05, 5, clock=MockClock(autojump_threshold=0))
