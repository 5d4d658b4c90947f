"""Prompts of a wanted length: as the resources count it, and as tiktoken does."""

from __future__ import annotations

import json
from functools import partial

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.exchange.operations import find
from proxy.planning import prompts
from proxy.planning.arrivals import Ask
from proxy.simulator import chat, embeddings
from proxy.simulator.deployment import Deployment
from proxy.simulator.surface import Address
from proxy.simulator.text import quarter_count
from proxy.tokens.count import count

MODELS = ["gpt-4o", "gpt-35-turbo", "text-embedding-3-small"]
ADDRESS = Address("v1", "chat/completions", None, "v1")


@pytest.mark.parametrize("model", MODELS)
@settings(deadline=None)  # the first one loads a vocabulary
@given(tokens=st.integers(8, 20_000), number=st.integers(0, 99_999_999))
def test_the_quick_count_is_the_count_of_the_proxy(model: str, tokens: int, number: int) -> None:
    document = json.loads(prompts.body(Ask(0, model, tokens, 10), number))
    target = find(prompts.path(model))
    assert target is not None
    assert target.operation is not None
    kind = target.operation.estimate
    counted = trio.run(partial(count, kind, document, model, body_bytes=200_000))
    # A word cut at the end of the text may be two tokens.
    assert abs(prompts.count(kind, document, model) - counted) <= 1


@given(tokens=st.integers(8, 20_000))
def test_a_resource_counts_the_input_that_was_asked_for(tokens: int) -> None:
    document = json.loads(prompts.body(Ask(0, "gpt-4o", tokens, 10), 7))
    ask = chat.read(document, ADDRESS, Deployment(name="gpt-4o", model="gpt-4o"))
    assert quarter_count(ask.text) + ask.other_tokens == tokens
    model = "text-embedding-3-small"
    document = json.loads(prompts.body(Ask(0, model, tokens, 10), 7))
    ask = embeddings.read(document, ADDRESS, Deployment(name=model, model=model))
    assert quarter_count(ask.text) + ask.other_tokens == tokens


def test_both_counts_are_near_each_other() -> None:
    document = json.loads(prompts.body(Ask(0, "gpt-4o", 1000, 10), 7))
    assert prompts.count("chat", document, "gpt-4o") == pytest.approx(1000, abs=5)


def test_no_two_prompts_begin_alike() -> None:
    ask = Ask(0, "gpt-4o", 100, 10)
    texts = {json.loads(prompts.body(ask, n))["messages"][0]["content"][:8] for n in range(100)}
    assert len(texts) == 100


def test_limit_and_stream_are_asked_for_as_the_request_says() -> None:
    plain = json.loads(prompts.body(Ask(0, "gpt-4o", 100, 10), 1))
    assert "max_completion_tokens" not in plain
    assert "stream" not in plain
    asked = json.loads(prompts.body(Ask(0, "gpt-4o", 100, 10, 30, True), 1))
    assert asked["max_completion_tokens"] == 30
    assert asked["stream"] is True
