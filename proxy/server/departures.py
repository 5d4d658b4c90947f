"""Noticing that a client has gone while its request is being served.

Reading the socket in a second task would notice it too, at the price of a task switch or two per
request. The kernel already knows: a connection is registered once, when it opens, and costs
nothing until its client leaves.

A client that closes only its sending side can't be told from one that has gone until something is
sent to it, and then it may be too late to save the upstream call. So the end of a client's stream
counts as its departure, as it does for Hypercorn and, by default, for nginx.
"""

from __future__ import annotations

import select
import socket
import sys
from contextlib import suppress
from typing import Protocol

import trio

PEEK_INTERVAL_S = 0.25
"""How often the portable way looks: a departure is to be noticed well within a second."""


class Departing(Protocol):
    """A connection that wants to know."""

    def depart(self) -> None:
        """The client has gone. Called at most once, from the event loop; must not block."""
        ...


class Departures(Protocol):
    def watch(self, sock: socket.socket, connection: Departing) -> None:
        """From now on `connection` is told when its client goes. Never blocks."""
        ...

    def forget(self, connection: Departing) -> None:
        """No more. Harmless when its socket is closed or was never watched. Never blocks."""
        ...

    async def run(self) -> None:
        """Tells connections until cancelled."""
        ...


if sys.platform == "linux":

    class EpollDepartures:
        """One epoll set that holds every connection and reports only half-closed, reset and
        broken ones; the event loop waits on the set as it waits on a socket."""

        def __init__(self) -> None:
            self._epoll = select.epoll()
            self._watched: dict[int, Departing] = {}
            self._descriptors: dict[Departing, int] = {}

        def watch(self, sock: socket.socket, connection: Departing) -> None:
            descriptor = sock.fileno()
            self._watched[descriptor] = connection
            self._descriptors[connection] = descriptor
            self._epoll.register(descriptor, select.EPOLLRDHUP | select.EPOLLONESHOT)

        def forget(self, connection: Departing) -> None:
            descriptor = self._descriptors.pop(connection, None)
            # A closed socket's number may belong to another connection by now.
            if descriptor is not None and self._watched.get(descriptor) is connection:
                del self._watched[descriptor]
                with suppress(OSError):  # Closed: the kernel has forgotten it already.
                    self._epoll.unregister(descriptor)

        async def run(self) -> None:
            try:
                while True:
                    await trio.lowlevel.wait_readable(self._epoll.fileno())
                    for descriptor, _ in self._epoll.poll(0):
                        connection = self._watched.get(descriptor)
                        if connection is not None:
                            connection.depart()
            finally:
                self._epoll.close()


class PeekDepartures:
    """Looks at every connection a few times a second, where there is no epoll.

    What a client sent ahead of its answer hides its departure until it has been read.
    """

    def __init__(self) -> None:
        self._watched: dict[Departing, socket.socket] = {}

    def watch(self, sock: socket.socket, connection: Departing) -> None:
        self._watched[connection] = sock

    def forget(self, connection: Departing) -> None:
        self._watched.pop(connection, None)

    async def run(self) -> None:
        while True:
            await trio.sleep(PEEK_INTERVAL_S)
            for connection, sock in list(self._watched.items()):
                if _has_ended(sock):
                    del self._watched[connection]
                    connection.depart()


def _has_ended(sock: socket.socket) -> bool:
    try:
        return sock.recv(1, socket.MSG_PEEK) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


def open_departures() -> Departures:
    """The best way that this platform has."""
    if sys.platform == "linux":
        return EpollDepartures()
    else:  # noqa: RET505 - mypy takes what follows the `if` for unreachable
        return PeekDepartures()
