"""Streams of events, and what a scanner makes of them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any, NamedTuple

from proxy.exchange.sse import EventScanner
from proxy.exchange.usage import Usage

ROLE = {"choices": [{"index": 0, "delta": {"role": "assistant"}, "finish_reason": None}]}
TEXT = {"choices": [{"index": 0, "delta": {"content": "hé\u2028 \U0001f600\n"}}], "usage": None}
STOP = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
USAGE = {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 4}}
FILTER_OUTAGE = {
    "choices": [{"content_filter_results": {"error": {"code": "content_filter_error"}}}]
}
SPEAKS_OF_IT = {"choices": [{"delta": {"content": '"usage":{"error":{} data: [DONE]\n\n'}}]}
COMPLETED = {
    "type": "response.completed",
    "response": {"usage": {"input_tokens": 9, "output_tokens": 4}, "error": None},
}
FAILED = {"type": "response.failed", "response": {"error": {"code": "server_error"}}}
ERROR = {"type": "error", "error": {"type": "too_many_requests", "code": "no_capacity"}}
FLAT_ERROR = {"type": "error", "code": "rate_limit_exceeded", "message": "m", "param": None}


def event(document: Any, name: str = "", end: str = "\n", ascii_: bool = False) -> bytes:
    data = document if isinstance(document, str) else json.dumps(document, ensure_ascii=ascii_)
    lines = [f"event: {name}"] if name else []
    return (end.join([*lines, f"data: {data}", "", ""])).encode()


DONE = event("[DONE]")


class Seen(NamedTuple):
    output: bytes
    usage: Usage | None
    error: dict[str, Any] | None
    done: bool
    fault: str | None = None


def scan(pieces: Iterable[bytes], **options: Any) -> Seen:
    scanner = EventScanner(**options)
    output = b"".join([*(scanner.feed(piece) for piece in pieces)])
    output += scanner.finish()
    return Seen(output, scanner.usage, scanner.error, scanner.done, scanner.fault)


def output_events(pieces: Iterable[bytes], **options: Any) -> int:
    scanner = EventScanner(**options)
    for piece in pieces:
        scanner.feed(piece)
    scanner.finish()
    return scanner.output_events


def dispatched(data: bytes) -> list[tuple[str, str]]:
    """(event, data) of each dispatch, by the letter of the standard."""
    found = []
    name, lines = "", []
    complete = re.split(rb"\r\n|\n|\r", data)[:-1]
    for line in complete:
        if not line:
            if lines:
                found.append((name, b"\n".join(lines).decode("utf-8", "replace")))
            name, lines = "", []
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            lines.append(value)
        elif field == b"event":
            name = value.decode("utf-8", "replace")
    return found
