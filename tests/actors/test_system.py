"""What the actors do together: changes of the roster, starting, stopping, starting again."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from asking import OK, Crowd, ask, lease, settled
from harness import exact, instance_config, running_system
from trio.testing import MockClock, wait_all_tasks_blocked

from actors.errors import UnknownInstance
from actors.lease import Lease
from actors.mailbox import Reply
from actors.messages import Acquire, Answer, Grant, LeaseId, Refused
from actors.models import InstanceState
from actors.system import SystemOptions

ONE, TWO = (
    instance_config("one", priority=1, max_tpm=1000),
    instance_config("two", priority=2, max_tpm=1000),
)


# -- a change takes effect on the next request ---------------------------------------------------


async def served_by(system: Any, tokens: int = 1) -> str | None:
    """Asked in the very moment in which the change is answered."""
    answer = await ask(system, tokens)
    return answer.config.name if isinstance(answer, Lease) else None


async def test_disabling_and_enabling() -> None:
    async with running_system(ONE, TWO) as system:
        admin = system.administration
        for enabled, name in [(False, "two"), (True, "one")] * 20:
            await admin.update_config("one", {"enabled": enabled})
            assert await served_by(system) == name


async def test_a_lone_instance_serves_from_the_moment_at_which_it_is_enabled() -> None:
    async with running_system(instance_config("one", enabled=False)) as system:
        for enabled, name in [(True, "one"), (False, None)] * 20:
            await system.administration.update_config("one", {"enabled": enabled})
            assert await served_by(system) == name


async def test_a_new_priority() -> None:
    async with running_system(ONE, TWO) as system:
        await system.administration.update_config("two", {"priority": 0})
        assert await served_by(system) == "two"


async def test_a_new_key_and_address() -> None:
    async with running_system(ONE) as system:
        fresh = {"api_key": "another-key-0123456789", "api_base": "https://moved.example"}
        await system.administration.update_config("one", fresh)
        config = (await lease(system, 1)).config
        assert (config.api_key, config.api_base) == tuple(fresh.values())


async def test_a_new_limit() -> None:
    async with running_system(ONE) as system:
        await lease(system, 1000)
        for limit in range(2000, 40_000, 1000):
            assert await served_by(system, 1000) is None
            await system.administration.update_config("one", {"max_tpm": limit})
            assert await served_by(system, 1000) == "one"


async def test_a_lower_limit_is_kept_too() -> None:
    async with running_system(ONE) as system:
        await lease(system, 600)
        await system.administration.update_config("one", {"max_tpm": 500})
        assert await served_by(system) is None


async def test_new_models() -> None:
    async with running_system(ONE) as system:
        assert await ask(system, exact(1, model="gpt-5")) == Refused("unknown_model")
        await system.administration.update_config("one", {"supported_models": ["gpt-5"]})
        assert isinstance(await ask(system, exact(1, model="gpt-5")), Lease)
        assert await ask(system, exact(1, model="gpt-4")) == Refused("unknown_model")


async def test_a_new_instance() -> None:
    async with running_system(TWO) as system:
        await system.administration.add(ONE)
        assert await served_by(system) == "one"


async def test_the_first_instance_of_all() -> None:
    async with running_system() as system:
        assert await ask(system, 1) == Refused("unknown_model")
        await system.administration.add(ONE)
        assert await served_by(system) == "one"


async def test_a_deleted_instance_finishes_what_runs_and_gets_nothing_new() -> None:
    async with running_system(ONE, TWO) as system:
        running = await lease(system, 100)
        standing = system.standing("one")
        await system.administration.remove("one")
        assert await served_by(system) == "two"
        with pytest.raises(UnknownInstance):
            await system.administration.read_one("one")
        assert standing.account.reserved_tokens == 100
        await settled(running, OK, 80)
        assert (standing.account.reserved_tokens, standing.successful_requests) == (0, 1)
    assert list(system.state_store.saved) == ["two"]


async def test_a_deleted_name_can_be_used_again_while_its_last_request_runs() -> None:
    async with running_system(ONE) as system:
        running = await lease(system, 1000)
        await system.administration.remove("one")
        await system.administration.add(ONE)
        await lease(system, 1000)
        await settled(running, OK, 1000)
        assert system.standing("one").account.reserved_tokens == 1000


@pytest.mark.parametrize("change", ["new instance", "higher limit", "enabled", "cleared"])
async def test_a_change_serves_those_who_wait_at_once(
    autojump_clock: MockClock, change: str
) -> None:
    off = instance_config("off", enabled=False)
    async with running_system(ONE, off) as system, trio.open_nursery() as nursery:
        await lease(system, 1000)
        waiting = await Crowd(system, nursery).join(500, patience_s=100)
        await trio.sleep(7)
        admin = system.administration
        match change:
            case "new instance":
                await admin.add(TWO)
            case "higher limit":
                await admin.update_config("one", {"max_tpm": 1500})
            case "enabled":
                await admin.update_config("off", {"enabled": True})
            case "cleared":
                await admin.update_state("one", {"current_tpm": 0})
                # The open lease still counts.
                assert waiting.answer is None
                await admin.update_config("one", {"max_tpm": 2000})
        await wait_all_tasks_blocked()
        assert waiting.at == 7
        assert isinstance(waiting.answer, Lease)


async def test_those_who_wait_for_a_deleted_instance_are_told_at_once(
    autojump_clock: MockClock,
) -> None:
    async with running_system(ONE) as system, trio.open_nursery() as nursery:
        await lease(system, 1000)
        waiting = await Crowd(system, nursery).join(500, patience_s=100)
        await system.administration.remove("one")
        await wait_all_tasks_blocked()
        assert waiting.answer == Refused("unknown_model")


async def test_requests_in_flight_through_many_changes_are_each_settled_once(
    autojump_clock: MockClock,
) -> None:
    async with running_system(ONE, TWO) as system:
        done = 0

        async def request() -> None:
            nonlocal done
            answer = await ask(system, 5, patience_s=30)
            if isinstance(answer, Lease):
                await trio.sleep(1.7)
                answer.settle(OK, 5)
            done += 1

        async with trio.open_nursery() as nursery:
            for number in range(40):
                for _ in range(5):
                    nursery.start_soon(request)
                await trio.sleep(0.1)
                match number % 4:
                    case 0:
                        await system.administration.update_config("one", {"weight": number})
                    case 1:
                        await system.administration.remove("two")
                    case 2:
                        await system.administration.add(TWO)
                    case 3:
                        await system.administration.update_config(
                            "one", {"enabled": number % 8 == 3}
                        )
        await wait_all_tasks_blocked()
        assert done == 200
        assert system.supervisor._retiring == []
        for name in ("one", "two"):
            assert system.standing(name).account.leases == {}
        assert system.router.address.waiting == 0


# -- start and stop ----------------------------------------------------------------------------


async def test_a_request_in_the_first_instant_finds_the_instances() -> None:
    for _ in range(20):
        async with running_system(ONE) as system:
            assert await served_by(system) == "one"


async def test_who_waits_at_the_end_is_told() -> None:
    async with trio.open_nursery() as nursery:
        async with running_system(ONE) as system:
            await lease(system, 1000)
            crowd = Crowd(system, nursery)
            waiting = await crowd.join(500, patience_s=100)
            unread = crowd.start(1)
        await wait_all_tasks_blocked()
        assert waiting.answer == Refused("unavailable")
        assert unread.answer is not None
        assert await ask(system, 1) == Refused("unavailable")


async def test_an_ask_that_an_instance_declines_at_the_end_is_still_answered() -> None:
    async with running_system(ONE) as system:
        await lease(system, 990)
        replies: list[Reply[Answer]] = [Reply() for _ in range(5)]
        for number, reply in enumerate(replies):
            late = Acquire(LeaseId(1000 + number), exact(10), 0.0, reply)
            system.router.address.mailbox.offer(late)
        system.router.turn()  # all are forwarded, none is decided yet
        system.router.close()
        await wait_all_tasks_blocked()
        assert isinstance(replies[0].value(), Grant)
        assert [reply.value() for reply in replies[1:]] == [Refused("unavailable")] * 4


async def test_a_restart_in_a_full_minute_forgets_nothing(
    autojump_clock: MockClock, one_wall_clock: None
) -> None:
    config = instance_config("one", max_tpm=1000)
    async with running_system(config) as system:
        await settled(await lease(system, 700), OK, 600)
        await trio.sleep(20)
        before = (await system.administration.read_one("one")).state
    saved = {
        name: InstanceState.model_validate(record)
        for name, record in system.state_store.saved.items()
    }
    async with running_system(config, states=saved) as system:
        after = (await system.administration.read_one("one")).state
        unconnected = before.model_copy(update={"connection_status": "unknown"})
        assert after == unconnected, "nobody has connected since"
        answer = await ask(system, 400)
        assert isinstance(answer, Refused)
        assert answer.retry_at is not None
        assert 60 <= answer.retry_at <= 61.3, "the file keeps seconds, and the younger end counts"
        await lease(system, 300)


@pytest.mark.parametrize("strategy", ["priority", "failover", "weighted", "round_robin", "random"])
async def test_a_seed_makes_the_same_choices(strategy: Any) -> None:
    runs = []
    configs = [instance_config(f"i{number}", max_tpm=10**6) for number in range(5)]
    for seed in (7, 7, 8):
        options = SystemOptions(strategy=strategy, seed=seed)
        async with running_system(*configs, options=options) as system:
            runs.append([await served_by(system) for _ in range(30)])
    assert runs[0] == runs[1]
    if strategy != "failover":
        assert runs[1] != runs[2]
