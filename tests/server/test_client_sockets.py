"""A client's socket as a stream, and noticing that its client has gone; on real sockets."""

from __future__ import annotations

import os
import socket

import pytest
import trio

from proxy.server.client_socket import SENDS_PER_CHECKPOINT, ClientSocket
from proxy.server.departures import PeekDepartures, open_departures
from proxy.server.limits import Limits


def socket_pair(
    send_stall_s: float = 10.0, linger_s: float = 0.0
) -> tuple[ClientSocket, socket.socket]:
    """Our end and the client's, over TCP."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        ours, _ = listener.accept()
    client.setblocking(False)
    ours.setblocking(False)
    return ClientSocket(ours, Limits(send_stall_s=send_stall_s, linger_s=linger_s)), client


async def read_exactly(client: socket.socket, length: int) -> bytes:
    received = b""
    while len(received) < length:
        await trio.lowlevel.wait_readable(client)
        received += client.recv(1 << 20)
    return received


async def test_both_directions():
    ours, client = socket_pair()
    with client:
        client.send(b"request")
        assert await ours.receive_some() == b"request"
        await ours.send_all(b"answer")
        assert await read_exactly(client, 6) == b"answer"
        client.shutdown(socket.SHUT_WR)
        assert await ours.receive_some() == b""
        await ours.send_eof()
        await trio.lowlevel.wait_readable(client)
        assert client.recv(1) == b""
        await ours.aclose()


async def test_a_slow_client_is_waited_for():
    data = bytes(range(256)) * 40_000
    ours, client = socket_pair()
    with client:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ours.send_all, data)
            assert await read_exactly(client, len(data)) == data
        await ours.aclose()


async def test_a_client_that_takes_nothing_is_given_up():
    ours, client = socket_pair(send_stall_s=0.05)
    with client:
        with pytest.raises(trio.BrokenResourceError, match=r"nothing for 0\.05 s"):
            await ours.send_all(bytes(50_000_000))
        await ours.aclose()


async def test_hanging_up_frees_whoever_waits_even_shielded():
    ours, client = socket_pair()

    async def send(*, task_status) -> None:
        task_status.started()
        with trio.CancelScope(shield=True), pytest.raises(trio.ClosedResourceError):
            await ours.send_all(bytes(50_000_000))

    async def receive(*, task_status) -> None:
        task_status.started()
        with trio.CancelScope(shield=True), pytest.raises(trio.ClosedResourceError):
            await ours.receive_some()

    with client:
        async with trio.open_nursery() as nursery:
            await nursery.start(send)
            await nursery.start(receive)
            ours.hang_up()
            ours.hang_up()
    with pytest.raises(trio.ClosedResourceError):
        await ours.send_all(b"x")
    with pytest.raises(trio.ClosedResourceError):
        await ours.receive_some()
    with pytest.raises(trio.ClosedResourceError):
        await ours.send_eof()
    with pytest.raises(trio.ClosedResourceError):
        await ours.wait_send_all_might_not_block()


async def test_a_reset_is_an_error_to_both_sides():
    ours, client = socket_pair()
    with client:
        ours.hang_up(reset=True)
        with pytest.raises(ConnectionResetError):
            await read_exactly(client, 1)
    ours, client = socket_pair()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    client.close()
    with pytest.raises(trio.BrokenResourceError):
        await ours.receive_some()
    with pytest.raises(trio.BrokenResourceError):
        await ours.send_all(b"x")
    await ours.aclose()


async def test_closing_destroys_nothing_that_the_client_has_not_read():
    ours, client = socket_pair(linger_s=5)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    answer = os.urandom(90_000)  # our kernel takes all of it, and the client's only a part

    async def send_and_close() -> None:
        await ours.send_all(answer)
        await ours.aclose()

    with client:
        client.send(b"nobody reads this")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send_and_close)
            await trio.testing.wait_all_tasks_blocked()
            assert await read_exactly(client, len(answer)) == answer
            await trio.lowlevel.wait_readable(client)
            assert client.recv(1) == b""
            client.close()


async def test_closing_has_an_end():
    ours, client = socket_pair(linger_s=0.05)

    async def flood() -> None:
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            while True:
                await trio.lowlevel.wait_writable(client)
                client.send(b"x" * 1000)

    with client:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(flood)
            await ours.aclose()
        assert ours.socket.fileno() < 0


async def test_closing_that_is_cancelled_is_done_at_once():
    ours, client = socket_pair(linger_s=60)
    with client:
        await trio.aclose_forcefully(ours)
        assert ours.socket.fileno() < 0
        await ours.aclose()


async def test_closing_frees_whoever_reads():
    ours, client = socket_pair(linger_s=60)

    async def receive() -> None:
        with pytest.raises(trio.ClosedResourceError):
            await ours.receive_some()

    with client:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(ours.aclose)
            await trio.testing.wait_all_tasks_blocked()
            await ours.aclose()  # a second one waits for nothing, and does not cut the first short
            assert ours.socket.fileno() >= 0
            client.close()
    assert ours.socket.fileno() < 0
    ours, client = socket_pair(linger_s=60)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ours.aclose)
        await trio.testing.wait_all_tasks_blocked()
        await receive()
        assert ours.socket.fileno() >= 0
        client.close()


async def test_fast_sends_let_others_run_now_and_then():
    ours, client = socket_pair()
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    with client:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(other)
            for _ in range(SENDS_PER_CHECKPOINT * 4):
                await ours.send_all(b"x")
            assert turns >= 2
            nursery.cancel_scope.cancel()
        await ours.aclose()


class Watched:
    def __init__(self) -> None:
        self.departed = trio.Event()

    def depart(self) -> None:
        assert not self.departed.is_set()
        self.departed.set()


@pytest.fixture(params=["best", "portable"])
def departures(request):
    return open_departures() if request.param == "best" else PeekDepartures()


@pytest.mark.parametrize("how", ["close", "half-close", "reset"])
async def test_a_departure_is_noticed_within_a_second(departures, how: str):
    ours, client = socket_pair()
    stays, other = socket_pair()
    watched, staying = Watched(), Watched()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(departures.run)
        departures.watch(ours.socket, watched)
        departures.watch(stays.socket, staying)
        if how == "half-close":
            client.shutdown(socket.SHUT_WR)
        elif how == "reset":
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        if how != "half-close":
            client.close()
        with trio.fail_after(1):
            await watched.departed.wait()
        assert not staying.departed.is_set()
        nursery.cancel_scope.cancel()
    for one in (ours, stays):
        one.hang_up()
    for one in (client, other):
        one.close()


async def test_a_departure_behind_unread_bytes_is_noticed():
    departures = open_departures()
    ours, client = socket_pair()
    watched = Watched()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(departures.run)
        departures.watch(ours.socket, watched)
        client.send(b"GET /pipelined")
        client.close()
        with trio.fail_after(1):
            await watched.departed.wait()
        nursery.cancel_scope.cancel()
    ours.hang_up()


async def test_a_forgotten_connection_is_told_nothing(departures):
    ours, client = socket_pair()
    late, other = socket_pair()
    watched, last = Watched(), Watched()
    departures.watch(ours.socket, watched)
    departures.watch(late.socket, last)
    departures.forget(watched)
    departures.forget(watched)
    client.close()
    other.close()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(departures.run)
        with trio.fail_after(1):
            await last.departed.wait()
        assert not watched.departed.is_set()
        nursery.cancel_scope.cancel()
    ours.hang_up()
    late.hang_up()


async def test_a_reused_socket_number_belongs_to_the_new_connection(departures):
    first, client = socket_pair()
    second, other = socket_pair()
    gone, watched = Watched(), Watched()
    departures.watch(first.socket, gone)
    number = first.socket.fileno()
    first.hang_up()
    client.close()
    with socket.socket(fileno=os.dup2(second.socket.fileno(), number)) as reused:
        departures.watch(reused, watched)
        departures.forget(gone)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(departures.run)
            other.close()
            with trio.fail_after(1):
                await watched.departed.wait()
            nursery.cancel_scope.cancel()
    assert not gone.departed.is_set()
    second.hang_up()
