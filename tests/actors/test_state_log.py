"""The log's lines about instances: each change of state once, with its cause, and not too many."""

from __future__ import annotations

import logging
import random
from typing import Any

import pytest
import trio
from asking import OK, ask, crashing, lease, settled, take_down, times
from harness import exact, instance_config, running_system
from trio.testing import MockClock

from actors.clock import WallClock
from actors.messages import Acquire, LeaseId, Outcome
from actors.policy.standing import Standing
from actors.state_log import LINES_PER_MINUTE, StateLog
from actors.system import SystemOptions

ONE = instance_config("one", max_tpm=100_000)
LIMITED = Outcome(
    "rate_limited", 429, "429: too many tokens", bench_s=5.0, reached=True, request_id="req-7"
)
UNAUTHORIZED = Outcome("credential_error", 401, "401: no", reached=True, request_id="req-8")
MISSING = Outcome("model_error", 404, "404: no such deployment", reached=True)

pytestmark = pytest.mark.usefixtures("one_wall_clock", "told")


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, "actors")
    return caplog


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if hasattr(record, "state")]


def last(caplog: pytest.LogCaptureFixture) -> Any:
    return [record for record in caplog.records if hasattr(record, "state")][-1]


async def test_a_rate_limit_is_told_with_its_cause_and_its_end(
    autojump_clock: MockClock, told: pytest.LogCaptureFixture
) -> None:
    async with running_system(ONE) as system:
        await trio.sleep(1)
        began = 1_700_000_000.0 + trio.current_time()
        await settled(await lease(system, 10), LIMITED)
        assert lines(told) == ["instance one: healthy -> rate_limited"]
        line = last(told)
        assert (line.levelname, line.instance, line.model) == ("WARNING", "one", "gpt-4")
        assert (line.status, line.reason) == ("rate_limited", "429: too many tokens")
        assert line.request_id == "req-7"
        assert began == 1_700_000_001.0
        assert line.until == "2023-11-14T22:13:26.000Z"
        await trio.sleep(7)
        assert lines(told)[1:] == ["instance one: rate_limited -> healthy"]
        line = last(told)
        assert (line.levelname, line.status) == ("INFO", "healthy")
        assert not hasattr(line, "request_id")


async def test_more_of_the_same_is_no_change(
    autojump_clock: MockClock, told: pytest.LogCaptureFixture
) -> None:
    async with running_system(ONE) as system:
        held = [await lease(system, 1) for _ in range(20)]
        for each in held:
            await settled(each, LIMITED)
        assert lines(told) == ["instance one: healthy -> rate_limited"]


async def test_successes_are_not_told(
    autojump_clock: MockClock, told: pytest.LogCaptureFixture
) -> None:
    async with running_system(ONE) as system:
        for outcome in (OK, Outcome("client_error", 400, "400"), Outcome("cancelled")):
            await settled(await lease(system, 1), outcome)
        await trio.sleep(5)
        assert lines(told) == []


async def test_a_breaker_is_told_of_at_each_step(
    autojump_clock: MockClock, told: pytest.LogCaptureFixture
) -> None:
    async with running_system(ONE) as system:
        await trio.sleep_until(await take_down(system, "one"))
        for _ in range(20):
            await settled(await lease(system, 1), OK._replace(request_id="req-9"))
        assert lines(told) == [
            "instance one: breaker_closed -> breaker_open",
            "instance one: breaker_open -> breaker_half_open",
            "instance one: breaker_half_open -> breaker_closed",
        ]
        assert last(told).request_id == "req-9"
        opened: Any = next(record for record in told.records if hasattr(record, "state"))
        assert opened.reason == "connect: refused"
        assert opened.until.startswith("2023-11-14T")


async def test_a_refused_credential_and_a_missing_model_are_told(
    autojump_clock: MockClock, told: pytest.LogCaptureFixture
) -> None:
    async with running_system(ONE) as system:
        await settled(await lease(system, 1), MISSING)
        assert last(told).model == "gpt-4"
        await trio.sleep(62)
        await settled(await lease(system, 1), UNAUTHORIZED)
        assert (last(told).levelname, last(told).request_id) == ("ERROR", "req-8")
        await system.administration.update_config("one", {"api_key": "another-key-0123456789"})
        assert lines(told) == [
            "instance one: healthy -> model_missing",
            "instance one: model_missing -> healthy",
            "instance one: healthy -> credential_refused",
            "instance one: credential_refused -> healthy",
        ]
        assert last(told).reason == "its configuration was changed"
        assert "key-0123456789" not in told.text


async def test_a_quarantine_is_told_until_an_operator_ends_it(
    autojump_clock: MockClock, told: pytest.LogCaptureFixture
) -> None:
    on_asks = crashing(times(4, Acquire))
    async with running_system(
        ONE, options=SystemOptions(seed=1, supervisor_type=on_asks)
    ) as system:
        for _ in range(4):
            with pytest.raises(Exception, match="one"):
                await ask(system, 1)
        assert lines(told) == ["instance one: healthy -> quarantined"]
        assert "quarantined: its task failed" in last(told).reason
        await system.administration.update_state("one", {"status": "healthy"})
        assert lines(told)[1:] == ["instance one: quarantined -> healthy"]
        assert last(told).reason == "an operator set its state"


async def test_switching_an_instance_off_and_on_is_told(
    autojump_clock: MockClock, told: pytest.LogCaptureFixture
) -> None:
    async with running_system(ONE) as system:
        for enabled in (False, True):
            await system.administration.update_config("one", {"enabled": enabled})
        assert lines(told) == [
            "instance one: healthy -> disabled",
            "instance one: disabled -> healthy",
        ]


async def test_what_the_state_file_said_is_told_at_the_start(
    autojump_clock: MockClock, told: pytest.LogCaptureFixture
) -> None:
    async with running_system(ONE) as before:
        await settled(await lease(before, 10), LIMITED)
        state = (await before.administration.read_one("one")).state
    told.clear()
    async with running_system(ONE, states={"one": state}):
        await trio.sleep(0.1)
        assert lines(told) == ["instance one: healthy -> rate_limited"]


class Flapping:
    """An instance that is limited for a moment, again and again."""

    def __init__(self) -> None:
        self.standing = Standing(ONE, random.Random(1))
        self.log = StateLog(self.standing, WallClock(0.0), logging.getLogger("actors"))
        self.now = 100.0

    def go(self, models: list[str], every_s: float) -> None:
        for model in models:
            lease_id = LeaseId(self.standing.total_requests)
            self.standing.reserve(lease_id, exact(1, model=model), self.now)
            self.standing.settle(lease_id, LIMITED._replace(bench_s=0.05), 0, self.now)
            self.log.notice(self.now, "429")
            self.now += every_s


def test_an_instance_that_comes_and_goes_is_told_of_in_sum(
    told: pytest.LogCaptureFixture,
) -> None:
    flapping = Flapping()
    flapping.go([f"m{number}" for number in range(200)], every_s=0.1)
    assert len(lines(told)) == LINES_PER_MINUTE
    flapping.now += 60
    flapping.log.notice(flapping.now)
    ends = 199
    assert f"{200 + ends - LINES_PER_MINUTE} more changes" in told.text
    assert lines(told)[LINES_PER_MINUTE:] == ["instance one: rate_limited -> healthy"]


def test_a_bench_that_had_ended_and_was_set_again_is_a_change(
    told: pytest.LogCaptureFixture,
) -> None:
    flapping = Flapping()
    flapping.go(["m"] * 3, every_s=20)  # a bench whose probe is refused is longer than its hint
    assert lines(told) == ["instance one: healthy -> rate_limited"] * 3
