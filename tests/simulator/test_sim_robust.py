"""Whatever a client sends, a resource answers it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulator_calls import HELLO, deployment, post, resource, v1, whole_body

from proxy.simulator.resource import DEFAULT_KEY

MODELS = {
    "chat/completions": "gpt-4o",
    "completions": "gpt-4o",
    "responses": "gpt-4o",
    "embeddings": "text-embedding-3-small",
    "images/generations": "gpt-image-1",
    "images/edits": "gpt-image-1",
    "audio/speech": "tts-1",
    "audio/transcriptions": "whisper-1",
    "moderations": "omni-moderation-latest",
}
FIELDS = (
    *("messages", "prompt", "input", "stream", "stream_options", "max_tokens", "n", "best_of"),
    *("max_completion_tokens", "max_output_tokens", "tools", "metadata", "encoding_format"),
    *("dimensions", "include", "previous_response_id", "instructions", "store", "background"),
    *("response_format", "voice", "file", "image", "prompt_cache_key", "purpose", "endpoint"),
    *("input_file_id", "temperature"),
)
WORDS = (
    "role",
    "user",
    "content",
    "type",
    "text",
    "image_url",
    "reasoning",
    "simulated_output_tokens",
)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-5, 300)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(["", "12", "gAAAAA==", "json", *WORDS])
    | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=3)
    ),
    max_leaves=8,
)
BODIES = st.dictionaries(st.sampled_from(FIELDS), VALUES, max_size=6)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(sorted(MODELS)), BODIES, st.booleans())
def test_no_body_breaks_a_resource(path: str, body: dict[str, Any], likely: bool) -> None:
    sim = resource(*(deployment(name, answer_tokens=(1, 5)) for name in set(MODELS.values())))
    if likely:
        body = {**HELLO, "prompt": "x", "input": "x", "voice": "alloy", **body}
    answer = v1(sim, path, {**body, "model": MODELS[path]})
    assert answer.status in (200, 400)
    assert whole_body(answer)


@given(st.sampled_from(["files", "batches", "responses/resp_1/cancel", "models"]), BODIES)
def test_no_body_breaks_what_is_kept(path: str, body: dict[str, Any]) -> None:
    assert v1(resource(), path, body).status in (400, 404)


@given(
    st.binary(max_size=60),
    st.sampled_from([b"application/json", b"multipart/form-data; boundary=x"]),
)
def test_no_bytes_break_a_resource(body: bytes, content_type: bytes) -> None:
    answer = post(resource(), "/openai/v1/files", body, query=b"", content_type=content_type)
    assert answer.status == 400


@given(st.text(max_size=40), st.binary(max_size=20), st.sampled_from(["GET", "POST", "PUT"]))
def test_no_address_breaks_a_resource(path: str, query: bytes, method: str) -> None:
    for begin in ("/", "/openai/", "/openai/v1/", "/v1/", "/openai/deployments/"):
        for key in ((b"api-key", DEFAULT_KEY.encode()), (b"authorization", b"Bearer \xff")):
            answer = post(resource(), begin + path, b"", query=query, method=method, headers=(key,))
            assert answer.status in (400, 401, 404)


@pytest.mark.parametrize("size", [1, 100])
def test_a_body_of_many_answers_is_bounded(size: int) -> None:
    body = {"model": "gpt-4o", "prompt": ["x"] * 21 * size, "n": 100}
    assert v1(resource(), "completions", body).status == 400
