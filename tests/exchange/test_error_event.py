"""What the official SDK makes of the error event that ends a broken stream."""

from __future__ import annotations

import json
from typing import Any

import httpx2
import openai
import pytest
from chat_stream import TEXT

from proxy.exchange.relay import error_event


def sdk_client(stream: bytes) -> openai.OpenAI:
    def answer(request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, headers={"content-type": "text/event-stream"}, content=stream)

    transport = httpx2.MockTransport(answer)
    return openai.OpenAI(
        api_key="k",
        base_url="http://proxy/v1",
        max_retries=0,
        http_client=httpx2.Client(transport=transport),
    )


def data_event(document: Any) -> bytes:
    return b"data: " + json.dumps(document).encode() + b"\n\n"


def test_the_official_chat_client_raises_at_our_error_event() -> None:
    client = sdk_client(data_event(TEXT) + error_event(None, 1))
    received: list[Any] = []
    with pytest.raises(openai.APIError) as caught:
        stream = client.chat.completions.create(model="m", messages=[], stream=True)
        received.extend(chunk.choices[0].delta.content for chunk in stream)
    assert received == ["hi"]
    assert caught.value.code == "upstream_interrupted"
    assert "incomplete" in caught.value.message
    client.close()


def test_the_official_responses_client_raises_at_our_error_event() -> None:
    delta = {"type": "response.output_text.delta", "delta": "hi", "sequence_number": 0}
    stream = b"event: response.output_text.delta\n" + data_event(delta)
    client = sdk_client(stream + error_event(None, 1))
    received: list[Any] = []
    with pytest.raises(openai.APIError) as caught:
        events = client.responses.create(model="m", input="x", stream=True)
        received.extend(event.type for event in events)
    assert received == ["response.output_text.delta"]
    assert caught.value.code == "upstream_interrupted"
    client.close()


def test_our_error_event_is_one_of_the_responses_api() -> None:
    raw = error_event(None, 7).split(b"data: ")[1]
    event = openai.types.responses.ResponseErrorEvent.model_validate_json(raw)
    assert (event.type, event.code, event.sequence_number) == ("error", "upstream_interrupted", 7)
