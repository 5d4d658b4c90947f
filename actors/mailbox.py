"""A channel with two lanes into one actor, and the one-shot reply that travels with a question.

The request lane is bounded: a full one is the sender's problem, at once (`trio.WouldBlock`), so
no queue grows out of sight. The control lane carries what must not be lost (settlements, stops);
it has no bound of its own because it is bounded by what it answers: at most one settlement per
live lease. Control messages are taken first.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar, cast

import trio

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")
R = TypeVar("R")
C = TypeVar("C")


class MailboxClosed(Exception):
    """The actor behind this mailbox has stopped for good."""


class Reply(Generic[T]):
    """A slot for one answer: set at most once, read by one task.

    An asker that stops waiting marks the slot `abandoned`; whoever holds the question then skips
    it. All of it is synchronous but `wait`, so an answer and an abandonment can't cross.
    """

    __slots__ = ("_answered", "_error", "_task", "_value", "abandoned")

    def __init__(self) -> None:
        self.abandoned = False
        self._answered = False
        self._value: T | None = None
        self._error: BaseException | None = None
        self._task: trio.lowlevel.Task | None = None

    @property
    def answered(self) -> bool:
        return self._answered

    @property
    def awaited(self) -> bool:
        """Whether an answer would still be taken."""
        return not self._answered and not self.abandoned

    def value(self) -> T | None:
        """The answer if there is one and it is no error; never blocks."""
        return self._value if self._error is None else None

    def set(self, value: T) -> bool:
        """Answers. False if it came too late (abandoned) or second. Never blocks."""
        if self._answered or self.abandoned:
            return False
        self._value = value
        self._wake()
        return True

    def fail(self, error: BaseException) -> bool:
        """Answers with an exception that `wait` raises. Same rules as `set`."""
        if self._answered or self.abandoned:
            return False
        self._error = error
        self._wake()
        return True

    def abandon(self) -> None:
        """From now on nobody reads this slot. Never blocks."""
        self.abandoned = True

    def _wake(self) -> None:
        self._answered = True
        task, self._task = self._task, None
        if task is not None:
            trio.lowlevel.reschedule(task)

    async def wait(self) -> T:
        """Waits for the answer; a checkpoint, but for an answer that is there already: then only
        a cancellation is looked for.

        Errors: whatever `fail` was given. A cancelled wait leaves the slot as it is: abandoning
        is the caller's decision.
        """
        if self._answered:
            await trio.lowlevel.checkpoint_if_cancelled()
        else:
            assert self._task is None, "one reader per reply"
            self._task = trio.lowlevel.current_task()

            def abort(_: object) -> trio.lowlevel.Abort:
                self._task = None
                return trio.lowlevel.Abort.SUCCEEDED

            await trio.lowlevel.wait_task_rescheduled(abort)
        if self._error is not None:
            raise self._error
        return cast("T", self._value)


@dataclass(frozen=True, slots=True)
class MailboxStatistics:
    """Counts of messages now (`waiting_*`), at the most (`peak_requests`), and since the start."""

    waiting_requests: int
    waiting_control: int
    peak_requests: int
    request_limit: int
    received: int


class Mailbox(Generic[R, C]):
    """Many senders, one receiving actor. `R`: request messages; `C`: control messages.

    A mailbox outlives the task that reads it: when an actor crashes and is restarted, what was
    waiting is still there.
    """

    __slots__ = (
        "_control",
        "_failure",
        "_peak",
        "_received",
        "_requests",
        "_task",
        "_turn",
        "closed",
        "request_limit",
    )

    def __init__(self, request_limit: int) -> None:
        assert request_limit > 0
        self.request_limit = request_limit
        self.closed = False
        self._requests: deque[R] = deque()
        self._control: deque[C] = deque()
        self._task: trio.lowlevel.Task | None = None
        self._turn: Callable[[], bool] | None = None
        self._failure: Exception | None = None
        self._peak = 0
        self._received = 0

    def offer(self, message: R, *, at_once: bool = False) -> None:
        """Puts a request into the bounded lane. Never blocks.

        `at_once`: an actor that waits handles it before this returns; see `wait_nonempty`.

        Errors: `trio.WouldBlock` when the lane is full, `MailboxClosed` after `close`.
        """
        if self.closed:
            raise MailboxClosed
        if len(self._requests) >= self.request_limit:
            raise trio.WouldBlock
        self._requests.append(message)
        if len(self._requests) > self._peak:
            self._peak = len(self._requests)
        if at_once:
            self._deliver()
        else:
            self._wake()

    def tell(self, message: C) -> None:
        """Puts a message into the control lane. Never blocks.

        After `close` it is dropped: whatever it was about went with the actor.
        """
        if not self.closed:
            self._control.append(message)
            self._wake()

    def _wake(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            trio.lowlevel.reschedule(task)

    def _deliver(self) -> None:
        """Does the waiting actor's turn here and now, if it said how, or else wakes it."""
        task, turn = self._task, self._turn
        if task is None or turn is None:
            self._wake()
            return
        self._task = None  # meanwhile, messages are only put in
        wakes = True
        try:
            wakes = turn()
        except Exception as error:
            if self._turn is None:  # the turn cancelled its actor: nobody else is left to tell
                raise
            self._failure = error
        finally:
            if self._turn is not None:
                if wakes:
                    trio.lowlevel.reschedule(task)
                else:
                    self._task = task

    def __len__(self) -> int:
        """Messages waiting in both lanes."""
        return len(self._control) + len(self._requests)

    def receive_nowait(self) -> R | C:
        """The next message, control first. Errors: `trio.WouldBlock` when there is none."""
        if self._control:
            self._received += 1
            return self._control.popleft()
        if self._requests:
            self._received += 1
            return self._requests.popleft()
        raise trio.WouldBlock

    async def wait_nonempty(self, turn: Callable[[], bool] | None = None) -> None:
        """Returns when `receive_nowait` has something to give. Not a checkpoint if it already has.

        `turn`: does what the actor does with its messages. While the actor waits, a sender who
        wants its message handled at once calls that in its own task, and the actor wakes only if
        it returns True; what it raises is raised here, to the actor.

        An actor that finds its mailbox full for long must yield by itself now and then.
        """
        if self._control or self._requests:
            return
        assert self._task is None, "one receiver per mailbox"
        self._task = trio.lowlevel.current_task()
        self._turn = turn

        def abort(_: object) -> trio.lowlevel.Abort:
            self._task = self._turn = None
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)
        self._turn = None
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure

    def close(self) -> list[R | C]:
        """Closes both lanes and hands out what was still in them, for the owner to answer."""
        self.closed = True
        left: list[R | C] = [*self._control, *self._requests]
        self._control.clear()
        self._requests.clear()
        return left

    def statistics(self) -> MailboxStatistics:
        return MailboxStatistics(
            waiting_requests=len(self._requests),
            waiting_control=len(self._control),
            peak_requests=self._peak,
            request_limit=self.request_limit,
            received=self._received,
        )
