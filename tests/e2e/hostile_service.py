"""A service before clients that mean harm."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import h2.config
import h2.connection
import h2.events
import trio
from faulty_service import Faulty, Instance, faulty_service
from faulty_upstream import serving

LIMIT_S = 15
AZURE = Instance("azure", (serving(),), {"model_deployments": {"gpt-4o": "my deployment"}})
ANY_MODEL = Instance(
    "any", (serving(),), {"provider_type": "generic", "supported_models": [], "priority": 9}
)
BODY = json.dumps({"model": "gpt-4o", "messages": []}).encode()
HIDDEN = b"GET /v1/models HTTP/1.1\r\nhost: x\r\nx-hidden: 1\r\n\r\n"


@asynccontextmanager
async def service(
    folder: Path, *instances: Instance, expected: int = 1, **settings: Any
) -> AsyncIterator[Faulty]:
    """At the end it serves, and its upstreams have got `expected` requests and hold nothing
    against anybody."""
    environ = {name.upper(): str(value) for name, value in settings.items()}
    with trio.fail_after(LIMIT_S):
        async with faulty_service(folder, *(instances or (AZURE,)), settings=environ) as running:
            yield running
            served = await running.http.post("/v1/chat/completions", content=BODY)
            assert served.status_code == 200, served.text
            requests = [one for each in running.upstreams.values() for one in each.requests]
            assert len(requests) == expected
            for name in running.upstreams:
                assert (await running.state(name))["error_count"] == 0
            assert running.reserved() == 0


async def told(running: Faulty, *sent: bytes) -> bytes:
    """What the service says until it hangs up; the client does not end its side."""
    received = b""
    async with await running.connect() as client:
        for piece in sent:
            await client.send_all(piece)
        while data := await client.receive_some():
            received += data
    return received


def refusal(received: bytes) -> tuple[int, Any]:
    """Status and error of the one answer."""
    head, _, body = received.partition(b"\r\n\r\n")
    assert received.count(b"HTTP/1.1 ") == 1
    assert b"connection: close" in head.lower()
    return int(head.split()[1]), json.loads(body)["error"]


def post(*headers: bytes, body: bytes = BODY, path: bytes = b"/v1/chat/completions") -> bytes:
    lines = [b"POST " + path + b" HTTP/1.1", b"host: x", *headers]
    return b"\r\n".join([*lines, b"", b""]) + body


LENGTH = b"content-length: %d" % len(BODY)


async def say_in_http2(running: Faulty, fields: dict[str, str]) -> str | None:
    """The status; None if there is none before the stream or the connection ends."""
    status = None
    config = h2.config.H2Configuration(
        client_side=True, validate_outbound_headers=False, normalize_outbound_headers=False
    )
    connection = h2.connection.H2Connection(config)
    connection.initiate_connection()
    headers = {
        ":method": "POST",
        ":scheme": "http",
        ":authority": "x",
        ":path": "/v1/chat/completions",
        "content-length": str(len(BODY)),
        **fields,
    }
    connection.send_headers(1, list(headers.items()))
    connection.send_data(1, BODY, end_stream=True)
    async with await running.connect() as client:
        await client.send_all(connection.data_to_send())
        while data := await client.receive_some():
            for event in connection.receive_data(data):
                if isinstance(event, h2.events.ResponseReceived):
                    status = dict(event.headers)[b":status"].decode()
                if isinstance(
                    event,
                    h2.events.StreamEnded | h2.events.StreamReset | h2.events.ConnectionTerminated,
                ):
                    return status
            await client.send_all(connection.data_to_send())
    return status
