"""The scanner of event streams, against a plain reading of the same bytes."""

from __future__ import annotations

import json
from typing import Any

from cutting import bytewise, cut
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sse_streams import (
    COMPLETED,
    ERROR,
    FAILED,
    FILTER_OUTAGE,
    FLAT_ERROR,
    ROLE,
    SPEAKS_OF_IT,
    STOP,
    TEXT,
    USAGE,
    dispatched,
    output_events,
    scan,
)

from proxy.exchange.sse import split_events
from proxy.exchange.usage import Usage

LINE_ENDS = st.sampled_from(["\n", "\r\n", "\r"])
DOCUMENTS = st.sampled_from(
    [ROLE, TEXT, STOP, USAGE, FILTER_OUTAGE, SPEAKS_OF_IT, COMPLETED, FAILED, ERROR, FLAT_ERROR]
).map(lambda document: json.dumps(document, ensure_ascii=False))
FIELDS = (
    DOCUMENTS.map(lambda text: f"data: {text}")
    | DOCUMENTS.map(lambda text: f"data:{text[:7]}\x00data: {text[7:]}")
    | st.sampled_from(
        ["", "", ": comment", ":", "event: error", "event: x", "id: 1", "data", "data: [DONE]",
         "retry: 10", "data: {", "nothing"]
    )
)  # fmt: skip


@st.composite
def streams(draw: st.DrawFn) -> bytes:
    """Mostly well-formed streams with all line ends mixed, cut off anywhere."""
    text = ""
    for field in draw(st.lists(FIELDS, max_size=12)):
        for line in field.split("\x00"):
            text += line + draw(LINE_ENDS)
        if draw(st.booleans()):
            text += draw(LINE_ENDS)
    data = text.encode()
    return data[: draw(st.integers(0, len(data)))] if draw(st.booleans()) else data


OPTIONS = st.fixed_dictionaries(
    {
        "ending": st.sampled_from(["choices", "response", "close"]),
        "choices": st.integers(1, 3),
        "drop_usage": st.booleans(),
    }
)
DENSE = st.lists(
    st.sampled_from([b"\r", b"\n", b"\r\n", b"data: ", b'{"usage":{}}', b'"error"', b"x"]),
    max_size=20,
).map(b"".join)


@settings(deadline=None)
@given(streams() | st.binary(max_size=60) | DENSE, st.lists(st.integers(0), max_size=20), OPTIONS)
@example(b"x\r\n\r\n", [4], {})
@example(b"\r\r\r", [1, 2], {})
@example(b"data: [DONE]\n\n\n", [15], {})
def test_the_pieces_make_no_difference(
    data: bytes, places: list[int], options: dict[str, Any]
) -> None:
    whole = scan([data], **options)
    assert scan(cut(data, places), **options) == whole
    assert scan(bytewise(data), **options) == whole
    counted = output_events([data], **options)
    assert output_events(cut(data, places), **options) == counted
    assert output_events(bytewise(data), **options) == counted


@settings(deadline=None)
@given(streams(), OPTIONS)
@example(b"event: error\ndata\n\ndata: {}\n\n", {"drop_usage": False})
@example(b"event: error\ndata:\n\ndata: {\n\n", {"drop_usage": False})
@example(b"event: error\n\ndata: {}\n\n", {"drop_usage": False})
def test_a_client_sees_every_event_of_the_stream_up_to_a_malformed_one(
    data: bytes, options: dict[str, Any]
) -> None:
    seen = scan([data], **options)
    # What the stream ends in is an event if it lacks only its blank line.
    sent, completed = (legible(each, options) for each in (data, data + b"\n\n"))
    assert dispatched(seen.output) in (sent[0], completed[0])
    assert sent[1] <= (seen.fault is not None) <= completed[1]


def legible(data: bytes, options: dict[str, Any]) -> tuple[list[tuple[str, str]], bool]:
    """What of a stream is to be passed on, and whether that is not all of it."""
    kept = []
    for name, text in dispatched(data):
        try:
            stripped = text.strip()
            document = json.loads(text) if stripped and not stripped.startswith("[DONE]") else None
        except ValueError:
            if name != "error":
                return kept, True
            document = None
        if not (options["drop_usage"] and document == USAGE and name != "error"):
            kept.append((name, text))
        kinds = ("error", "response.failed")
        if name == "error" or (isinstance(document, dict) and document.get("type") in kinds):
            return kept, False
    return kept, False


@settings(deadline=None)
@given(streams(), OPTIONS)
def test_what_is_told_is_what_the_events_tell(data: bytes, options: dict[str, Any]) -> None:
    seen = scan([data], **options)
    documents = []
    for name, text in dispatched(seen.output):
        try:
            documents.append((name, json.loads(text)))
        except ValueError:
            documents.append((name, text))
    usages = [
        Usage(9, 4)
        for _, document in documents
        if isinstance(document, dict)
        and (document.get("usage") or document.get("type") == "response.completed")
    ]
    if usages:
        assert seen.usage == Usage(9, 4)
    if seen.error is None:
        assert not any(name == "error" for name, _ in documents)
        assert not any(
            isinstance(document, dict) and document.get("type") in ("error", "response.failed")
            for _, document in documents
        )


@settings(deadline=None)
@given(streams())
def test_events_are_split_without_loss(data: bytes) -> None:
    assert b"".join(split_events(data)) == data
