from __future__ import annotations

import random

import pytest
import trio
from asking import crashing, times
from harness import exact, instance_config, running_system
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from actors.errors import InstanceCrashed
from actors.lease import ALONE_S, Lease
from actors.messages import Acquire, Evidence, Outcome, Refused
from actors.system import SystemOptions


async def test_a_lease_reserves_until_it_is_settled() -> None:
    async with running_system(instance_config()) as system:
        account = system.standing("one").account
        lease = await system.leases.acquire(exact(300, output=100), 0)
        assert isinstance(lease, Lease)
        assert lease.tokens == 400
        assert lease.config.name == "one"
        assert account.reserved_tokens == 400
        lease.settle(Outcome("success", status=200, reached=True), 350)
        await wait_all_tasks_blocked()
        assert account.reserved_tokens == 0
        assert account.usage.total(trio.current_time()) == 350


async def note(ran: list[str]) -> None:
    ran.append("another task")


async def test_who_asks_alone_is_answered_at_once_and_who_ask_together_are_together(
    autojump_clock: MockClock,
) -> None:
    """At once: before any other task has run."""
    async with running_system(instance_config()) as system:
        for apart_s, at_once in ((0.0, True), (0.0, False), (2 * ALONE_S, True)):
            await trio.sleep(apart_s)
            await wait_all_tasks_blocked()
            others: list[str] = []
            async with trio.open_nursery() as nursery:
                nursery.start_soon(note, others)
                assert isinstance(await system.leases.acquire(exact(10), 0), Lease)
                assert bool(others) is not at_once


async def test_an_instance_that_fails_in_the_requesters_task_fails_for_itself(
    autojump_clock: MockClock,
) -> None:
    """As in its own: the requester is told, and the supervisor starts it anew."""
    crash = SystemOptions(seed=1, supervisor_type=crashing(times(1, Acquire)))
    async with running_system(instance_config(), options=crash) as system:
        with pytest.raises(InstanceCrashed):
            await system.leases.acquire(exact(10), 0)
        await trio.sleep(1)
        assert isinstance(await system.leases.acquire(exact(10), 0), Lease)
        assert len(system.supervisor._children["one"].crashes) == 1


async def test_who_is_cancelled_when_answered_at_once_leaves_nothing_reserved() -> None:
    async with running_system(instance_config()) as system:
        with trio.CancelScope() as scope:
            scope.cancel()
            await system.leases.acquire(exact(300), 0)
        assert scope.cancelled_caught
        await wait_all_tasks_blocked()
        assert system.standing("one").account.reserved_tokens == 0


async def test_only_the_first_settlement_counts() -> None:
    async with running_system(instance_config()) as system:
        lease = await system.leases.acquire(exact(10), 0)
        assert isinstance(lease, Lease)
        with lease:
            lease.settle(Outcome("success", status=200, reached=True), 10)
            lease.settle(Outcome("instance_error", reason="no"), 900)
        await wait_all_tasks_blocked()
        standing = system.standing("one")
        assert (standing.successful_requests, standing.error_count) == (1, 0)
        assert standing.account.usage.total(trio.current_time()) == 10


@pytest.mark.parametrize(
    ("provider", "complete", "charged"),
    [
        ("generic", True, 90),
        ("generic", False, 400),
        ("azure", True, 400),
        ("azure", False, 400),
    ],
)
@pytest.mark.parametrize("limit", [None, 1000])
async def test_what_was_counted_so_far_is_used_and_the_reservation_stays_charged(
    provider: str, complete: bool, charged: int, limit: int | None
) -> None:
    """Whether the limit is the configured one, or one that the upstream shows."""
    async with running_system(instance_config(provider_type=provider)) as system:
        lease = await system.leases.acquire(exact(300, output=100), 0)
        assert isinstance(lease, Lease)
        seen = None if limit is None else Evidence(limit_tokens=limit)
        lease.settle(Outcome("cancelled"), 90, seen, complete=complete)
        await wait_all_tasks_blocked()
        standing, now = system.standing("one"), trio.current_time()
        assert standing.account.usage.total(now) == 90
        assert standing.utilization(now) == charged / 1000


@pytest.mark.parametrize("complete", [True, False])
async def test_a_settlement_still_posted_at_the_end_counts_like_any_other(complete: bool) -> None:
    async with running_system(instance_config(provider_type="generic")) as system:
        lease = await system.leases.acquire(exact(300, output=100), 0)
        assert isinstance(lease, Lease)
        standing = system.standing("one")
        lease.settle(Outcome("cancelled"), 90, complete=complete)
    saved = system.state_store.saved["one"]
    assert saved["current_tpm"] == 90
    assert saved["utilization_percentage"] == (9.0 if complete else 40.0)
    assert not standing.account.leases


async def test_leaving_the_block_settles_an_unjudged_lease() -> None:
    async with running_system(instance_config()) as system:
        lease = await system.leases.acquire(exact(10), 0)
        assert isinstance(lease, Lease)
        with trio.CancelScope() as scope, lease:
            scope.cancel()
            await trio.lowlevel.checkpoint()
        await wait_all_tasks_blocked()
        assert not system.standing("one").account.leases


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_no_cancellation_at_any_moment_leaves_a_reservation(seed: int) -> None:
    rng = random.Random(seed)

    async def request(system: object, patience_s: float) -> None:
        with trio.move_on_after(patience_s):
            lease = await system.leases.acquire(exact(rng.randrange(1, 400)), 1e9)  # type: ignore[attr-defined]
            if not isinstance(lease, Refused):
                with lease:
                    for _ in range(rng.randrange(3)):
                        await trio.lowlevel.checkpoint()
                    await trio.sleep(rng.choice([0, 0.001, 1.0]))
                    if rng.random() < 0.5:
                        lease.settle(Outcome("success", status=200, reached=True), 5)

    async def scenario() -> None:
        configs = [instance_config(name, max_tpm=500) for name in ("one", "two", "three")]
        async with running_system(*configs) as system:
            async with trio.open_nursery() as nursery:
                for _ in range(150):
                    nursery.start_soon(request, system, rng.choice([0, 0, 0.0005, 0.5, 90]))
                    if rng.random() < 0.2:
                        await trio.sleep(rng.random())
            await wait_all_tasks_blocked()
            for config in configs:
                account = system.standing(config.name).account
                assert account.leases == {}
                assert account.reserved_tokens == 0
            assert system.router.address.waiting == 0

    trio.run(scenario, clock=MockClock(autojump_threshold=0))
