"""WebSocket under Hypercorn 0.18, with two repairs, shown by tests over real sockets.

- A handshake that Hypercorn refuses by itself (without a key, of another version) is answered and
  the stream ended. Hypercorn forgets it: the connection is neither closed nor idle, so any client
  could hold as many as it likes.
- What comes before a handshake is answered is thrown away; no client may send so early (RFC 6455
  section 4.1). Hypercorn answers it, beside the application, and fails over the two answers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import hypercorn.protocol.h2
import hypercorn.protocol.h11
from hypercorn.protocol.events import Body, Data, StreamClosed
from hypercorn.protocol.ws_stream import WSStream

if TYPE_CHECKING:
    from hypercorn.protocol.events import Event


def install() -> None:
    """From now on Hypercorn uses the class below, as `proxy.front.http2.install` has it."""
    hypercorn.protocol.h11.WSStream = WebSocket  # type: ignore[attr-defined]
    hypercorn.protocol.h2.WSStream = WebSocket  # type: ignore[attr-defined]


class WebSocket(WSStream):
    async def handle(self, event: Event) -> None:
        if not isinstance(event, Body | Data) or self.handshake.accepted:
            await super().handle(event)

    async def _send_error_response(self, status_code: int) -> None:
        await super()._send_error_response(status_code)
        await self.send(StreamClosed(stream_id=self.stream_id))
