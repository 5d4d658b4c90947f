"""What is start-up, what is output and what is an error, with Azure's own events."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.exchange.preamble import furthest, stage

FILTER = {
    "id": "",
    "object": "",
    "created": 0,
    "model": "",
    "choices": [],
    "prompt_filter_results": [{"prompt_index": 0, "content_filter_results": {}}],
    "usage": None,
}


def chat(delta: Any, finish_reason: str | None = None, **more: Any) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason, **more}
    return {"object": "chat.completion.chunk", "choices": [choice], "usage": None}


def event(document: Any, name: str = "") -> bytes:
    line = f"event: {name}\n" if name else ""
    return f"{line}data: {json.dumps(document)}\n\n".encode()


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        (FILTER, "preamble"),
        (chat({"role": "assistant", "content": ""}), "preamble"),
        (chat({"role": "assistant", "content": None, "refusal": None}), "preamble"),
        (chat({}), "preamble"),
        # The asynchronous filter's annotation has a choice without a delta.
        ({"choices": [{"index": 0, "content_filter_offsets": {"check_offset": 44}}]}, "preamble"),
        ({"choices": [{"index": 0, "text": "", "finish_reason": None}]}, "preamble"),
        ({"type": "response.created", "response": {"error": None}}, "preamble"),
        ({"type": "response.in_progress"}, "preamble"),
        ({"type": "response.queued"}, "preamble"),
        (chat({"role": "assistant", "content": "h"}), "output"),
        (chat({"content": " "}), "output"),
        (chat({"reasoning_content": "hm"}), "output"),
        (chat({"tool_calls": [{"index": 0, "function": {"name": "f"}}]}), "output"),
        (chat({"refusal": "no"}), "output"),
        (chat({}, "stop"), "output"),
        (chat({"content": ""}, "content_filter"), "output"),
        ({"choices": [{"index": 0, "text": "h"}]}, "output"),
        ({"choices": ["odd"]}, "output"),
        ({"choices": [], "usage": {"prompt_tokens": 1}}, "output"),
        ({"type": "response.output_item.added"}, "output"),
        ({"type": "response.output_text.delta", "delta": "h"}, "output"),
        ({"type": "response.completed"}, "output"),
        ({"type": "transcript.text.delta", "delta": "h"}, "output"),
        ({"anything": "else"}, "output"),
        (["no object"], "output"),
        ({"error": {"code": "x"}}, "error"),
        ({"error": "text"}, "error"),
        ({"error": {"code": "x"}, "choices": []}, "error"),
        ({"type": "error", "code": "rate_limit_exceeded"}, "error"),
        ({"type": "response.failed", "response": {"error": {"code": "server_error"}}}, "error"),
        ({"type": "response.failed"}, "error"),
    ],
)
def test_each_event_is_one_of_three(document: Any, expected: str) -> None:
    assert stage(event(document)) == expected


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b": comment\n\n", "preamble"),
        (b"\n", "preamble"),
        (b"event: ping\n\n", "preamble"),
        (b"data: [DONE]\n\n", "output"),
        (b"data: no JSON\r\n\r\n", "output"),
        (event({"message": "m"}, "error"), "error"),
        (b"event: error\ndata: text\n\n", "error"),
    ],
)
def test_what_is_no_document_is_output_if_it_has_data(raw: bytes, expected: str) -> None:
    assert stage(raw) == expected


def test_of_a_run_the_first_that_is_no_start_up_decides() -> None:
    start, output = event(FILTER), event(chat({"content": "h"}))
    error = event({"error": {"code": "x"}})
    silent = start + b": c\n\n" + start
    assert furthest(silent) == ("preamble", len(silent))
    assert furthest(start + output + error) == ("output", len(start))
    assert furthest(start + error + output) == ("error", len(start))
    assert furthest(b"") == ("preamble", 0)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["choices", "delta", "error", "type", "response", "usage", "text"]),
            inner,
        )
    ),
    max_leaves=10,
)


@settings(deadline=None)
@given(JSON)
def test_no_document_raises(document: Any) -> None:
    assert stage(event(document)) in ("preamble", "output", "error")
