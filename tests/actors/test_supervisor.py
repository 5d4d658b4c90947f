from __future__ import annotations

import logging
from typing import Any

import pytest
import trio
from asking import OK, Crowd, ask, crashing, lease, refused, settled, times
from harness import RunningSystem, exact, instance_config, running_system
from trio.testing import MockClock, wait_all_tasks_blocked

from actors.errors import (
    ChangeRefused,
    InstanceCrashed,
    InvalidChange,
    NameTaken,
    StoreFailed,
    UnknownInstance,
)
from actors.lease import Lease
from actors.messages import Acquire, Refused, Settle
from actors.models import InstanceState
from actors.store import ConfigStore, StateStore
from actors.supervisor import RestartIntensity
from actors.system import System, SystemOptions

ONE, TWO = (
    instance_config("one", priority=1, max_tpm=1000),
    instance_config("two", priority=2, max_tpm=1000),
)


def options(crashes: int, kind: type = Acquire, **fields: Any) -> SystemOptions:
    return SystemOptions(seed=1, supervisor_type=crashing(times(crashes, kind)), **fields)


async def crash(system: RunningSystem, count: int = 1) -> None:
    for _ in range(count):
        with pytest.raises(InstanceCrashed):
            await ask(system, 1)


# -- restarts ----------------------------------------------------------------------------------


async def test_an_instance_is_restarted_as_often_as_its_intensity_allows(
    autojump_clock: MockClock,
) -> None:
    async with running_system(ONE, options=options(3)) as system:
        await crash(system, 3)
        await lease(system, 1)
        assert (await system.administration.read_one("one")).state.status == "healthy"


async def test_one_crash_more_quarantines_it_until_an_operator_resets_it(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with running_system(ONE, TWO, options=options(4)) as system:
        await crash(system, 4)
        assert (await lease(system, 1)).config.name == "two"
        assert await refused(system, 1, excluded={"two"}) == Refused("unavailable")
        state = (await system.administration.read_one("one")).state
        assert (state.status, state.health_status) == ("error", "error")
        assert state.last_error is not None
        assert state.last_error.startswith("quarantined")
        assert "quarantined" in caplog.text
        await trio.sleep(3600)
        assert (await lease(system, 1)).config.name == "two", "time alone does not reset it"
        await system.administration.update_state("one", {"status": "healthy"})
        assert (await lease(system, 1)).config.name == "one"


async def test_crashes_far_apart_are_forgotten(autojump_clock: MockClock) -> None:
    intensity = RestartIntensity(restarts=2, period_s=10.0)
    async with running_system(ONE, options=options(9, intensity=intensity)) as system:
        for _ in range(4):
            await crash(system, 2)
            await trio.sleep(10.1)
        await crash(system)
        await lease(system, 1)


async def test_after_a_reset_the_count_begins_anew(autojump_clock: MockClock) -> None:
    async with running_system(ONE, options=options(7)) as system:
        await crash(system, 4)
        await system.administration.update_state("one", {"status": "healthy"})
        await crash(system, 3)
        await lease(system, 1)


async def test_a_quarantined_instance_still_settles(autojump_clock: MockClock) -> None:
    async with running_system(ONE, options=options(5, Settle)) as system:
        leases = [await lease(system, 10) for _ in range(6)]
        for held in leases:
            await settled(held, OK, 10)
        standing = system.standing("one")
        assert standing.quarantine is not None
        assert standing.account.leases == {}
        assert standing.successful_requests == 6


async def test_who_waits_for_an_instance_that_is_quarantined_is_told(
    autojump_clock: MockClock,
) -> None:
    async with (
        running_system(ONE, options=options(4, Settle)) as system,
        trio.open_nursery() as nursery,
    ):
        leases = [await lease(system, 250) for _ in range(4)]
        waiting = await Crowd(system, nursery).join(100, patience_s=100)
        await trio.sleep(1)
        for held in leases:
            await settled(held, OK, 10)
        assert (waiting.answer, waiting.at) == (Refused("unavailable"), 1)


# -- administration ----------------------------------------------------------------------------


async def test_instances_are_read_in_their_order_with_config_and_state() -> None:
    async with running_system(TWO, ONE) as system:
        everything = await system.administration.read()
        assert list(everything) == ["two", "one"]
        assert everything["one"].config == ONE
        assert everything["one"].state == InstanceState(name="one")
        assert await system.administration.read_one("two") == everything["two"]


async def test_a_new_instance_is_on_disk_when_it_is_answered() -> None:
    async with running_system(ONE) as system:
        await system.administration.add(TWO)
        assert system.config_store.saved == {"one": ONE, "two": TWO}
        assert list(await system.administration.read()) == ["one", "two"]


async def test_changes_are_merged_and_named() -> None:
    async with running_system(ONE) as system:
        changes = {"priority": 5, "weight": ONE.weight}
        assert await system.administration.update_config("one", changes) == ("priority",)
        assert system.config_store.saved["one"].priority == 5


async def test_a_change_of_nothing_is_not_saved() -> None:
    async with running_system(ONE) as system:
        assert await system.administration.update_config("one", {"weight": ONE.weight}) == ()
        assert system.config_store.saves == 0


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda admin: admin.add(ONE), NameTaken),
        (lambda admin: admin.update_config("none", {"weight": 1}), UnknownInstance),
        (lambda admin: admin.update_state("none", {"error_count": 1}), UnknownInstance),
        (lambda admin: admin.remove("none"), UnknownInstance),
        (lambda admin: admin.read_one("none"), UnknownInstance),
        (lambda admin: admin.update_config("one", {"max_tpm": 0}), InvalidChange),
        (lambda admin: admin.update_config("one", {"nothing": 0}), InvalidChange),
        (lambda admin: admin.update_config("one", {"name": "other"}), InvalidChange),
        (lambda admin: admin.update_state("one", {"error_count": -1}), InvalidChange),
    ],
)
async def test_a_refused_change_leaves_everything_as_it_was(change: Any, error: Any) -> None:
    async with running_system(ONE, TWO) as system:
        before = await system.administration.read()
        with pytest.raises(error):
            await change(system.administration)
        await unchanged(system, before)


@pytest.mark.parametrize(
    "change",
    [
        lambda admin: admin.add(instance_config("three")),
        lambda admin: admin.update_config("one", {"enabled": False}),
        lambda admin: admin.remove("one"),
    ],
)
async def test_a_change_that_cannot_be_saved_is_not_made(change: Any) -> None:
    async with running_system(ONE, TWO) as system:
        before = await system.administration.read()
        system.config_store.failing = StoreFailed("disk full")
        with pytest.raises(StoreFailed):
            await change(system.administration)
        system.config_store.failing = None
        await unchanged(system, before)
        # What is saved next does not bring it back.
        await system.administration.update_config("two", {"weight": 7})
        assert list(system.config_store.saved) == ["one", "two"]
        assert system.config_store.saved["one"] == ONE


async def unchanged(system: RunningSystem, before: Any) -> None:
    assert await system.administration.read() == before
    assert system.config_store.saves == 0
    assert (await lease(system, 1)).config == ONE
    assert (await lease(system, 1, excluded={"one"})).config == TWO


@pytest.mark.parametrize(
    "change",
    [
        lambda admin: admin.add(instance_config("three", priority=0)),
        lambda admin: admin.update_config("two", {"priority": 0}),
        lambda admin: admin.remove("one"),
    ],
)
async def test_a_change_has_no_effect_and_no_answer_before_it_is_durable(
    change: Any, autojump_clock: MockClock
) -> None:
    async with running_system(ONE, TWO) as system, trio.open_nursery() as nursery:
        written = trio.Event()
        save = system.config_store.save

        async def slowly(content: Any) -> None:
            await written.wait()
            await save(content)

        system.config_store.save = slowly  # type: ignore[method-assign]
        answered = False

        async def make() -> None:
            nonlocal answered
            await change(system.administration)
            answered = True

        nursery.start_soon(make)
        await trio.sleep(5)
        assert not answered
        assert (await lease(system, 1)).config.name == "one"
        written.set()
        await wait_all_tasks_blocked()
        assert answered
        assert (await lease(system, 1)).config.name != "one"


async def test_more_administrators_than_places_are_refused() -> None:
    async with running_system(ONE) as system, trio.open_nursery() as nursery:
        outcomes: list[str] = []

        async def change() -> None:
            try:
                await system.administration.update_state("one", {"error_count": 1})
                outcomes.append("done")
            except ChangeRefused:
                outcomes.append("refused")

        await wait_all_tasks_blocked()
        for _ in range(300):
            nursery.start_soon(change)
        await wait_all_tasks_blocked()
        assert (outcomes.count("done"), outcomes.count("refused")) == (256, 44)


async def test_a_change_under_way_at_the_end_is_answered() -> None:
    """And so is the one behind it. Nobody may hang on a service that stops."""
    outcomes: list[str] = []
    async with trio.open_nursery() as nursery:
        async with running_system(ONE, TWO) as system:

            async def never(content: Any) -> None:
                await trio.sleep_forever()

            system.config_store.save = never  # type: ignore[method-assign]

            async def change(name: str) -> None:
                with pytest.raises(ChangeRefused, match="shutting down"):
                    await system.administration.update_config(name, {"weight": 1})
                outcomes.append(name)

            for name in ("one", "two"):
                nursery.start_soon(change, name)
                await wait_all_tasks_blocked()
        await wait_all_tasks_blocked()
        assert outcomes == ["one", "two"]
        with pytest.raises(ChangeRefused, match="shutting down"):
            await system.administration.read()


# -- the state file ----------------------------------------------------------------------------


async def test_changes_of_a_second_are_saved_together(autojump_clock: MockClock) -> None:
    async with running_system(ONE, TWO) as system:
        await trio.sleep(1.5)
        before = system.state_store.saves
        for _ in range(50):
            await settled(await lease(system, 1), OK, 1)
        assert system.state_store.saves == before
        await trio.sleep(1)
        assert system.state_store.saves == before + 1
        assert system.state_store.saved["one"]["successful_requests"] == 50


async def test_nothing_is_saved_when_nothing_has_changed(autojump_clock: MockClock) -> None:
    async with running_system(ONE) as system:
        await settled(await lease(system, 1), OK, 1)
        await trio.sleep(2)
        saves = system.state_store.saves
        await trio.sleep(100)
        assert system.state_store.saves == saves
    assert system.state_store.saves == saves


@pytest.mark.parametrize("change", ["lease", "amendment", "addition", "removal"])
async def test_every_kind_of_change_is_saved(autojump_clock: MockClock, change: str) -> None:
    async with running_system(ONE, TWO) as system:
        await trio.sleep(2)
        saves = system.state_store.saves
        match change:
            case "lease":
                await lease(system, 1)
            case "amendment":
                await system.administration.update_state("one", {"error_count": 3})
            case "addition":
                await system.administration.add(instance_config("three"))
            case "removal":
                await system.administration.remove("two")
        await trio.sleep(2)
        assert system.state_store.saves == saves + 1
        names = {"addition": ["one", "two", "three"], "removal": ["one"]}
        assert list(system.state_store.saved) == names.get(change, ["one", "two"])


async def test_the_last_state_is_saved_at_the_end() -> None:
    async with running_system(ONE) as system:
        held = await lease(system, 40)
        saves = system.state_store.saves
        held.settle(OK, 30)  # posted, not yet handled
    assert system.state_store.saves == saves + 1
    saved = system.state_store.saved["one"]
    assert (saved["successful_requests"], saved["current_tpm"]) == (1, 30)


async def test_a_state_that_cannot_be_saved_is_tried_again(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with running_system(ONE) as system:
        system.state_store.failing = StoreFailed("disk full")
        await settled(await lease(system, 1), OK, 1)
        await trio.sleep(3)
        assert "disk full" in caplog.text
        system.state_store.failing = None
        await lease(system, 1)
        await trio.sleep(1.5)
        assert system.state_store.saved["one"]["total_requests"] == 2


async def test_files_of_a_real_store_carry_over_to_the_next_start(tmp_path: Any) -> None:
    """Real files, real clock: nothing here waits for time."""
    configs, states = ConfigStore(tmp_path / "configs.json"), StateStore(tmp_path / "states.json")
    for start in range(3):
        async with trio.open_nursery() as nursery:
            system = System(
                configs.load(),
                states.load()[0],
                configs,
                states,
                SystemOptions(seed=1),
                logging.getLogger("test"),
            )
            await nursery.start(system.run)
            if start == 0:
                await system.administration.add(ONE)
            held = await system.leases.acquire(exact(10), trio.current_time())
            assert isinstance(held, Lease)
            held.settle(OK, 10)
            await system.administration.read()
            nursery.cancel_scope.cancel()
    assert configs.load() == {"one": ONE}
    assert states.load()[0]["one"].successful_requests == 3
    assert states.load()[0]["one"].current_tpm == 30
