"""Reading usage from answers, of any size and shape."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.exchange.usage import (
    MAX_TOKENS,
    USAGE_WINDOW_BYTES,
    WHOLE_PARSE_BYTES,
    Usage,
    from_body,
    from_document,
    from_ends,
    from_object,
)

CHAT = {
    "completion_tokens": 3,
    "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
    "prompt_tokens": 9,
    "prompt_tokens_details": {"cached_tokens": 0},
    "total_tokens": 12,
}
RESPONSES = {"input_tokens": 9, "output_tokens": 3, "input_tokens_details": {"cached_tokens": 1}}


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        (CHAT, Usage(9, 3)),
        (RESPONSES, Usage(9, 3)),
        ({"prompt_tokens": 9, "total_tokens": 9}, Usage(9, 0)),
        ({"prompt_tokens": 9, "completion_tokens": None}, Usage(9, 0)),
        ({"type": "duration", "seconds": 3}, None),
        ({"prompt_tokens": -1, "completion_tokens": 1}, None),
        ({"prompt_tokens": True, "completion_tokens": 1}, None),
        ({"prompt_tokens": 1.5}, None),
        ({"prompt_tokens": MAX_TOKENS + 1}, None),
        ({"prompt_tokens": 1, "completion_tokens": 10**400}, None),
        ({}, None),
        (None, None),
        ([9, 3], None),
    ],
)
def test_both_vocabularies_are_understood_and_nonsense_is_not(
    usage: object, expected: Usage | None
) -> None:
    assert from_object(usage) == expected


def test_a_total_is_input_and_output() -> None:
    assert Usage(9, 3).total == 12


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ({"usage": CHAT}, Usage(9, 3)),
        ({"type": "response.completed", "response": {"usage": RESPONSES}}, Usage(9, 3)),
        ({"usage": None, "response": {"usage": RESPONSES}}, Usage(9, 3)),
        ({"usage": None}, None),
        ({"response": "odd"}, None),
        ([CHAT], None),
        (None, None),
    ],
)
def test_events_carry_it_at_the_top_or_in_their_response(
    document: object, expected: Usage | None
) -> None:
    assert from_document(document) == expected


PADDING = {"data": [{"embedding": "x" * (2 * WHOLE_PARSE_BYTES)}]}


@pytest.mark.parametrize(
    "document",
    [
        {"choices": [], "usage": CHAT},
        {"usage": CHAT, "choices": []},
        {"usage": CHAT, "choices": [{"message": {"content": "y" * 50_000}}]},
        {"id": "resp", "usage": RESPONSES, "metadata": {str(n): "m" * 500 for n in range(16)}},
        {**PADDING, "usage": CHAT},
        {"usage": CHAT, **PADDING},
        {**PADDING, "usage": RESPONSES, "user": None, "metadata": {"k" * 64: "v" * 512}},
        # Content that speaks of usage is no usage
        {"usage": CHAT, "choices": [{"message": {"content": '"usage":{"prompt_tokens":777}'}}]},
        {"usage": CHAT, "note": "usage", "other": ["usage", {"prompt_tokens": 777}]},
        {"usage": CHAT, "system_fingerprint": '"usage"'},
    ],
)
@pytest.mark.parametrize("indent", [None, 2])
def test_it_is_found_wherever_it_stands(document: dict[str, Any], indent: int | None) -> None:
    assert from_body(json.dumps(document, indent=indent).encode()) == Usage(9, 3)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b'{"usage":null}',
        b'{"usage":{}}',
        b'{"choices":[{"message":{"content":"\\"usage\\":{\\"prompt_tokens\\":7}"}}]}',
        b"\x1f\x8b\x08\x00gzip",
        b'{"usage":' + b"[" * 100_000,
        b'{"usage":' + b'{"a":' * 3000,
        b'"usage":{"a":' + b"[" * 1500 + b"1",
        b'"usage":{"prompt_tokens":' + b"9" * 1900 + b"}",
        b'"usage"' * 20_000,
    ],
    ids=range(11),
)
def test_what_is_none_is_unknown_whatever_it_looks_like(body: bytes) -> None:
    assert from_body(body) is None
    assert from_ends(body, body) is None


def test_of_a_long_answer_only_the_ends_are_needed() -> None:
    text = json.dumps({**PADDING, "usage": CHAT}).encode()
    assert from_ends(text[:100], text[-USAGE_WINDOW_BYTES:]) == Usage(9, 3)
    text = json.dumps({"usage": CHAT, **PADDING}).encode()
    assert from_ends(text, text[-100:]) == Usage(9, 3)
    assert from_ends(b"", b"") is None


@settings(deadline=None)
@given(st.binary(max_size=200) | st.text('{}[]":,\\usage 0123_tokenprmi').map(str.encode))
def test_no_body_raises(body: bytes) -> None:
    from_body(body)
    from_ends(body, b'"usage":' + body)


JSON_VALUES = st.recursive(
    st.none() | st.integers() | st.text(max_size=8) | st.sampled_from(["usage", '"usage":{']),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=5).filter(lambda key: key != "usage"), inner, max_size=4)
    ),
    max_leaves=12,
)


@settings(deadline=None)
@given(JSON_VALUES, JSON_VALUES, st.integers(0, 1000), st.integers(0, 1000), st.booleans())
def test_whatever_surrounds_it_it_is_read_exactly(
    before: Any, after: Any, given_: int, made: int, ascii_: bool
) -> None:
    usage = {"prompt_tokens": given_, "completion_tokens": made}
    document = {"before": before, "usage": usage, "after": after}
    body = json.dumps(document, ensure_ascii=ascii_).encode("utf-8", "replace")
    assert from_body(body) == Usage(given_, made)
