from __future__ import annotations

import logging
import random
from typing import Any

import pytest
import trio
from asking import DOWN, OK, Crash, Crowd, ask, crashing, lease, settled, take_down, times
from harness import exact, instance_config, running_system
from trio.testing import MockClock, wait_all_tasks_blocked

from actors.clock import WallClock
from actors.errors import ChangeRefused, InstanceCrashed
from actors.instance import InstanceActor
from actors.lease import CANCELLED_BEFORE_SENDING, Lease
from actors.mailbox import Mailbox, Reply
from actors.messages import (
    Acquire,
    AmendState,
    Answer,
    Declined,
    Grant,
    LeaseId,
    Reconfigure,
    Refused,
    Retire,
    Settle,
)
from actors.models import InstanceState
from actors.policy.standing import Standing
from actors.router import RouterAddress
from actors.state_log import StateLog
from actors.system import SystemOptions

ONE = instance_config("one", max_tpm=1000)
GENERIC = instance_config("one", provider_type="generic", max_tpm=1000)


def options(*arguments: Any, **keywords: Any) -> SystemOptions:
    return SystemOptions(seed=1, supervisor_type=crashing(*arguments, **keywords))


def always(kind: type) -> Any:
    """Chooses every message of this kind: a second try would crash as well."""
    return lambda message: isinstance(message, kind)


async def test_a_grant_names_all_that_the_requester_needs() -> None:
    config = instance_config("one", model_deployments={"gpt-4": "my-gpt-4"})
    async with running_system(config) as system:
        granted = await lease(system, exact(30, output=70))
        assert (granted.config, granted.deployment, granted.tokens) == (config, "my-gpt-4", 100)


async def test_a_lease_keeps_the_configuration_that_it_was_granted_with() -> None:
    async with running_system(ONE) as system:
        before = await lease(system, 1)
        await system.administration.update_config("one", {"api_key": "another-key-0123456789"})
        after = await lease(system, 1)
        assert before.config.api_key == ONE.api_key
        assert after.config.api_key == "another-key-0123456789"


async def test_an_abandoned_ask_reserves_nothing() -> None:
    async with running_system(ONE) as system:
        reply: Reply[Answer] = Reply()
        reply.abandon()
        mailbox = system.supervisor._children["one"].mailbox
        mailbox.offer(Acquire(LeaseId(99), exact(10), 0.0, reply))
        await wait_all_tasks_blocked()
        assert system.standing("one").account.leases == {}


async def test_settlements_of_unknown_leases_are_ignored() -> None:
    async with running_system(ONE) as system:
        held = await lease(system, 10)
        before = system.standing("one").state(0, system.clock)
        system.supervisor._children["one"].mailbox.tell(Settle(LeaseId(12345), DOWN, 999))
        await wait_all_tasks_blocked()
        assert system.standing("one").state(0, system.clock) == before
        await settled(held)


async def test_a_client_that_left_says_nothing_about_the_connection() -> None:
    async with running_system(ONE) as system:
        await settled(await lease(system, 10), OK, 10)
        await settled(await lease(system, 10), CANCELLED_BEFORE_SENDING)
        state = (await system.administration.read_one("one")).state
        assert state.connection_status == "connected"


async def test_a_retired_instance_grants_nothing_more_and_ends_with_its_last_lease() -> None:
    async with running_system(ONE) as system:
        first, second = await lease(system, 10), await lease(system, 10)
        child = system.supervisor._children["one"]
        await system.administration.remove("one")
        reply: Reply[Answer] = Reply()
        child.mailbox.offer(Acquire(LeaseId(99), exact(10), 0.0, reply))
        assert await reply.wait() == Refused("unknown_model"), "declined, and nobody else is left"
        await settled(first)
        assert not child.mailbox.closed
        await settled(second)
        assert child.mailbox.closed
        assert system.supervisor._retiring == []
        assert child.standing.successful_requests == 2


def test_handling_messages_takes_no_task() -> None:
    """Outside trio nothing can wait: each message is one atomic change."""
    address = RouterAddress(Mailbox(10))
    standing = Standing(ONE, random.Random(1))
    clock = WallClock(0.0)
    state_log = StateLog(standing, clock, logging.getLogger("actors"))
    actor = InstanceActor(standing, Mailbox(10), address, clock, state_log)
    granted: Reply[Answer] = Reply()
    for message in (
        Acquire(LeaseId(1), exact(10), 0.0, granted),
        Acquire(LeaseId(2), exact(10_000), 0.0, Reply()),
        Settle(LeaseId(1), OK, 5),
        Reconfigure(ONE, Reply()),
        AmendState({"error_count": 1}, Reply()),
        Retire(),
    ):
        actor.handle(message, 0.0)
    assert isinstance(granted.value(), Grant)
    assert isinstance(address.mailbox.receive_nowait(), Declined)


# -- crashes -----------------------------------------------------------------------------------


async def test_a_crash_costs_its_ask_an_error_and_nothing_else() -> None:
    """Counters, open leases and other instances are as they were."""
    two = instance_config("two", priority=200)
    crash = options(lambda message: isinstance(message, Acquire) and message.demand == exact(13))
    async with running_system(GENERIC, two, options=crash) as system:
        held = await lease(system, 100)
        await settled(await lease(system, 100), OK, 50)
        elsewhere = await lease(system, 100, excluded={"one"})
        before = system.standing("one").state(0, system.clock)
        with pytest.raises(InstanceCrashed):
            await ask(system, 13)
        assert system.standing("one").state(0, system.clock) == before
        await settled(held, OK, 30)
        assert system.standing("one").account.usage.total(0) == 80
        await settled(elsewhere, OK)
        assert system.standing("two").successful_requests == 1
        assert (await lease(system, 10)).config.name == "one"


async def test_messages_behind_the_one_that_crashed_are_still_answered() -> None:
    async with running_system(ONE, options=options(times(2, Acquire))) as system:
        replies: list[Reply[Answer]] = [Reply() for _ in range(5)]
        mailbox = system.supervisor._children["one"].mailbox
        for number, reply in enumerate(replies):
            mailbox.offer(Acquire(LeaseId(100 + number), exact(10), 0.0, reply))
        for reply in replies[:2]:
            with pytest.raises(InstanceCrashed):
                await reply.wait()
        assert all([isinstance(await reply.wait(), Grant) for reply in replies[2:]])


async def test_a_grant_that_was_given_before_the_crash_holds() -> None:
    async with running_system(ONE, options=options(times(1, Acquire), afterwards=True)) as system:
        granted = await lease(system, 100)
        assert system.standing("one").account.reserved_tokens == 100
        await settled(granted, OK, 60)
        account = system.standing("one").account
        assert (account.reserved_tokens, account.usage.total(0)) == (0, 60)


async def test_an_ask_that_its_crash_has_answered_reserves_nothing_elsewhere() -> None:
    """It was declined before the crash, so it is still on its way; its requester asks anew."""
    full = instance_config("one", max_tpm=5)
    crash = options(times(1, Acquire), afterwards=True)
    async with running_system(full, instance_config("two"), options=crash) as system:
        reply: Reply[Answer] = Reply()
        mailbox = system.supervisor._children["one"].mailbox
        mailbox.offer(Acquire(LeaseId(99), exact(10), 0.0, reply))
        await wait_all_tasks_blocked()
        with pytest.raises(InstanceCrashed):
            await reply.wait()
        assert system.standing("two").account.leases == {}


@pytest.mark.parametrize("afterwards", [False, True])
async def test_a_crash_with_a_settlement_in_hand_still_settles(afterwards: bool) -> None:
    async with running_system(
        GENERIC, options=options(times(1, Settle), afterwards=afterwards)
    ) as system:
        await settled(await lease(system, 500), OK, 120)
        standing = system.standing("one")
        assert standing.account.leases == {}
        assert standing.account.usage.total(0) == 120
        assert standing.account.free(0) == 880
        assert (standing.total_requests, standing.successful_requests) == (1, 1)


async def test_what_a_crashed_settlement_frees_serves_those_who_wait(
    autojump_clock: MockClock,
) -> None:
    async with (
        running_system(GENERIC, options=options(times(1, Settle))) as system,
        trio.open_nursery() as nursery,
    ):
        held = await lease(system, 1000)
        waiting = await Crowd(system, nursery).join(500, patience_s=61)
        await settled(held, OK, 10)
        assert (waiting.instance, waiting.at) == ("one", 0)


async def test_a_crash_with_a_new_configuration_in_hand_still_applies_it() -> None:
    async with running_system(ONE, options=options(always(Reconfigure))) as system:
        await system.administration.update_config("one", {"max_tpm": 5000})
        assert (await lease(system, 4000)).config.max_tpm == 5000


async def test_a_crash_with_a_retirement_in_hand_still_retires() -> None:
    async with running_system(ONE, options=options(always(Retire))) as system:
        child = system.supervisor._children["one"]
        await system.administration.remove("one")
        await wait_all_tasks_blocked()
        assert child.mailbox.closed


async def test_a_crash_with_a_correction_in_hand_refuses_it_without_details() -> None:
    async with running_system(ONE, options=options(times(1, AmendState))) as system:
        with pytest.raises(ChangeRefused, match="try again"):
            await system.administration.update_state("one", {"error_count": 3})
        state = await system.administration.update_state("one", {"error_count": 4})
        assert state.error_count == 4


async def test_a_crash_in_the_middle_of_a_reservation_leaves_nothing_reserved(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with running_system(ONE) as system:
        standing = system.standing("one")

        def broken(*_: object) -> None:
            raise Crash

        with monkeypatch.context() as patched:
            patched.setattr(type(standing.breaker), "granted", broken)
            with pytest.raises(InstanceCrashed):
                await ask(system, 100)
        assert standing.account.leases == {}
        assert standing.account.free(0) == 1000
        assert standing.account.requests.total(0) <= 1
        assert isinstance(await ask(system, 1000), Lease)


# -- a breaker's life --------------------------------------------------------------------------


async def test_an_open_breaker_shows_as_an_error_until_a_probe_is_sent(
    autojump_clock: MockClock,
) -> None:
    """Time alone proves nothing: what was observed last is that it fails."""
    async with running_system(ONE) as system:

        async def shown() -> tuple[str, str]:
            state = (await system.administration.read_one("one")).state
            return state.status, state.health_status

        until = await take_down(system, "one")
        assert await shown() == ("error", "error")
        assert not system.supervisor.can_serve()
        await trio.sleep_until(until + 3600)
        assert await shown() == ("error", "error")
        assert system.supervisor.can_serve(), "it would take a request"
        probe = await lease(system, 10)
        assert await shown() == ("healthy", "healthy")
        await settled(probe, DOWN)
        assert await shown() == ("error", "error")


async def test_an_open_breaker_survives_a_restart(
    autojump_clock: MockClock, one_wall_clock: None
) -> None:
    async with running_system(ONE) as system:
        until = await take_down(system, "one")
        await trio.sleep(0.2)
    saved = {
        name: InstanceState.model_validate(record)
        for name, record in system.state_store.saved.items()
    }
    async with running_system(ONE, states=saved) as system:
        answer = await ask(system, 10)
        assert isinstance(answer, Refused)
        assert answer.retry_at == pytest.approx(until, abs=0.01)
        await lease(system, 10, patience_s=5)


@pytest.mark.parametrize(
    "damage",
    [
        {"saved_at": 10**400, "accounts": {"charge": "1.0 1 5"}},
        {"saved_at": 1_700_000_000.0, "accounts": {"charge": f"{10**400}.0 1 5"}},
        {"saved_at": 1_700_000_000.0, "benches": {"limits": {"gpt-4": 10**400}}},
        {"saved_at": 1_700_000_000.0, "breaker": {"open_s": "long", "trips": 10**400}},
    ],
)
async def test_a_damaged_record_does_not_stop_the_start(damage: dict[str, Any]) -> None:
    state = InstanceState.model_validate({"name": "one", "capacity": damage})
    async with running_system(ONE, states={"one": state}) as system:
        assert isinstance(await ask(system, 1000), Lease)
