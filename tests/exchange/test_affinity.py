from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.exchange.affinity import BEGINNING_CHARS, affinity

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
