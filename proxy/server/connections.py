"""The open client connections: how many there may be, and how they are ended together."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from proxy.server.connection import Connection
    from proxy.server.limits import Limits


@dataclass(frozen=True, slots=True)
class ConnectionStatistics:
    """Counts of connections: `open` and `idle` now, `refused` since the start."""

    open: int
    idle: int
    refused: int


class Connections:
    """Every connection from its acceptance to its end. Nothing here blocks."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._addresses: dict[Connection, str] = {}
        self._per_address: Counter[str] = Counter()
        self._refused = 0

    def admit(self, connection: Connection, address: str) -> bool:
        """Counts `connection` in, unless there are too many. One that is let in must `leave`."""
        if self.full or self._per_address[address] >= self._limits.connections_per_address:
            self._refused += 1
            return False
        self._addresses[connection] = address
        self._per_address[address] += 1
        return True

    @property
    def full(self) -> bool:
        """Whether nobody else can be let in, wherever from."""
        return len(self._addresses) >= self._limits.connections

    def leave(self, connection: Connection) -> None:
        address = self._addresses.pop(connection)
        self._per_address[address] -= 1
        if not self._per_address[address]:
            del self._per_address[address]

    def close_idle(self, since: float) -> None:
        """Ends those whose client has owed a request since `since` (trio time) or longer."""
        for connection in self._addresses:
            if connection.idle_since is not None and connection.idle_since <= since:
                connection.end()

    def wind_down(self) -> None:
        """Each carries one more answer at the most, which says so; none is ended."""
        for connection in self._addresses:
            connection.closing = True

    def retire_all(self) -> None:
        """Ends the idle ones; the others finish what they are doing."""
        for connection in self._addresses:
            connection.retire()

    def end_all(self) -> None:
        """Ends all of them, whatever they are doing."""
        for connection in self._addresses:
            connection.end()

    def hang_up_all(self) -> None:
        """Closes every socket, so that nothing can wait for a client any longer."""
        for connection in self._addresses:
            connection.hang_up()

    def statistics(self) -> ConnectionStatistics:
        idle = sum(connection.idle_since is not None for connection in self._addresses)
        return ConnectionStatistics(len(self._addresses), idle, self._refused)
