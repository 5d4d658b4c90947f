"""The load: connections that ask and measure, on asyncio's protocols.

Two ways to ask. Closed: each of N connections asks again when its answer is complete, so a peer
sets its own pace. Open: requests are due at fixed times, whatever the peer does, and latency
counts from the time at which a request was due; a peer that stalls cannot hide the requests
that would have come meanwhile, nor those that it has not answered when the time is over.
"""

from __future__ import annotations

import asyncio
import selectors
import time
from collections import deque
from dataclasses import dataclass, field
from itertools import cycle
from typing import TYPE_CHECKING, Any, TypeVar, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

T = TypeVar("T")

_RECONNECTS_IN_A_ROW = 5
_CONNECTS_AT_ONCE = 32
_MOST_OPEN_LOOP_CONNECTIONS = 400  # select(2) takes descriptors below 1024, for two such loops

SETTLE_LIMIT_S = 10.0
"""How long an answer is waited for when the time is over."""

clock = time.perf_counter


@dataclass(slots=True)
class Tally:
    """What came back; times in seconds. `reset` begins a measurement."""

    answers: int = 0
    errors: int = 0
    events: int = 0
    latencies_s: list[float] = field(default_factory=list)
    first_contents_s: list[float] = field(default_factory=list)
    event_delays_s: list[float] = field(default_factory=list)

    def reset(self) -> None:
        self.answers = self.errors = self.events = 0
        self.latencies_s.clear()
        self.first_contents_s.clear()
        self.event_delays_s.clear()


class Client(asyncio.Protocol):
    """One connection that asks one thing at a time. `answered` is called after each answer.

    A peer may close a connection between two answers; then the request is sent again on a new
    one. A cut within an answer is an error.
    """

    def __init__(
        self, port: int, tally: Tally, answered: Callable[[Client], None], pause_s: float = 0.0
    ) -> None:
        self.port = port
        self.tally = tally
        self.answered = answered
        self.pause_s = pause_s
        self.request = b""
        self.due_at = 0.0
        self.waiting = False
        self.closing = False
        self._transport: asyncio.Transport | None = None
        self._in_a_row = 0
        self._new_answer()

    def _new_answer(self) -> None:
        self._head = b""
        self.in_body = False
        self._missing_bytes = -1  # chunked
        self._tail = b""
        self._ok = True
        self._events = 0

    async def connect(self) -> None:
        loop = asyncio.get_running_loop()
        await loop.create_connection(lambda: self, "127.0.0.1", self.port)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        if self.waiting:
            self._transport.write(self.request)

    def ask(self, request: bytes, due_at: float) -> None:
        self.request = request
        self.due_at = due_at
        self.waiting = True
        if self._transport is not None:
            self._transport.write(request)

    def close(self) -> None:
        self.closing = True
        if self._transport is not None:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        if not self.in_body:
            data = self._head + data
            end = data.find(b"\r\n\r\n")
            if end < 0:
                self._head = data
                return
            self._read_head(data[:end].lower())
            data = data[end + 4 :]
        if self._missing_bytes >= 0:
            self._missing_bytes -= len(data)
            if self._missing_bytes <= 0:
                self._complete()
        elif data:
            self._read_chunked(data)

    def _read_head(self, head: bytes) -> None:
        self.in_body = True
        self._in_a_row = 0
        self._ok = head[9:12] == b"200"
        at = head.find(b"\ncontent-length:")
        if at >= 0:
            self._missing_bytes = int(head[at + 16 :].split(b"\r", 1)[0])

    def _read_chunked(self, data: bytes) -> None:
        """Counts events by the empty line after each; the one after [DONE] is taken back. The
        first event, a role, says nothing yet, and a peer may well hold it back until there is
        something to say."""
        text = self._tail + data
        events = text.count(b"\n\n") - self._tail.count(b"\n\n")
        if events:
            since_s = clock() - self.due_at
            if self._events < 2 <= self._events + events:
                self.tally.first_contents_s.append(since_s)
            self._events += events
            self.tally.events += events
            if self.pause_s:
                self.tally.event_delays_s.append(since_s - (self._events - 1) * self.pause_s)
        self._tail = text[-7:]
        if text.endswith(b"\r\n0\r\n\r\n"):
            self.tally.events -= 1
            self._complete()

    def _complete(self) -> None:
        tally = self.tally
        tally.latencies_s.append(clock() - self.due_at)
        if self._ok:
            tally.answers += 1
        else:
            tally.errors += 1
        self.waiting = False
        self._new_answer()
        self.answered(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self.closing:
            return
        if self.in_body:
            self.tally.errors += 1
            self._new_answer()
        self._in_a_row += 1
        if self._in_a_row <= _RECONNECTS_IN_A_ROW:
            self._reconnecting = asyncio.ensure_future(self._reconnect())
        elif self.waiting:
            self.tally.errors += 1

    async def _reconnect(self) -> None:
        try:
            await self.connect()
        except OSError:
            self.tally.errors += 1


async def connect_all(clients: list[Client]) -> None:
    """All are connected; a few at a time, as a listener's queue is finite."""
    for start in range(0, len(clients), _CONNECTS_AT_ONCE):
        await asyncio.gather(*(c.connect() for c in clients[start : start + _CONNECTS_AT_ONCE]))


class ClosedLoop:
    """`connections` clients that ask for `requests` in turn, again and again.

    `pause_s`: between the events of the streams that are asked for, if they are paced.
    `spread_s`: over how long the first requests are spread, so that they do not march in step.
    """

    def __init__(
        self,
        port: int,
        requests: Sequence[bytes],
        connections: int,
        *,
        pause_s: float = 0.0,
        spread_s: float = 0.0,
    ) -> None:
        self.tally = Tally()
        self._requests = cycle(requests)
        self._spread_s = spread_s
        self._clients = [Client(port, self.tally, self._again, pause_s) for _ in range(connections)]

    async def start(self) -> None:
        await connect_all(self._clients)
        loop = asyncio.get_running_loop()
        for index, client in enumerate(self._clients):
            loop.call_later(self._spread_s * index / len(self._clients), self._again, client)

    def _again(self, client: Client) -> None:
        client.ask(next(self._requests), clock())

    def answering(self) -> int:
        """How many are in the middle of an answer."""
        return sum(client.in_body for client in self._clients)

    def waiting(self) -> int:
        """How many have asked and have nothing of an answer yet."""
        return sum(client.waiting and not client.in_body for client in self._clients)

    def stop(self) -> None:
        for client in self._clients:
            client.close()


class OpenLoop:
    """Requests due `per_s` times a second. A free connection takes each, else a new one, and with
    too many connections it waits for one; it counts from the time at which it was due."""

    def __init__(self, port: int, request: bytes, per_s: float, connections: int = 8) -> None:
        self.tally = Tally()
        self._port = port
        self._request = request
        self._interval_s = 1 / per_s
        self._free: deque[Client] = deque()
        self._overdue: deque[float] = deque()
        self._clients = [Client(port, self.tally, self._release) for _ in range(connections)]
        self._opening: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        await connect_all(self._clients)
        self._free.extend(self._clients)
        self._loop = asyncio.get_running_loop()
        self._due_at = clock() + self._interval_s
        self._timer = self._loop.call_later(self._interval_s, self._send_due)

    def _send_due(self) -> None:
        now = clock()
        while self._due_at <= now:
            self._send(self._due_at)
            self._due_at += self._interval_s
        self._timer = self._loop.call_later(self._due_at - clock(), self._send_due)

    def _send(self, due_at: float) -> None:
        if self._free:
            self._free.pop().ask(self._request, due_at)
            return
        if len(self._clients) >= _MOST_OPEN_LOOP_CONNECTIONS:
            self._overdue.append(due_at)
            return
        client = Client(self._port, self.tally, self._release)
        client.ask(self._request, due_at)
        self._clients.append(client)
        task = self._loop.create_task(client.connect())
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    def _release(self, client: Client) -> None:
        if self._overdue:
            client.ask(self._request, self._overdue.popleft())
        else:
            self._free.append(client)

    async def settle(self) -> None:
        """Nothing is due any more, and what was due has been answered. What has not within
        `SETTLE_LIMIT_S` counts as an error, and has its age for a latency."""
        self._timer.cancel()
        deadline = clock() + SETTLE_LIMIT_S
        while (due := self._unanswered()) and clock() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        self.tally.errors += len(due)
        self.tally.latencies_s += [clock() - due_at for due_at in due]

    def _unanswered(self) -> list[float]:
        return [*self._overdue, *(client.due_at for client in self._clients if client.waiting)]

    def stop(self) -> None:
        self._timer.cancel()
        for client in self._clients:
            client.close()


def run_load(load: Callable[[], Coroutine[Any, Any, T]], *, precise: bool = False) -> T:
    """Runs `load` in a loop of its own. `precise`: on select(2), whose timeouts are exact to the
    microsecond where epoll's are whole milliseconds; for few connections."""
    selector = selectors.SelectSelector() if precise else selectors.DefaultSelector()
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selector)) as runner:
        return runner.run(load())
