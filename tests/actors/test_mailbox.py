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
