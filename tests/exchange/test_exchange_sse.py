"""The scanner of event streams: what passes, what is told, and what ends it."""

from __future__ import annotations

import json
import time
import tracemalloc
from typing import Any

import pytest
from cutting import bytewise
from sse_streams import (
    COMPLETED,
    DONE,
    ERROR,
    FAILED,
    FILTER_OUTAGE,
    FLAT_ERROR,
    ROLE,
    SPEAKS_OF_IT,
    STOP,
    TEXT,
    USAGE,
    Seen,
    event,
    output_events,
    scan,
)

from proxy.exchange import sse
from proxy.exchange.sse import EventScanner, event_error
from proxy.exchange.usage import Usage


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("ascii_", [True, False])
def test_a_chat_stream_passes_as_it_came_byte_by_byte_too(end: str, ascii_: bool) -> None:
    documents: list[Any] = [ROLE, TEXT, FILTER_OUTAGE, SPEAKS_OF_IT, STOP, USAGE, "[DONE]"]
    stream = b"".join(event(document, end=end, ascii_=ascii_) for document in documents)
    expected = Seen(stream, Usage(9, 4), None, True)
    assert scan([stream]) == expected
    assert scan(bytewise(stream)) == expected
    dropped = scan(bytewise(stream), drop_usage=True)
    assert dropped.usage == Usage(9, 4)
    assert dropped.output == stream.replace(event(USAGE, end=end, ascii_=ascii_), b"")


def test_a_piece_of_whole_events_is_handed_on_without_a_copy() -> None:
    piece = event(TEXT) * 3
    scanner = EventScanner()
    assert scanner.feed(piece) is piece


def test_events_of_a_response_are_numbered() -> None:
    stream = event({"type": "response.output_text.delta"}, "response.output_text.delta") * 3
    for pieces in ([stream], bytewise(stream)):
        scanner = EventScanner("response")
        for piece in pieces:
            scanner.feed(piece)
        assert scanner.sequence_number == 3


def test_usage_that_comes_with_output_or_is_wanted_is_not_dropped() -> None:
    together = {**STOP, "usage": USAGE["usage"]}
    seen = scan([event(together)], drop_usage=True)
    assert seen == Seen(event(together), Usage(9, 4), None, True)
    assert scan([event(USAGE)]).output == event(USAGE)


@pytest.mark.parametrize(
    ("stream", "options", "done"),
    [
        (event(STOP), {}, True),
        (event(ROLE) + event(TEXT), {}, False),
        (event(SPEAKS_OF_IT), {}, False),
        (event(TEXT) + DONE, {}, True),
        (event(TEXT) + b"data:[DONE]\n\n", {}, True),
        (event(TEXT) + b"data: [DONE]", {}, True),
        (event(USAGE), {}, True),
        (b'data: {"choices":[{"finish_reason":"stop"}]}\n\n', {}, True),
        # Every choice has to finish
        (event(STOP), {"choices": 2}, False),
        (event(STOP) * 2, {"choices": 2}, True),
        (b"data: [DONE]\n\n", {"choices": 2}, True),
        (event(COMPLETED), {"ending": "response"}, True),
        (event(FAILED), {"ending": "response"}, True),
        (event({"type": "response.incomplete"}), {"ending": "response"}, True),
        (
            event({"type": "response.image_generation_call.completed"}),
            {"ending": "response"},
            False,
        ),
        (event({"delta": '"type":"response.completed"'}), {"ending": "response"}, False),
        (event(STOP), {"ending": "response"}, False),
        (b"", {}, False),
        (b"", {"ending": "close"}, True),
        (event({"type": "transcript.text.delta"}), {"ending": "close"}, True),
    ],
)
def test_the_answers_own_end_is_recognized(
    stream: bytes, options: dict[str, Any], *, done: bool
) -> None:
    assert scan([stream], **options).done is done
    assert scan(bytewise(stream), **options).done is done


@pytest.mark.parametrize(
    ("raw", "error"),
    [
        (event(ERROR, "error"), ERROR["error"]),
        (event(ERROR), ERROR["error"]),
        (event(FLAT_ERROR, "error"), FLAT_ERROR),
        (event(FLAT_ERROR), FLAT_ERROR),
        (event(FAILED), {"code": "server_error"}),
        (event({"type": "response.failed", "response": {"error": None}}),
         {"code": "server_error", "message": "The response failed."}),
        (event({"error": "text"}), {"message": "text"}),
        (event({"error": {"message": "m"}, "choices": []}), {"message": "m"}),
        (event({"message": "m"}, "error"), {"message": "m"}),
        (event("no JSON", "error"), {"message": "no JSON"}),
        (b"event:error\r\ndata:x\r\n\r\n", {"message": "x"}),
        (event({"error": None}), None),
        (event({"error": {}}), None),
        (event(FILTER_OUTAGE), None),
        (event(SPEAKS_OF_IT), None),
        (event({"type": "response.created", "response": {"error": None}}), None),
        (event({"x": "error"}), None),
        (event({"x": 1}, "errors"), None),
        (b"event: error\n\n", None),
        (b"event: error\nevent: x\ndata: 1\n\n", None),
    ],
)  # fmt: skip
def test_errors_in_a_stream_are_seen_in_all_their_shapes(
    raw: bytes, error: dict[str, Any] | None
) -> None:
    assert scan([event(TEXT) + raw], ending="response").error == error
    assert scan(bytewise(raw)) == scan([raw])
    assert event_error(raw, sse.event_document(raw)) == error


def test_a_document_over_several_data_lines_is_read_as_one() -> None:
    lines = json.dumps(USAGE, indent=1).split("\n")
    stream = ("".join(f"data: {line}\n" for line in lines) + "\n").encode()
    assert scan([stream]) == Seen(stream, Usage(9, 4), None, True)
    assert scan([stream], drop_usage=True).output == b""


@pytest.mark.parametrize(
    ("stream", "output"),
    [
        (event(TEXT) + b"data: [DONE]", event(TEXT) + DONE),
        (event(TEXT) + event(STOP)[:-1], event(TEXT) + event(STOP)),
        (event(TEXT) + event(STOP)[:-2], event(TEXT) + event(STOP)),
        (event(TEXT) + event(STOP)[:-3], event(TEXT)),
        (event(TEXT) + b'data: {"content":"say [DONE]', event(TEXT)),
        (event(TEXT) + b": a comment\n", event(TEXT)),
        (event(TEXT) + b"event: error\n", event(TEXT)),
        (event(TEXT) + b"\n\n\n", event(TEXT) + b"\n\n\n"),
        (event(TEXT, end="\r"), event(TEXT, end="\r")),
        (event(TEXT, end="\r\n")[:-1], event(TEXT, end="\r\n")[:-1]),
    ],
)
def test_at_the_end_a_whole_event_is_completed_and_half_a_one_dropped(
    stream: bytes, output: bytes
) -> None:
    assert scan([stream]).output == output
    assert scan(bytewise(stream)).output == output


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("together", [True, False])
def test_events_with_output_are_counted(end: str, together: bool) -> None:
    """Not the finish reason, the usage, comments, the end mark, and an error."""
    chat = [event(TEXT, end=end), event(SPEAKS_OF_IT, end=end), f": c{end}{end}".encode()]
    chat += [event(TEXT, end=end).replace(b"data: ", b"data:"), event(TEXT, "x", end=end)]
    response = [
        event({"type": "response.output_item.added"}, "response.output_item.added", end),
        event({"type": "response.output_text.delta"}, "response.output_text.delta", end),
        event({"type": "response.refusal.delta"}, "response.refusal.delta", end),
        event({"type": "response.output_text.done"}, "response.output_text.done", end),
    ]
    for events, options, count in (
        (chat, {}, 4),
        ([*chat, event(STOP, end=end), event("[DONE]", end=end)], {}, 4),
        ([*chat, event(USAGE, end=end), event("[DONE]", end=end)], {"drop_usage": True}, 4),
        ([*chat, event(ERROR, end=end), *chat], {}, 4),
        ([*response, event(FAILED, end=end)], {"ending": "response"}, 2),
    ):
        pieces = [b"".join(events)] if together else events
        assert output_events(pieces, **options) == count
        assert output_events(bytewise(b"".join(events)), **options) == count


def test_what_was_start_up_is_not_counted() -> None:
    scanner = EventScanner()
    scanner.feed(event(ROLE) + b": c\n\n" + event(TEXT))
    scanner.discount(event(ROLE) + b": c\n\n")
    assert scanner.output_events == 1


@pytest.mark.parametrize(
    "raw",
    [
        b'data: {"choices":[{"delta":\n\n',
        b"data: no JSON\n\n",
        b"data: {\r\n\r\n",
        b"data: {\r\r",
        b"data: [DON\n\n",
        b"data: \xff\n\n",
        b'data: {"a":\ndata: \n\n',
        b"event: x\ndata: nothing\n\n",
        b": comment\ndata: " + b"[" * 100_000 + b"\n\n",
    ],
)
def test_nothing_is_passed_on_from_a_malformed_event_on(raw: bytes) -> None:
    stream = event(TEXT) + raw + event(STOP)
    expected = Seen(event(TEXT), None, None, False, "malformed event")
    assert scan([stream]) == expected
    assert scan(bytewise(stream)) == expected
    assert scan([stream], ending="close") == expected


@pytest.mark.parametrize(
    "raw",
    [
        b"data:\n\n",
        b"data\n\n",
        b"id: 1\nretry: 5\ndata: 7\n\n",
        b"nonsense\n\n",
        b"event: ping\n\n",
        b'data: ["\\ud83d"]\n\n',
        b'\n\ndata: {"a":1}\n\n',
    ],
)
def test_odd_is_not_malformed(raw: bytes) -> None:
    assert scan([raw]) == Seen(raw, None, None, False)
    assert scan(bytewise(raw)) == Seen(raw, None, None, False)


def test_an_event_has_a_greatest_length(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "MAX_EVENT_BYTES", 10_000)
    scanner = EventScanner()
    assert scanner.feed(event(TEXT)) == event(TEXT)
    tracemalloc.start()
    try:
        fed_bytes = 0
        while scanner.fault is None:
            assert scanner.feed(b"xy") == b""
            fed_bytes += 2
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert sse.MAX_EVENT_BYTES < fed_bytes <= sse.MAX_EVENT_BYTES + 2
    assert peak_bytes < 5 * sse.MAX_EVENT_BYTES
    assert scanner.fault == "event too long"
    assert scanner.feed(b"\n\n" + event(TEXT)) + scanner.finish() == b""


@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n"])
def test_a_large_event_in_small_pieces_costs_no_more_than_its_bytes(end: bytes) -> None:
    piece = b": " + b"x" * 252 + end[: len(end) // 2]
    scanner = EventScanner()
    started = time.process_time()
    pieces = 16_000
    for _ in range(pieces):
        assert scanner.feed(piece) == b""
    assert scanner.feed(end[len(end) // 2 :]) == piece * pieces + end[len(end) // 2 :]
    # Joining what is held to each piece would copy 32 GB here.
    assert time.process_time() - started < 5
