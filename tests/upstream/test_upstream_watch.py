"""Deadlines of many connections kept by one task, on the virtual clock."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import trio

from proxy.upstream.watch import RESOLUTION_S, Watch

if TYPE_CHECKING:
    from trio.testing import MockClock


@dataclass(eq=False)
class Thing:
    watch: Watch
    deadline: float = math.inf
    expired_at: list[float] = field(default_factory=list)

    def expire(self) -> None:
        self.expired_at.append(trio.current_time())
        self.watch.discard(self)


def things(watch: Watch, count: int) -> list[Thing]:
    made = [Thing(watch) for _ in range(count)]
    for thing in made:
        watch.add(thing)
    return made


async def test_each_expires_at_its_deadline(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    watch = Watch()
    start = trio.current_time()
    late, early, later = things(watch, 3)
    watch.set_deadline(late, start + 60)
    await nursery.start(watch.run)
    watch.set_deadline(early, start + 5)
    await trio.sleep(10)
    watch.set_deadline(later, start + 90)
    await trio.sleep(1000)
    assert [thing.expired_at for thing in (early, late, later)] == [
        [start + 5], [start + 60], [start + 90],
    ]  # fmt: skip
    nursery.cancel_scope.cancel()


async def test_a_deadline_put_off_or_taken_back_does_not_fire(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    watch = Watch()
    await nursery.start(watch.run)
    start = trio.current_time()
    put_off, taken_back, gone = things(watch, 3)
    for thing in (put_off, taken_back, gone):
        watch.set_deadline(thing, start + 5)
    await trio.sleep(1)
    put_off.deadline = start + 50
    taken_back.deadline = math.inf
    watch.discard(gone)
    await trio.sleep(1000)
    assert put_off.expired_at == [start + 50]
    assert not taken_back.expired_at
    assert not gone.expired_at
    nursery.cancel_scope.cancel()


async def test_deadlines_close_together_are_looked_at_together(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    watch = Watch()
    await nursery.start(watch.run)
    start = trio.current_time()
    many = things(watch, 100)
    for number, thing in enumerate(many):
        watch.set_deadline(thing, start + 1 + number * RESOLUTION_S / 100)
    await trio.sleep(10)
    moments = {thing.expired_at[0] for thing in many}
    assert len(moments) == 2
    assert max(moments) <= start + 1 + RESOLUTION_S
    nursery.cancel_scope.cancel()


async def test_it_stops_when_cancelled(nursery: trio.Nursery) -> None:
    watch = Watch()
    await nursery.start(watch.run)
    assert watch.running
    nursery.cancel_scope.cancel()
    await trio.lowlevel.cancel_shielded_checkpoint()
    await trio.lowlevel.cancel_shielded_checkpoint()
    assert not watch.running
