"""HTTP/2 under Hypercorn 0.18, with seven repairs. Each is shown by a test over real sockets.

- Data that arrives after the answer to its request is ignored. Hypercorn looks such a stream up
  in a table that no longer has it, and the exception ends the connection with everything on it;
  any client could do that, even one that was just answered 401.
- The client is then told to stop sending (RFC 9113 section 8.1: RST_STREAM with NO_ERROR).
- An answer that the application gave up in the middle is reset. Hypercorn forgets the stream
  without a word, and the client waits for ever.
- Headers larger than `h2_max_header_list_size` are refused. Hypercorn only tells the client of it,
  and h2 goes by its own 64 KiB.
- A client that takes nothing holds the application back. Hypercorn takes an attempt to send that
  found no room for a sign that there is room, and buffers without limit.
- Nor does it hold the application for ever: after `STALL_S` its stream is reset.
- A connection without a stream is idle. Hypercorn does not say so of one that has had none yet, or
  whose last stream was reset by the client, and it would stay open for ever.
"""

from __future__ import annotations

import contextlib
import math
from typing import TYPE_CHECKING, Any

import hypercorn.protocol
import hypercorn.protocol.h2
import trio
from h2.errors import ErrorCodes
from h2.events import DataReceived, RequestReceived, StreamReset
from h2.exceptions import ProtocolError
from hypercorn.events import Updated
from hypercorn.protocol.events import StreamClosed
from hypercorn.protocol.h2 import (
    BUFFER_HIGH_WATER,
    BufferCompleteError,
    H2Protocol,
    StreamBuffer,
)

from proxy.server.limits import Limits

if TYPE_CHECKING:
    from h2.events import Event as H2Event
    from hypercorn.protocol.events import Event as StreamEvent
    from hypercorn.typing import Event as Wakeup

FLUSH_S = 1.0
"""How long a cut answer waits for what was written before the cut. A client that takes nothing
in this time loses the rest of it, as it would have over a closed connection."""

STALL_S = Limits().send_stall_s
"""How long a client may take nothing of an answer, though its connection be alive."""


def install() -> None:
    """From now on Hypercorn uses the classes below, in this whole process. It has no setting for
    them: it looks each up in the module that is changed here. Twice is the same as once."""
    hypercorn.protocol.H2Protocol = Http2  # type: ignore[attr-defined]
    hypercorn.protocol.h2.StreamBuffer = Buffer  # type: ignore[misc]


class Stalled(Exception):
    """The client has taken nothing for `STALL_S`."""


class Http2(H2Protocol):
    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self.connection.decoder.max_header_list_size = self.config.h2_max_header_list_size

    async def initiate(
        self, headers: list[tuple[bytes, bytes]] | None = None, settings: bytes | None = None
    ) -> None:
        await super().initiate(headers, settings)
        await self._tell_idle()

    async def _tell_idle(self) -> None:
        await self.send(Updated(idle=self.idle))

    async def stream_send(self, event: StreamEvent) -> None:
        if isinstance(event, StreamClosed):
            await self._reset_unfinished(event.stream_id)
        try:
            await super().stream_send(event)
        except Stalled:
            await self._reset(event.stream_id, ErrorCodes.CANCEL)
            await self._close_stream(event.stream_id)
            await self._tell_idle()

    async def _reset_unfinished(self, stream_id: int) -> None:
        buffer = self.stream_buffers.get(stream_id)
        if buffer is None or buffer.complete:
            return
        if buffer.buffer:
            with trio.move_on_after(FLUSH_S), contextlib.suppress(Stalled):
                await buffer.drain()
        await self._reset(stream_id, ErrorCodes.INTERNAL_ERROR)

    async def _reset(self, stream_id: int, reason: ErrorCodes) -> None:
        with contextlib.suppress(ProtocolError):  # the client was faster and has reset it
            self.connection.reset_stream(stream_id, reason)
        await self._flush()
        # The sending task forgets a stream that it finds complete.
        await self.stream_buffers[stream_id].close()
        await self._window_updated(stream_id)

    async def _handle_events(self, events: list[H2Event]) -> None:
        for event in events:
            if isinstance(event, DataReceived) and event.stream_id not in self.streams:
                self._refuse(event)
            else:
                await super()._handle_events([event])
                if isinstance(event, RequestReceived | StreamReset):
                    await self._tell_idle()
        await self._flush()

    def _refuse(self, late: DataReceived) -> None:
        """Gives the connection its window back and, once the answer is out, stops the sender."""
        with contextlib.suppress(ProtocolError):
            self.connection.acknowledge_received_data(late.flow_controlled_length, late.stream_id)
            if late.stream_id not in self.stream_buffers:
                self.connection.reset_stream(late.stream_id, ErrorCodes.NO_ERROR)


class Buffer(StreamBuffer):
    _taken_at = math.inf
    """Trio time of when the client last took something of what is in the buffer."""

    async def push(self, data: bytes) -> None:
        """Takes `data` at once and returns when there is room for more. Errors: `Stalled`."""
        if self._complete:
            raise BufferCompleteError
        if not self.buffer:
            self._taken_at = trio.current_time()
        self.buffer.extend(data)
        await self._is_empty.clear()
        while len(self.buffer) >= BUFFER_HIGH_WATER:
            await self._wait(self._paused)
            await self._paused.clear()

    async def pop(self, max_length: int) -> bytes:
        data = await super().pop(max_length)
        if data:
            self._taken_at = trio.current_time()
        return data

    async def drain(self) -> None:
        """Everything has been taken. Errors: `Stalled`."""
        if not self.buffer:
            self._taken_at = trio.current_time()
        await self._wait(self._is_empty)

    async def _wait(self, event: Wakeup) -> None:
        while trio.current_time() < self._taken_at + STALL_S:
            with trio.move_on_at(self._taken_at + STALL_S):
                await event.wait()
                return
        raise Stalled
