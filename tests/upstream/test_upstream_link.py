"""The link over a socket, and what its errors are called."""

from __future__ import annotations

import errno
import socket
import ssl
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from proxy.upstream.failure import failure
from proxy.upstream.link import SocketLink

if TYPE_CHECKING:
    from collections.abc import Iterator

    from proxy.exchange.ports import Phase


@pytest.fixture
def pair() -> Iterator[tuple[SocketLink, socket.socket]]:
    near, far = socket.socketpair()
    far.setblocking(False)
    with near, far:
        yield SocketLink(near), far


def received(far: socket.socket) -> bytes:
    data = b""
    try:
        while piece := far.recv(1 << 20):
            data += piece
    except BlockingIOError:
        pass
    return data


async def test_what_the_network_does_not_take_at_once_is_drained_in_order(
    pair: tuple[SocketLink, socket.socket], nursery: trio.Nursery
) -> None:
    link, far = pair
    parts = [b"a", b"b" * 3_000_000, b"c" * 10, b"d" * 100_000]
    assert [link.write(part) for part in parts] == [True, False, False, False]
    nursery.start_soon(link.drain)
    got = b""
    while len(got) < sum(map(len, parts)):
        got += received(far)
        await trio.lowlevel.checkpoint()
    assert got == b"".join(parts)
    assert link.write(b"e")


async def test_readable_sees_data_and_the_end(pair: tuple[SocketLink, socket.socket]) -> None:
    link, far = pair
    assert not link.readable()
    far.send(b"x")
    assert link.readable()
    assert await link.receive() == b"x"
    assert not link.readable()
    far.close()
    assert link.readable()
    assert await link.receive() == b""
    link.close()


async def test_closing_wakes_both_waiters_and_forbids_more(
    pair: tuple[SocketLink, socket.socket],
) -> None:
    link, _ = pair
    link.write(bytes(3_000_000))
    woken = []

    async def wait(waiting: str) -> None:
        with pytest.raises(trio.ClosedResourceError):
            await getattr(link, waiting)()
        woken.append(waiting)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait, "drain")
        nursery.start_soon(wait, "receive")
        await trio.testing.wait_all_tasks_blocked()
        link.close()
        link.close()
    assert sorted(woken) == ["drain", "receive"]
    await wait("drain")
    await wait("receive")


async def test_closing_in_the_very_moment_of_waking(
    pair: tuple[SocketLink, socket.socket],
) -> None:
    link, far = pair
    link.write(bytes(3_000_000))

    async def drain() -> None:
        with pytest.raises((OSError, trio.ClosedResourceError)):
            await link.drain()

    async def receive() -> None:
        with pytest.raises((OSError, trio.ClosedResourceError)):
            await link.receive()

    class CloseBeforeStep(trio.abc.Instrument):
        def after_io_wait(self, timeout: float) -> None:
            link.close()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(drain)
        nursery.start_soon(receive)
        await trio.testing.wait_all_tasks_blocked()
        far.send(b"x")
        received(far)
        instrument = CloseBeforeStep()
        trio.lowlevel.add_instrument(instrument)
    trio.lowlevel.remove_instrument(instrument)


def caused(error: OSError, cause: BaseException) -> OSError:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("phase", "error", "kind", "words"),
    [
        (
            "connect",
            ConnectionRefusedError(errno.ECONNREFUSED, "refused it"),
            "refused",
            "refused it",
        ),
        ("connect", socket.gaierror(socket.EAI_NONAME, "no such name"), "dns", "no such name"),
        ("connect", TimeoutError(errno.ETIMEDOUT, "took too long"), "timeout", "took too long"),
        ("connect", OSError(errno.ENETUNREACH, "no way there"), "other", "no way there"),
        ("connect", ssl.SSLEOFError(8, "end"), "tls", "end"),
        ("body", ssl.SSLEOFError(8, "end"), "reset", "end"),
        ("head", ssl.SSLError(1, "bad record"), "tls", "bad record"),
        ("send", BrokenPipeError(errno.EPIPE, "broken"), "reset", "broken"),
        ("head", ConnectionResetError(errno.ECONNRESET, "reset"), "reset", "reset"),
        ("head", trio.ClosedResourceError("x"), "other", "ClosedResourceError"),
        (
            "connect",
            caused(OSError("all attempts failed"), ConnectionRefusedError(111, "refused it")),
            "refused",
            "refused it",
        ),
        (
            "connect",
            caused(
                OSError("all attempts failed"),
                ExceptionGroup(
                    "", [OSError(101, "no way"), ConnectionRefusedError(111, "refused")]
                ),
            ),
            "refused",
            "refused",
        ),
    ],
)
def test_errors_by_their_kind(phase: Phase, error: Exception, kind: str, words: str) -> None:
    made = failure(phase, error, answered=True)
    assert (made.phase, made.kind, made.detail, made.answered) == (phase, kind, words, True)
