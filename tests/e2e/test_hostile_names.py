"""Names and headers that mean harm, through the real listener: they break out of nowhere."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import trio
from faulty_service import faulty_service
from hostile_service import (
    ANY_MODEL,
    AZURE,
    BODY,
    LENGTH,
    post,
    refusal,
    say_in_http2,
    service,
    told,
)

NAMES = [
    "..%2f..%2fadmin%2finstances", "%2e%2e", "..", ".", "a%2fb", "a%5cb", "a%3fb%23c", "x" * 256,
    "gpt-4o%20", "GPT-4O", "%F0%9F%92%A9", "gpt%E2%80%AE4o", "gpt-4o%3bx", "gpt-4o%25",
]  # fmt: skip


async def test_a_model_name_in_the_path_is_a_name_and_nothing_else(tmp_path: Path) -> None:
    async with service(tmp_path) as running:
        for name in NAMES:
            path = f"/openai/deployments/{name}/chat/completions".encode()
            received = await told(running, post(b"connection: close", LENGTH, path=path))
            status, error = refusal(received)
            assert (status, error["type"]) == (404, "invalid_request_error"), name


async def test_a_path_that_is_no_text_or_too_long_is_refused(tmp_path: Path) -> None:
    async with service(tmp_path) as running:
        for name in ("a%00b", "a%0d%0ax:%20y", "%ff", "%zz", "%", "x" * 257):
            path = f"/openai/deployments/{name}/chat/completions".encode()
            request = post(b"connection: close", LENGTH, path=path)
            assert refusal(await told(running, request))[0] == 400, name


@pytest.mark.parametrize(
    "model",
    ["a\r\nx-evil: 1", "../../admin", "a\x00b", "\u202e", "\U0001f4a9", "\ud800", "x" * 256],
)
async def test_a_model_name_in_the_body_stays_in_the_body(model: str, tmp_path: Path) -> None:
    async with service(tmp_path, ANY_MODEL, expected=2 if model != "\ud800" else 1) as running:
        body = json.dumps({"model": model, "messages": []}).encode()
        answer = await running.http.post("/v1/chat/completions", content=body)
        if model == "\ud800":  # half a character: no text
            assert answer.status_code == 400
            return
        [request] = running.upstreams["any"].requests
        assert request.target == "/v1/chat/completions"
        assert "x-evil" not in request.headers
        assert json.loads(request.body)["model"] == model
        assert "x-evil" not in answer.headers


async def test_what_a_client_says_in_headers_and_query_breaks_out_of_nowhere(
    tmp_path: Path,
) -> None:
    async with service(tmp_path, expected=2) as running:
        answer = await running.http.post(
            "/v1/chat/completions?x=%0d%0ax-evil:%201&api-version=evil&y=%00",
            content=BODY,
            headers={
                "x-odd": "%0d%0ax-evil: 1",
                "x-request-id": "a%0d%0ab c",
                "x-proxy-instance": "evil",
                "api-key": "evil",
                "host": "evil.example",
                "connection": "x-odd, api-key",
            },
        )
        assert answer.status_code == 200
        [request] = running.upstreams["azure"].requests
        target, _, query = request.target.partition("?")
        assert target == "/openai/deployments/my%20deployment/chat/completions"
        assert query == "api-version=2024-10-21&x=%0d%0ax-evil:%201&y=%00"
        assert request.headers["api-key"] == "key-of-azure-0123456789"
        assert request.headers["host"].startswith("127.0.0.1:")
        assert not {"x-evil", "x-odd", "x-proxy-instance"} & request.headers.keys()
        assert answer.headers["x-proxy-instance"] == "azure"
        assert answer.headers["x-request-id"] != "a%0d%0ab c"


ODD_HTTP2 = [
    {"x-odd": "a\r\nx-evil: 1"},
    {"x-odd": "a\nx-evil: 1"},
    {"x-odd": "a\x00b"},
    {"x-odd\r\nx-evil": "1"},
    {":path": "/v1/chat/completions?a=\r\nx-evil: 1"},
    {":path": "/v1/chat/completions?a=\xe9 b"},
    {":path": "/v1/chat/completions HTTP/1.1\r\nx-evil: 1\r\n\r\n"},
    {":path": "/v1/chat/completions%00"},
]


@pytest.mark.parametrize("fields", ODD_HTTP2, ids=repr)
async def test_http2_can_say_more_than_fits_a_line_and_gets_no_further(
    fields: dict[str, str], tmp_path: Path
) -> None:
    async with faulty_service(tmp_path, AZURE) as running:
        for _ in range(6):  # as many as would open a breaker
            with trio.move_on_after(2):
                await say_in_http2(running, fields)
        for request in running.upstreams["azure"].requests:
            assert "x-evil" not in request.headers
            assert " " not in request.target
        state = await running.state("azure")
        assert (state["error_count"], state["status"]) == (0, "healthy")
        served = await running.http.post("/v1/chat/completions", content=BODY)
        assert served.status_code == 200
