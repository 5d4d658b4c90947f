from __future__ import annotations

import logging
import random

import trio
from asking import OK
from harness import MemoryStore, exact, instance_config
from trio.testing import MockClock

from actors.child import Child
from actors.clock import WallClock
from actors.messages import Evidence, LeaseId
from actors.models import InstanceState
from actors.policy.standing import Standing
from actors.state_file import StateFile
from actors.state_log import StateLog

LOG = logging.getLogger("actors")
CLOCK = WallClock(1_700_000_000.0)


def child(name: str) -> Child:
    config = instance_config(name)
    standing = Standing(config, random.Random(1))
    return Child(config, standing, StateLog(standing, CLOCK, LOG))


async def test_each_record_is_of_the_moment_at_which_it_was_made(mock_clock: MockClock) -> None:
    """The records of many instances take time, and what is used meanwhile is not older than it
    is."""
    first, between, last = child("first"), child("between"), child("last")
    store = MemoryStore()

    async def use_the_last_one() -> None:
        mock_clock.jump(0.5)
        standing, now = last.standing, trio.current_time()
        standing.reserve(LeaseId(1), exact(400), now)
        standing.settle(LeaseId(1), OK, 400, now, Evidence(limit_tokens=700))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(use_the_last_one)
        await StateFile(store, CLOCK, LOG).save([first, between, last])
    used_at = trio.current_time()
    saved = InstanceState.model_validate(store.saved["last"])
    restored = Standing(last.config, random.Random(1))
    restored.restore(saved, used_at, CLOCK)
    quota = restored.capacity.quotas["gpt-4"]
    assert quota.limit.learned(used_at) == 700
    assert restored.account.charge.total(used_at + 60) == 400
