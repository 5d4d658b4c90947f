"""A client of HTTP/2 on a stream, as small as it can be."""

from __future__ import annotations

import h2.config
import h2.connection
import h2.events
import trio


class Http2Client:
    """Just enough HTTP/2 for a GET."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        self.h2.initiate_connection()

    def ask(self, path: str) -> None:
        stream_id = self.h2.get_next_available_stream_id()
        fields = {":method": "GET", ":path": path, ":scheme": "http", ":authority": "x"}
        self.h2.send_headers(stream_id, list(fields.items()), end_stream=True)

    async def get_at_once(self, path: str, count: int) -> None:
        """So many requests have been answered."""
        for _ in range(count):
            self.ask(path)
        while count:
            await self.stream.send_all(self.h2.data_to_send())
            data = await self.stream.receive_some()
            assert data, "the server ended the connection"
            events = self.h2.receive_data(bytes(data))
            assert not any(isinstance(event, h2.events.ConnectionTerminated) for event in events)
            count -= sum(isinstance(event, h2.events.StreamEnded) for event in events)

    async def get(self, path: str) -> tuple[str, bytes]:
        self.ask(path)
        status, body = "", b""
        while True:
            await self.stream.send_all(self.h2.data_to_send())
            data = await self.stream.receive_some()
            assert data, "the server ended the connection"
            for event in self.h2.receive_data(bytes(data)):
                if isinstance(event, h2.events.ResponseReceived):
                    status = dict(event.headers)[":status"]
                elif isinstance(event, h2.events.DataReceived):
                    body += event.data
                elif isinstance(event, h2.events.StreamEnded):
                    return status, body
