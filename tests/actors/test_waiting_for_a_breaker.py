"""Requests before an instance whose breaker is open."""

from __future__ import annotations

import pytest
import trio
from asking import DOWN, Crowd, ask, lease, refused, settled, take_down
from harness import running_system
from trio.testing import MockClock
from two_sizes import LARGE, SMALL

from actors.lease import Lease
from actors.messages import Outcome, Refused
from actors.policy.breaker import RAMP_S


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
