"""How connections are opened: to which of several addresses, and with which options."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager

import trio

from proxy.upstream.dial import KEEPALIVE_S, SocketDialer, connect
from proxy.upstream.link import SocketLink
from proxy.upstream.origin import Origin

LIMIT_S = 5


class Resolver(trio.abc.HostnameResolver):
    """Gives `addresses` for every name, in this order."""

    def __init__(self, *addresses: tuple[str, int]) -> None:
        self._addresses = addresses

    async def getaddrinfo(self, *_question: object) -> list[tuple[object, ...]]:  # type: ignore[override]
        kind = (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "")
        return [(*kind, address) for address in self._addresses]

    async def getnameinfo(self, sockaddr: object, flags: int) -> tuple[str, str]:
        raise NotImplementedError


@contextmanager
def listening() -> Iterator[tuple[str, int]]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()


@contextmanager
def black_hole() -> Iterator[tuple[str, int]]:
    """An address at which connecting neither succeeds nor fails: its queue is full."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        filling = [socket.socket() for _ in range(4)]
        try:
            for client in filling:
                client.setblocking(False)
                client.connect_ex(server.getsockname())
            yield server.getsockname()
        finally:
            for client in filling:
                client.close()


def local_socket(link: SocketLink) -> socket.socket:
    return link._socket


async def test_an_address_that_does_not_answer_does_not_hold_up_the_next() -> None:
    with black_hole() as silent, listening() as good:
        trio.socket.set_custom_hostname_resolver(Resolver(silent, good))  # for this test's run
        with trio.fail_after(LIMIT_S):
            link = await connect("two-addresses.example", 443)
        try:
            assert local_socket(link).getpeername() == good
        finally:
            link.close()


async def test_a_connection_on_which_nothing_is_said_is_kept_alive() -> None:
    with listening() as (host, port):
        link = await SocketDialer().dial(Origin("http", host, port))
        assert isinstance(link, SocketLink)
        try:
            connected = local_socket(link)
            assert connected.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL):
                assert connected.getsockopt(socket.IPPROTO_TCP, option) == KEEPALIVE_S
            assert connected.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        finally:
            link.close()


def test_no_peer_may_renegotiate() -> None:
    context = ssl.create_default_context()
    context.options &= ~ssl.OP_NO_RENEGOTIATION
    SocketDialer(context)
    assert context.options & ssl.OP_NO_RENEGOTIATION
