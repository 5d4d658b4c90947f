"""The data plane as ASGI: what goes where, and the rules for a path, a length and a body."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio
from asgi_server import Server, conversation, plane, scope
from front_fakes import ScriptedExchange, front, read_all
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import BodyTooLarge
from proxy.front.asgi import AnswerWriter, BodyReader, Call, DataPlane, declared_length, target_path

if TYPE_CHECKING:
    pass


# --- what goes where


@pytest.mark.parametrize(
    ("path", "status"), [("/v1/x", 200), ("/openai/v1/x", 200), ("/v1", 404), ("/healthz", 404)]
)
async def test_other_paths_go_to_the_application(path: str, status: int) -> None:
    async with conversation(plane(ScriptedExchange()), path=path) as server:
        server.body(b"", more=False)
    assert server.status == status


async def test_other_scopes_go_to_the_application() -> None:
    seen: list[str] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["type"])

    app = DataPlane(application, ScriptedExchange(), max_request_bytes=1, body_timeout_s=1)
    for kind in ("lifespan", "websocket"):
        await app({**scope(), "type": kind}, None, None)
    assert seen == ["lifespan", "websocket"]


async def test_through_quart() -> None:
    exchange = ScriptedExchange()
    app = front(exchange=exchange)
    async with app.test_app() as running:
        client = running.test_client()
        answer = await client.post("/v1/chat/completions", data=b"{}")
        assert (answer.status_code, await answer.get_data()) == (200, b"ok")
        assert (await client.get("/healthz")).status_code == 200
        async with conversation(app) as server:
            server.body(b"half")
            server.disconnect()
    assert exchange.ended == ["done", "cancelled"]


@pytest.mark.parametrize(
    ("target", "path"),
    [
        ("/v1/x", "/v1/x"),
        ("//v1/x", "//v1/x"),
        ("http://host/v1/x", "/v1/x"),
        ("http://host:80/", "/"),
        ("http://host", "/"),
        ("http://[", "/"),
        ("*", "/"),
        ("", "/"),
        ("v1/x", "/"),
    ],
)
def test_target_path(target: str, path: str) -> None:
    assert target_path(target) == path


@pytest.mark.parametrize(
    ("value", "length"),
    [
        (None, 0),
        (b"0", 0),
        (b"007", 7),
        (b"12345", 12345),
        (b"-5", 0),
        (b"1e9", 0),
        (b"\xb2", 0),
        (b"9" * 18, 10**18 - 1),
        (b"9" * 10_000, 10**19),
    ],
)
def test_declared_length(value: bytes | None, length: int) -> None:
    headers = [(b"host", b"h")] + ([] if value is None else [(b"content-length", value)])
    assert declared_length(headers) == length


@given(st.lists(st.binary(max_size=20), max_size=30), st.integers(0, 200), st.booleans())
def test_the_reader_gives_the_body_or_refuses_it(
    pieces: list[bytes], limit: int, declared: bool
) -> None:
    body = b"".join(pieces)
    headers = [(b"content-length", b"%d" % len(body))] if declared else []

    async def check() -> None:
        server = Server()
        for piece in pieces:
            server.body(piece)
        server.body(b"", more=False)
        fields = scope(headers=headers)
        call = Call(server.receive, server.send)
        reader = BodyReader(fields, "/v1/x", call, limit_bytes=limit, body_timeout_s=5)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(reader.pump)
            try:
                assert await read_all(reader) == body
                assert len(body) <= limit
            except BodyTooLarge:
                assert len(body) > limit
            await AnswerWriter(fields, reader, call).respond(200, [], b"")
            nursery.cancel_scope.cancel()

    trio.run(check)
