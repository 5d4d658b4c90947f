"""The bytes that travel: requests, answers and events, in the shapes of an OpenAI chat call.

What a stream looks like is asked for in the request's `user` field, which every peer passes on.
"""

from __future__ import annotations

import json
import random
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

MODEL = "gpt-4.1"
CROWDED_MODEL = "crowded"
"""Served by one small instance of the service, for requests that have to wait."""
COUNTED_MODEL = "counted"
"""Served by one instance whose input limit a prompt's length alone says nothing of."""
CHAT_PATH = "/v1/chat/completions"

_PROSE = (
    "the rate of requests that a resource admits depends on its quota and on what each of them "
    "reserves when it comes in so a balancer which knows both can keep every one of them busy "
    "without running into a refusal and without leaving capacity unused while others wait"
)
_WORDS = _PROSE.split()

_STREAM_MARK = re.compile(rb'"user":\s*"stream-(\d+)-([0-9.]+)"')


@dataclass(frozen=True, slots=True)
class StreamShape:
    """`events` events, `pause_s` from the start of one to the start of the next; 0: no pause."""

    events: int
    pause_s: float

    def mark(self) -> str:
        return f"stream-{self.events}-{self.pause_s:g}"


def stream_shape(body: bytes) -> StreamShape | None:
    """What the request asks for; None for a plain answer."""
    match = _STREAM_MARK.search(body)
    return StreamShape(int(match[1]), float(match[2])) if match else None


def chat_body(size_bytes: int, stream: StreamShape | None = None, *, model: str = MODEL) -> bytes:
    """A chat request of exactly `size_bytes`, with prose of a fixed seed as its prompt."""
    fields: dict[str, object] = {"model": model, "max_tokens": 64, "temperature": 0.2}
    if stream is not None:
        fields |= {"stream": True, "user": stream.mark()}
    system = {"role": "system", "content": "Answer in one short paragraph."}

    def render(prompt: str) -> bytes:
        messages = [system, {"role": "user", "content": prompt}]
        return json.dumps(fields | {"messages": messages}, separators=(",", ":")).encode()

    missing = size_bytes - len(render(""))
    words = random.Random(1)
    prose = " ".join(words.choices(_WORDS, k=missing // 2 + 1))
    return render(prose[:missing])


def chat_request(body: bytes, authorization: str, more: Mapping[str, str] | None = None) -> bytes:
    """The whole HTTP request around `body`; `more`: further headers."""
    others = "".join(f"{name}: {value}\r\n" for name, value in (more or {}).items())
    head = (
        f"POST {CHAT_PATH} HTTP/1.1\r\n"
        "host: 127.0.0.1\r\n"
        f"authorization: {authorization}\r\n"
        "content-type: application/json\r\n"
        "accept: application/json\r\n"
        "user-agent: OpenAI/Python 2.0.0\r\n"
        f"{others}content-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def plain_request(method: str, path: str, authorization: str) -> bytes:
    """The whole HTTP request, without a body."""
    head = f"{method} {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: {authorization}\r\n\r\n"
    return head.encode()


# Limits so high that no peer ever holds a request back for them.
_HEADERS = (
    "x-ratelimit-limit-requests: 100000000\r\n"
    "x-ratelimit-remaining-requests: 99999999\r\n"
    "x-ratelimit-limit-tokens: 100000000000\r\n"
    "x-ratelimit-remaining-tokens: 99999999999\r\n"
    "x-request-id: 4f9a3c52-6a1e-4a53-9d1b-7d3f7f1f2b10\r\n"
    "x-ms-region: Sweden Central\r\n"
)
_USAGE = {"prompt_tokens": 71, "completion_tokens": 48, "total_tokens": 119}


def _completion() -> bytes:
    text = " ".join(random.Random(2).choices(_WORDS, k=120))
    answer = {
        "id": "chatcmpl-B1x0nT2mEo7f0QvFqkqv3cXw1a9Lh",
        "object": "chat.completion",
        "created": 1760000000,
        "model": "gpt-4.1-2025-04-14",
        "choices": [
            {
                "index": 0,
                "finish_reason": "stop",
                "logprobs": None,
                "message": {"role": "assistant", "content": text, "refusal": None},
            }
        ],
        "usage": _USAGE,
        "system_fingerprint": "fp_07e970ab25",
    }
    return json.dumps(answer).encode()


def plain_answer(*, limits: bool = True) -> bytes:
    """A whole HTTP answer with about 1 KB of JSON. `limits`: with rate-limit headers."""
    body = _completion()
    head = (
        "HTTP/1.1 200 OK\r\n"
        "content-type: application/json\r\n"
        f"{_HEADERS if limits else ''}content-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def stream_head() -> bytes:
    return (
        "HTTP/1.1 200 OK\r\n"
        "content-type: text/event-stream; charset=utf-8\r\n"
        f"{_HEADERS}transfer-encoding: chunked\r\n\r\n"
    ).encode()


def _chunk(payload: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(payload), payload)


def _event(
    delta: dict[str, str], finish: str | None = None, usage: dict[str, int] | None = None
) -> bytes:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
    event: dict[str, object] = {
        "id": "chatcmpl-B1x0nT2mEo7f0QvFqkqv3cXw1a9Lh",
        "object": "chat.completion.chunk",
        "created": 1760000000,
        "model": "gpt-4.1-2025-04-14",
        "system_fingerprint": "fp_07e970ab25",
        "choices": [] if usage else [choice],
        "usage": usage,
    }
    return _chunk(b"data: %s\n\n" % json.dumps(event, separators=(",", ":")).encode())


def stream_events(count: int) -> list[bytes]:
    """`count` events, each in a transfer chunk of its own: role, content ..., finish."""
    words = random.Random(3)
    content = [_event({"content": f" {words.choice(_WORDS)}"}) for _ in range(count - 2)]
    return [_event({"role": "assistant", "content": ""}), *content, _event({}, finish="stop")]


USAGE_EVENT = _event({}, usage=_USAGE)
STREAM_END = _chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"
