"""The process that encodes texts, seen from the service: real processes, a clock that stands still.

Where the number doesn't matter, the process answers with its own id, or with the texts' length.
"""

import logging
import os
import signal
import sys
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from proxy.tokens import encoder_process
from proxy.tokens.encoder import ANSWER
from proxy.tokens.encoder_process import LONGEST_S, PAUSE_S, EncoderProcess
from proxy.tokens.vocabulary import encoded_length

pytestmark = pytest.mark.usefixtures("mock_clock")

NAME = "cl100k_base"
LOG = logging.getLogger("proxy.tests")


def saying(expression):
    """A process that answers with `expression` of `texts`."""
    program = f"""
import os, sys
from proxy.tokens import encoder
encoder.encoded_length = lambda texts, name: {expression}
encoder.main()
"""
    return (sys.executable, "-P", "-c", program)


ID = saying("os.getpid()")
LENGTH = saying("os.getpid() if texts == ['id'] else len(texts[0])")


@asynccontextmanager
async def running(*command):
    process = EncoderProcess(LOG, *command)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(process.run)
        yield process
        nursery.cancel_scope.cancel()


def exists(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def warnings(caplog):
    return [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]


async def test_it_says_what_is_said_here(caplog):
    texts = ["tiktoken is great!", "", "<|endoftext|>", "\ud83d", "\ud83d\ude00", "😀\xff"]
    async with running() as process:
        counted = [await process.encode([text], NAME) for text in texts]
        together = await process.encode(texts, NAME)
        long = await process.encode(["word " * 50_000], NAME)
    assert counted == [encoded_length([text], NAME) for text in texts]
    assert together == sum(counted)
    assert long == 50_001
    assert caplog.records == []


async def test_one_process_serves_all_and_none_is_left():
    async with running(ID) as process:
        ids = {await process.encode(["x"], NAME) for _ in range(5)}
        assert len(ids) == 1
        assert exists(*ids)
    assert not exists(*ids)


async def test_no_process_is_started_for_nobody(monkeypatch):
    monkeypatch.setattr(trio.lowlevel, "open_process", None)
    async with running():
        await trio.testing.wait_all_tasks_blocked()


async def test_the_process_has_no_keys(monkeypatch):
    monkeypatch.setenv("EAST_KEY", "sk-secret")
    monkeypatch.setenv("LD_LIBRARY_PATH", "/needed")
    known = "sum(name in os.environ for name in ['EAST_KEY', 'PATH', 'HOME'])"
    async with running(saying(f"{known} * 10 + ('LD_LIBRARY_PATH' in os.environ)")) as process:
        assert await process.encode(["x"], NAME) == 1


async def test_what_stops_the_service_does_not_stop_the_process():
    async with running(ID) as process:
        pid = await process.encode(["x"], NAME)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(pid, number)
        assert await process.encode(["x"], NAME) == pid


async def test_who_goes_meanwhile_leaves_the_process_to_the_others():
    answers = []

    async def ask(length):
        answers.append(await process.encode(["x" * length], NAME))

    async with running(LENGTH) as process:
        pid = await process.encode(["id"], NAME)
        os.kill(pid, signal.SIGSTOP)
        async with trio.open_nursery() as staying:
            async with trio.open_nursery() as leaving:
                for length in (1, 2):
                    leaving.start_soon(ask, length)
                    await trio.testing.wait_all_tasks_blocked()
                staying.start_soon(ask, 3)
                await trio.testing.wait_all_tasks_blocked()
                leaving.cancel_scope.cancel()
            assert answers == []
            os.kill(pid, signal.SIGCONT)
        assert await process.encode(["id"], NAME) == pid
    assert answers == [3]


async def test_those_who_wait_take_turns():
    order = []

    async def ask(name):
        for _ in range(3):
            await process.encode(["x"], NAME)
            order.append(name)

    async with running(ID) as process, trio.open_nursery() as nursery:
        for name in "abc":
            nursery.start_soon(ask, name)
            await trio.testing.wait_all_tasks_blocked()
    assert "".join(order) == "abc" * 3


async def test_who_still_waits_at_the_end_is_told_that_there_is_no_number():
    answers = []

    async def ask():
        answers.append(await process.encode(["x"], NAME))

    process = EncoderProcess(LOG, ID)
    async with trio.open_nursery() as asking, trio.open_nursery() as serving:
        serving.start_soon(process.run)
        os.kill(pid := await process.encode(["x"], NAME), signal.SIGSTOP)
        asking.start_soon(ask)
        asking.start_soon(ask)
        await trio.testing.wait_all_tasks_blocked()
        serving.cancel_scope.cancel()
    assert answers == [None, None]
    assert await process.encode(["x"], NAME) is None
    assert not exists(pid)


# Failures.


async def test_after_its_death_nobody_gets_a_number_for_a_while_and_then_from_a_new_one(
    caplog, mock_clock
):
    async with running(ID) as process:
        pid = await process.encode(["x"], NAME)
        os.kill(pid, signal.SIGKILL)
        assert await process.encode(["x"], NAME) is None
        mock_clock.jump(PAUSE_S - 0.1)
        assert await process.encode(["x"], NAME) is None
        mock_clock.jump(0.1)
        assert await process.encode(["x"], NAME) not in (None, pid)
    assert warnings(caplog) == [
        "the process that counts tokens ended (status -9); input is estimated for the next 10 s"
    ]


async def test_one_that_dies_while_it_is_asked_says_why(caplog):
    async with running(saying("os.environ['what it needs']")) as process:
        assert await process.encode(["x"], NAME) is None
        assert await process.encode(["x"], NAME) is None
    (warning,) = warnings(caplog)
    assert "ended (status 1) KeyError: 'what it needs'; input is estimated" in warning


async def test_a_broken_vocabulary_is_named(caplog, tmp_path):
    program = f"""
import pathlib, sys
from proxy.tokens import encoder, vocabulary
vocabulary.resources.files = lambda _package: pathlib.Path({str(tmp_path)!r})
encoder.main()
"""
    async with running((sys.executable, "-P", "-c", program)) as process:
        assert await process.encode(["x"], NAME) is None
    assert f"cannot read the vocabulary {tmp_path}" in warnings(caplog)[0]


async def test_one_that_cannot_be_started_fails_nobody(caplog):
    async with running(("/no/such/interpreter",)) as process:
        assert await process.encode(["x"], NAME) is None
    assert "can't be started: [Errno 2]" in warnings(caplog)[0]


async def test_one_that_hangs_is_given_up(caplog, mock_clock):
    async with running(ID) as process:
        pid = await process.encode(["x"], NAME)
        os.kill(pid, signal.SIGSTOP)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(jump_when_all_wait, mock_clock)
            assert await process.encode(["x"], NAME) is None
        assert not exists(pid)
    assert "gave no answer for 20 s (status -9)" in warnings(caplog)[0]


async def jump_when_all_wait(clock):
    await trio.testing.wait_all_tasks_blocked()
    clock.jump(LONGEST_S)


async def test_an_answer_may_come_byte_by_byte():
    ours, theirs = trio.testing.lockstep_stream_pair()
    job = encoder_process._Job(["abc"], NAME, encoder_process.Reply())

    async def answer():
        await theirs.receive_some()
        for byte in ANSWER.pack(70_000):
            await theirs.send_all(bytes([byte]))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(answer)
        assert await encoder_process._answer(ours, job) == 70_000


async def test_half_an_answer_is_none():
    ours, theirs = trio.testing.memory_stream_pair()
    job = encoder_process._Job(["abc"], NAME, encoder_process.Reply())
    await theirs.send_all(ANSWER.pack(1)[:-1])
    await theirs.send_eof()
    with pytest.raises(EOFError):
        await encoder_process._answer(ours, job)


# The service is killed.


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="needs a way to wait for a grandchild")
async def test_a_service_that_is_killed_leaves_no_process():
    program = """
import logging, trio
from proxy.tokens.encoder_process import EncoderProcess

async def main():
    process = EncoderProcess(logging.getLogger(), {command!r})
    async with trio.open_nursery() as nursery:
        nursery.start_soon(process.run)
        print(await process.encode(["x"], "cl100k_base"), flush=True)
        await trio.sleep_forever()

trio.run(main)
"""
    service = await trio.lowlevel.open_process(
        [sys.executable, "-P", "-c", program.format(command=ID)],
        stdout=-1,
        env={"PYTHONPATH": ":".join(sys.path)},
    )
    assert service.stdout is not None
    pid = int(await service.stdout.receive_some())
    descriptor = os.pidfd_open(pid)
    service.kill()
    await service.wait()
    await trio.lowlevel.wait_readable(descriptor)
    os.close(descriptor)
    await service.stdout.aclose()
