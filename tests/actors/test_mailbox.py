from __future__ import annotations

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from actors.mailbox import Mailbox, MailboxClosed, Reply


async def receive(mailbox: Mailbox[str, str]) -> str:
    await mailbox.wait_nonempty()
    return mailbox.receive_nowait()


async def test_control_messages_are_taken_first() -> None:
    mailbox: Mailbox[str, str] = Mailbox(10)
    mailbox.offer("request 1")
    mailbox.tell("control 1")
    mailbox.offer("request 2")
    mailbox.tell("control 2")
    got = [await receive(mailbox) for _ in range(4)]
    assert got == ["control 1", "control 2", "request 1", "request 2"]
    with pytest.raises(trio.WouldBlock):
        mailbox.receive_nowait()


async def test_only_the_request_lane_is_bounded() -> None:
    mailbox: Mailbox[int, int] = Mailbox(2)
    mailbox.offer(1)
    mailbox.offer(2)
    with pytest.raises(trio.WouldBlock):
        mailbox.offer(3)
    for control in range(100):
        mailbox.tell(control)
    statistics = mailbox.statistics()
    assert (statistics.waiting_requests, statistics.waiting_control) == (2, 100)
    assert statistics.peak_requests == 2


@pytest.mark.parametrize("lane", ["offer", "tell"])
async def test_a_waiting_receiver_is_woken(lane: str) -> None:
    mailbox: Mailbox[str, str] = Mailbox(1)
    got: list[str] = []

    async def receiver() -> None:
        got.append(await receive(mailbox))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(receiver)
        await wait_all_tasks_blocked()
        getattr(mailbox, lane)("message")
    assert got == ["message"]


async def test_a_cancelled_wait_loses_nothing() -> None:
    mailbox: Mailbox[str, str] = Mailbox(1)
    with trio.CancelScope() as scope:
        scope.cancel()
        await mailbox.wait_nonempty()
    assert scope.cancelled_caught
    mailbox.offer("message")
    assert await receive(mailbox) == "message"


class Actor:
    """Notes what it handles, and in whose task."""

    def __init__(self) -> None:
        self.mailbox: Mailbox[str, str] = Mailbox(5)
        self.handled: list[tuple[str, str]] = []
        self.wakes = False
        self.failure: Exception | None = None

    async def run(self) -> None:
        while "stop" not in dict(self.handled):
            await self.mailbox.wait_nonempty(self.turn)
            self.turn()

    def turn(self) -> bool:
        while len(self.mailbox):
            message = self.mailbox.receive_nowait()
            self.handled.append((message, trio.lowlevel.current_task().name))
            if message == "again":
                self.mailbox.offer("nested", at_once=True)
                assert self.handled[-1][0] == "again", "a turn within a turn"
            elif message == "cancel":
                self.scope.cancel()
            elif message == "fail":
                raise LookupError("no")
        return self.wakes

    async def run_in_scope(self) -> None:
        with trio.CancelScope() as self.scope:
            await self.run()


@pytest.mark.parametrize("lane", ["offer", "tell"])
async def test_an_actor_that_said_how_wakes_for_ordinary_messages(lane: str) -> None:
    actor = Actor()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(actor.run, name="actor")
        await wait_all_tasks_blocked()
        getattr(actor.mailbox, lane)("stop")
        assert actor.handled == []
    assert actor.handled == [("stop", "actor")]


async def test_a_message_can_be_handled_at_once_in_the_senders_task() -> None:
    actor, sender = Actor(), trio.lowlevel.current_task().name
    async with trio.open_nursery() as nursery:
        nursery.start_soon(actor.run, name="actor")
        await wait_all_tasks_blocked()
        actor.mailbox.offer("one", at_once=True)
        actor.mailbox.offer("again", at_once=True)
        assert actor.handled == [("one", sender), ("again", sender), ("nested", sender)]
        await wait_all_tasks_blocked()
        actor.mailbox.offer("two")
        actor.mailbox.offer("three", at_once=True)  # it has been woken, and is not waiting now
        assert len(actor.handled) == 3
        await wait_all_tasks_blocked()
        assert actor.handled[3:] == [("two", "actor"), ("three", "actor")]
        actor.wakes = True
        actor.mailbox.offer("stop", at_once=True)
        assert actor.handled[-1] == ("stop", sender)


async def test_what_a_turn_raises_is_the_actors_and_not_the_senders() -> None:
    actor = Actor()
    with pytest.RaisesGroup(LookupError):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(actor.run)
            await wait_all_tasks_blocked()
            actor.mailbox.offer("fail", at_once=True)
            actor.mailbox.offer("left", at_once=True)  # for whoever takes over the mailbox
    assert actor.mailbox.receive_nowait() == "left"
    with trio.move_on_after(0):  # nothing of the failure is left for the next one
        await actor.mailbox.wait_nonempty(actor.turn)


async def test_a_turn_may_cancel_its_own_actor() -> None:
    actor = Actor()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(actor.run_in_scope)
        await wait_all_tasks_blocked()
        actor.mailbox.offer("cancel", at_once=True)
    assert actor.scope.cancelled_caught
    actor.mailbox.offer("for the next one", at_once=True)
    assert len(actor.mailbox) == 1


async def test_a_failure_of_a_turn_that_has_cancelled_its_actor_is_not_silent() -> None:
    actor = Actor()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(actor.run_in_scope)
        await wait_all_tasks_blocked()

        def cancel_and_fail() -> bool:
            actor.scope.cancel()
            raise LookupError("no")

        actor.mailbox._turn = cancel_and_fail
        with pytest.raises(LookupError):
            actor.mailbox.offer("message", at_once=True)


async def test_a_closed_mailbox_hands_out_its_content_and_takes_no_more() -> None:
    mailbox: Mailbox[str, str] = Mailbox(2)
    mailbox.offer("request")
    mailbox.tell("control")
    assert mailbox.close() == ["control", "request"]
    with pytest.raises(MailboxClosed):
        mailbox.offer("late")
    mailbox.tell("late")
    assert len(mailbox) == 0


async def test_a_reply_is_set_once() -> None:
    reply: Reply[int] = Reply()
    assert reply.set(1)
    assert not reply.set(2)
    assert not reply.fail(ValueError())
    assert await reply.wait() == 1


async def test_waiting_for_a_reply_ends_with_its_value_or_its_error() -> None:
    async def ask(reply: Reply[int], outcomes: list[object]) -> None:
        try:
            outcomes.append(await reply.wait())
        except LookupError as error:
            outcomes.append(error)

    good: Reply[int] = Reply()
    bad: Reply[int] = Reply()
    outcomes: list[object] = []
    error = LookupError("no")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask, good, outcomes)
        nursery.start_soon(ask, bad, outcomes)
        await wait_all_tasks_blocked()
        good.set(7)
        await wait_all_tasks_blocked()
        bad.fail(error)
    assert outcomes == [7, error]


async def test_an_abandoned_reply_takes_no_answer() -> None:
    reply: Reply[int] = Reply()
    reply.abandon()
    assert not reply.set(1)
    assert reply.value() is None


async def test_an_answer_before_the_abandonment_can_still_be_seen() -> None:
    reply: Reply[int] = Reply()
    with trio.CancelScope() as scope:
        reply.set(5)
        scope.cancel()
        await reply.wait()
    assert scope.cancelled_caught
    assert reply.value() == 5
