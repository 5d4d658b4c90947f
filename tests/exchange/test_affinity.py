from __future__ import annotations

from typing import Any

import pytest
from fakes import FakeUpstream, FakeWriter, completion
from fakes import chat as chat_request
from harness import instance_config, running_system
from hypothesis import given
from hypothesis import strategies as st

from proxy.exchange.affinity import BEGINNING_CHARS, affinity
from proxy.exchange.attempts import Means
from proxy.exchange.client_keys import ClientKeys
from proxy.exchange.exchange import Exchange
from proxy.exchange.models import ModelList
from proxy.exchange.record import RequestRecord
from proxy.tokens.output import Allowance

SYSTEM = "You are a careful assistant. " * 200


def chat(*contents: Any, **fields: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": content} for content in contents], **fields}


def key(document: dict[str, Any], model: str = "gpt-4o") -> int | None:
    return affinity(document, model, body_bytes=len(str(document)))


def test_short_prompts_have_none() -> None:
    assert key(chat("Hello")) is None


def test_a_common_beginning_is_a_common_key() -> None:
    assert key(chat(SYSTEM, "one")) == key(chat(SYSTEM, "two")) is not None
    assert key(chat(SYSTEM, "one")) != key(chat("x" + SYSTEM, "one"))


def test_each_model_has_its_own_keys() -> None:
    assert key(chat(SYSTEM)) != key(chat(SYSTEM), model="gpt-4o-mini")


def test_the_clients_own_key_wins_whatever_the_length() -> None:
    first = key(chat("a", prompt_cache_key="tenant"))
    assert first is not None
    assert first == key(chat(SYSTEM, prompt_cache_key="tenant"))


@pytest.mark.parametrize(
    "document",
    [
        chat([{"type": "text", "text": SYSTEM}]),
        {"instructions": SYSTEM, "input": "x"},
        {"input": [{"role": "user", "content": [{"type": "input_text", "text": SYSTEM}]}]},
        {"prompt": [SYSTEM]},
    ],
)
def test_every_shape_of_prompt_has_a_beginning(document: dict[str, Any]) -> None:
    assert key(document) is not None


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_nonsense_is_no_key_and_no_error(value: Any) -> None:
    document = {"messages": value, "input": value, "prompt": value, "instructions": value}
    affinity(document, "m", BEGINNING_CHARS)


async def test_requests_with_a_key_meet_the_same_instance() -> None:
    names = [f"i{number}" for number in range(8)]
    configs = [instance_config(name, max_tpm=10**6) for name in names]
    async with running_system(*configs) as system:
        records: list[RequestRecord] = []
        upstream = FakeUpstream(**dict.fromkeys(names, completion()))
        exchange = Exchange(
            means=Means(system.leases, upstream, Allowance(), max_wait_s=0.0),
            models=ModelList(system.administration),
            keys=ClientKeys(()),
            max_running=100,
            record=records.append,
        )
        for key in ("a", "b"):
            for _ in range(10):
                await exchange.handle(chat_request(prompt_cache_key=key), FakeWriter())
        assert len({record.instance for record in records[:10]}) == 1
        assert len({record.instance for record in records[10:]}) == 1
