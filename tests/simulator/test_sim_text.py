"""Chat, completions and embeddings: what they answer and what they refuse."""

from __future__ import annotations

import struct
from base64 import b64decode
from typing import Any

import pytest
from simulator_calls import (
    CHAT,
    HELLO,
    chat,
    deployment,
    document,
    error,
    headers_of,
    post,
    resource,
    sse_events,
    v1,
    whole_body,
)

from proxy.simulator.inference import BLOCKED_ANSWER, BLOCKED_PROMPT, Reading
from proxy.simulator.limiter import Limits
from proxy.simulator.text import answer_part, answer_text, quarter_count

EMBEDDING = "text-embedding-3-small"


def test_a_plain_answer_has_what_was_asked_for_and_reports_it() -> None:
    body = document(chat(resource(), max_tokens=7, metadata={"simulated_output_tokens": "50"}))
    choice = body["choices"][0]
    assert len(choice["message"]["content"].split()) == 7
    assert choice["finish_reason"] == "length"
    assert body["usage"]["completion_tokens"] == 7
    # 3 to prime, 3 per message, and a quarter of the five characters rounded up.
    assert body["usage"]["prompt_tokens"] == 3 + 3 + 2
    assert body["usage"]["total_tokens"] == 15
    assert set(choice["content_filter_results"]) == {"hate", "self_harm", "sexual", "violence"}
    assert body["prompt_filter_results"][0]["prompt_index"] == 0


def test_an_answer_ends_by_itself_below_the_limit() -> None:
    body = document(chat(resource(), max_tokens=500, metadata={"simulated_output_tokens": "50"}))
    assert body["choices"][0]["finish_reason"] == "stop"
    assert body["usage"]["completion_tokens"] == 50


def test_without_a_limit_the_length_is_the_models_own() -> None:
    sim = resource(deployment(answer_tokens=(30, 40)))
    lengths = {document(chat(sim))["usage"]["completion_tokens"] for _ in range(50)}
    assert lengths <= set(range(30, 41))
    assert len(lengths) > 5


def test_the_plain_dialect_has_nothing_of_azure_in_it() -> None:
    answer = post(
        resource(),
        "/v1/chat/completions",
        {**HELLO, "model": "gpt-4o"},
        query=b"",
        headers=((b"authorization", b"Bearer simulated-key"),),
    )
    assert "prompt_filter_results" not in document(answer)
    assert "content_filter_results" not in document(answer)["choices"][0]
    assert "x-ms-region" not in headers_of(answer)
    assert headers_of(answer)["x-ratelimit-reset-tokens"] == "1m0s"


def test_a_stream_has_azures_order_of_events() -> None:
    answer = chat(
        resource(),
        stream=True,
        stream_options={"include_usage": True},
        max_tokens=3,
    )
    events = [event for _, event in sse_events(whole_body(answer))]
    assert headers_of(answer)["content-type"].startswith("text/event-stream")
    first, role, *content, last, used, done = events
    assert first["choices"] == []
    assert (first["id"], first["object"], first["model"], first["created"]) == ("", "", "", 0)
    assert first["prompt_filter_results"][0]["content_filter_results"]["hate"]["filtered"] is False
    assert role["choices"][0]["delta"]["role"] == "assistant"
    text = "".join(event["choices"][0]["delta"]["content"] for event in content)
    assert text == answer_text(3)
    assert last["choices"][0]["delta"] == {}
    assert last["choices"][0]["finish_reason"] == "length"
    assert used["choices"] == []
    assert used["usage"]["completion_tokens"] == 3
    assert all(event["usage"] is None for event in (role, *content, last))
    assert done == "[DONE]"
    assert len({event["id"] for event in (role, *content, last, used)}) == 1


def test_no_chunk_speaks_of_usage_unless_asked() -> None:
    stream = whole_body(chat(resource(), stream=True, max_tokens=3))
    assert b"usage" not in stream


def test_several_choices_grow_side_by_side_and_all_count() -> None:
    sim = resource(deployment(chunk_tokens=4))
    plain = document(chat(sim, n=3, max_tokens=10, metadata={"simulated_output_tokens": "10"}))
    assert [choice["index"] for choice in plain["choices"]] == [0, 1, 2]
    assert plain["usage"]["completion_tokens"] == 30
    answer = chat(sim, n=3, max_tokens=10, stream=True, metadata={"simulated_output_tokens": "10"})
    texts = dict.fromkeys(range(3), "")
    for _, event in sse_events(whole_body(answer)):
        for choice in event["choices"] if event != "[DONE]" else ():
            texts[choice["index"]] += choice["delta"].get("content", "")
    assert set(texts.values()) == {answer_text(10)}


@pytest.mark.parametrize(
    ("query", "status"),
    [(b"api-version=2024-06-01", 400), (b"api-version=2024-10-21", 200)],
)
def test_versions_from_before_stream_options_refuse_them(query: bytes, status: int) -> None:
    body = {**HELLO, "stream": True, "stream_options": {"include_usage": True}}
    answer = post(resource(), CHAT, body, query=query)
    assert answer.status == status
    if status == 400:
        message = error(answer)["message"]
        assert message == "Unrecognized request argument supplied: stream_options"


@pytest.mark.parametrize(
    ("changes", "param", "code"),
    [
        ({"messages": None}, "messages", "missing_required_parameter"),
        ({"messages": []}, "messages", "invalid_type"),
        ({"messages": ["hello"]}, "messages[0]", "invalid_type"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages", "invalid_type"),
        ({"max_tokens": "5"}, "max_tokens", "invalid_type"),
        ({"max_tokens": 0}, "max_tokens", "integer_below_min_value"),
        ({"max_tokens": 1.5}, "max_tokens", "invalid_type"),
        ({"max_tokens": True}, "max_tokens", "invalid_type"),
        ({"stream": "yes"}, "stream", "invalid_type"),
        ({"n": 1000}, "n", "invalid_value"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "invalid_value"),
    ],
)
def test_requests_that_are_wrong_in_themselves(
    changes: dict[str, Any], param: str, code: str
) -> None:
    answer = chat(resource(), **changes)
    assert (answer.status, error(answer)["param"], error(answer)["code"]) == (400, param, code)


def test_reasoning_models_want_max_completion_tokens() -> None:
    sim = resource(deployment("o3"))
    path = "/openai/deployments/o3/chat/completions"
    assert error(chat(sim, path=path, max_tokens=9))["code"] == "unsupported_parameter"
    body = document(chat(sim, path=path, max_completion_tokens=9))
    assert body["usage"]["completion_tokens"] <= 9


def test_a_blocked_prompt_is_refused_streamed_or_not() -> None:
    message = [{"role": "user", "content": f"please {BLOCKED_PROMPT} now"}]
    for stream in (False, True):
        answer = chat(resource(), messages=message, stream=stream)
        body = error(answer)
        assert (answer.status, body["code"], body["param"], body["status"]) == (
            400,
            "content_filter",
            "prompt",
            400,
        )
        assert body["innererror"]["code"] == "ResponsibleAIPolicyViolation"
        assert body["innererror"]["content_filter_result"]["violence"]["filtered"] is True


def test_a_refused_prompt_uses_nothing() -> None:
    sim = resource(deployment(limits=Limits(tpm=1000, charging="corrected")))
    chat(sim, messages=[{"role": "user", "content": BLOCKED_PROMPT}], max_tokens=100)
    assert sim.limiter("gpt-4o").standing(0).tokens.remaining == 1000
    assert sim.limiter("gpt-4o").tally().settled == 1


def test_a_blocked_answer_is_cut_short() -> None:
    body = document(
        chat(
            resource(),
            messages=[{"role": "user", "content": BLOCKED_ANSWER}],
            metadata={"simulated_output_tokens": "50"},
        )
    )
    assert body["choices"][0]["finish_reason"] == "content_filter"
    assert body["choices"][0]["content_filter_results"]["violence"]["filtered"] is True
    assert body["usage"]["completion_tokens"] == 25


def test_a_prompt_that_is_too_long_and_the_charge_for_it() -> None:
    sim = resource(deployment(context_tokens=100, limits=Limits(tpm=1000)))
    answer = chat(sim, messages=[{"role": "user", "content": "x" * 400}], max_tokens=10)
    assert (answer.status, error(answer)["code"]) == (400, "context_length_exceeded")
    assert "maximum context length is 100 tokens" in error(answer)["message"]
    assert "resulted in 116 tokens" in error(answer)["message"]
    assert sim.limiter("gpt-4o").standing(0).tokens.remaining == 1000 - 116


def test_pictures_count_by_detail() -> None:
    def prompt_tokens(detail: str) -> int:
        picture = {"type": "image_url", "image_url": {"url": "data:,", "detail": detail}}
        text = {"type": "text", "text": "what?"}
        messages = [{"role": "user", "content": [text, picture]}]
        return int(document(chat(resource(), messages=messages))["usage"]["prompt_tokens"])

    assert prompt_tokens("low") == 3 + 3 + 2 + 85
    assert prompt_tokens("high") == 3 + 3 + 2 + 765


def test_another_way_of_counting_can_be_plugged_in() -> None:
    sim = resource(reading=Reading(count=lambda text: 1000 * len(text.split())))
    assert document(chat(sim))["usage"]["prompt_tokens"] == 1006


def test_the_second_time_a_long_prompt_is_cached() -> None:
    sim = resource()
    long = [{"role": "user", "content": "abcd" * 2000}]
    longer = [{"role": "user", "content": "abcd" * 1500 + "efgh" * 500}]

    def cached(messages: list[dict[str, str]], now: float, key: str = "k") -> int:
        body = document(chat(sim, now=now, messages=messages, prompt_cache_key=key))
        return int(body["usage"]["prompt_tokens_details"]["cached_tokens"])

    assert cached(long, 0) == 0
    assert cached(long, 1) == 1920
    assert cached(longer, 2) == 1408
    assert cached(long, 3, key="other") == 0
    assert cached(longer, 3700) == 0
    assert cached([{"role": "user", "content": "abcd" * 1000}], 3700) == 0


def test_completions_give_every_prompt_its_choices() -> None:
    path = "/openai/deployments/gpt-4o/completions"
    body = document(
        post(resource(), path, {"prompt": ["one", "two"], "n": 2, "best_of": 3, "max_tokens": 5})
    )
    assert [choice["index"] for choice in body["choices"]] == [0, 1, 2, 3]
    assert body["usage"]["completion_tokens"] == 5 * 3 * 2
    assert body["object"] == "text_completion"


def test_streamed_completions() -> None:
    path = "/openai/deployments/gpt-4o/completions"
    options = {"stream": True, "stream_options": {"include_usage": True}}
    answer = post(resource(), path, {"prompt": [1, 2, 3], "max_tokens": 4, **options})
    events = [event for _, event in sse_events(whole_body(answer))]
    assert events[0]["prompt_filter_results"]
    text = "".join(event["choices"][0]["text"] for event in events[1:-2])
    assert text == answer_text(4)
    assert events[-3]["choices"][0]["finish_reason"] == "length"
    assert events[-2]["usage"] == {
        **events[-2]["usage"],
        "prompt_tokens": 3,
        "completion_tokens": 4,
    }
    assert events[-1] == "[DONE]"


def embed(sim: Any, **body: Any) -> Any:
    return document(v1(sim, "embeddings", {"model": EMBEDDING, **body}))


def test_embeddings_are_unit_vectors_that_depend_on_their_input() -> None:
    sim = resource(deployment(EMBEDDING))
    body = embed(sim, input=["one", "two", "one"], dimensions=256)
    one, two, again = (entry["embedding"] for entry in body["data"])
    assert len(one) == 256
    assert sum(number * number for number in one) == pytest.approx(1, abs=1e-5)
    assert one == again != two
    assert body["usage"]["prompt_tokens"] == quarter_count("one two one")


def test_embeddings_in_base64_are_the_same_numbers() -> None:
    sim = resource(deployment(EMBEDDING))
    plain = embed(sim, input="one")["data"][0]["embedding"]
    coded = embed(sim, input="one", encoding_format="base64")["data"][0]["embedding"]
    assert len(plain) == 1536
    assert list(struct.unpack("<1536f", b64decode(coded))) == pytest.approx(plain)


@pytest.mark.parametrize(
    ("value", "entries", "tokens"),
    [("some text", 1, 3), ([5, 6, 7], 1, 3), ([[1], [2, 3]], 2, 3), (["a", "b"], 2, 1)],
)
def test_every_shape_of_embedding_input(value: Any, entries: int, tokens: int) -> None:
    body = embed(resource(deployment(EMBEDDING)), input=value)
    assert len(body["data"]) == entries
    assert body["usage"]["total_tokens"] == tokens


@pytest.mark.parametrize("value", [[], 5, [["a"]], ["a", 1], {"a": 1}, ["a"] * 2049])
def test_embedding_inputs_that_are_refused(value: Any) -> None:
    sim = resource(deployment(EMBEDDING))
    assert v1(sim, "embeddings", {"model": EMBEDDING, "input": value}).status == 400


@pytest.mark.parametrize("tokens", [0, 1, 5, 49, 50, 51, 1000])
def test_an_answer_has_one_word_per_token_however_it_is_cut(tokens: int) -> None:
    assert len(answer_text(tokens).split()) == tokens
    parts = [answer_part(first, min(7, tokens - first)) for first in range(0, tokens, 7)]
    assert "".join(parts) == answer_text(tokens)
