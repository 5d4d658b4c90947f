"""Cancels a scenario at each of its steps in turn."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from trio.lowlevel import Task


class _CancelAtStep(trio.abc.Instrument):
    """Cancels `nursery` when the tasks below it, or with `everywhere` any tasks, are about to be
    run for the `step`th time."""

    def __init__(self, nursery: trio.Nursery, step: int, everywhere: bool) -> None:
        self.nursery = nursery
        self.left = step
        self.everywhere = everywhere

    def before_task_step(self, task: Task) -> None:
        if self.everywhere or _is_below(task, self.nursery):
            self.left -= 1
            if self.left == 0:
                self.nursery.cancel_scope.cancel()


def _is_below(task: Task, nursery: trio.Nursery) -> bool:
    while task.parent_nursery is not None:
        if task.parent_nursery is nursery:
            return True
        task = task.parent_nursery.parent_task
    return False


async def cancel_at_each_step(
    scenario: Callable[[], Awaitable[None]],
    check: Callable[[], Awaitable[None]],
    *,
    everywhere: bool = False,
) -> int:
    """Runs `scenario` again and again, each time cancelled one step later, until it completes;
    `check` runs after each. `everywhere`: the steps of all other tasks count too. Returns the
    number of steps."""
    for step in range(1, 1000):
        completed = False

        async def run() -> None:
            nonlocal completed
            await scenario()
            completed = True

        async with trio.open_nursery() as nursery:
            instrument = _CancelAtStep(nursery, step, everywhere)
            trio.lowlevel.add_instrument(instrument)
            nursery.start_soon(run)
        trio.lowlevel.remove_instrument(instrument)
        await check()
        if completed:
            return step
    raise AssertionError("the scenario does not end")
