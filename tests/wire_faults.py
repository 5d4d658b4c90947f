"""What an upstream can do to a connection, and what a client sees then.

Each fault is a row: what the upstream does when it is asked for a plain answer and for a stream,
and what the client sees of that, on one instance and with a healthy second one.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from faulty_upstream import (
    CHAT,
    Script,
    Wire,
    answer,
    chunk,
    closing_on_second,
    event,
    head_of_stream,
    serving,
    stream,
    then_close,
    then_hang,
    then_reset,
    trickling,
)

ANSWER, STREAM = "the answer", "the stream"
UNREACHABLE, TIMEOUT = "502 `upstream_unreachable`", "504 `upstream_timeout`"
INTERRUPTED = "2 events, then `upstream_interrupted`"
MALFORMED = "2 events, then `upstream_malformed_event`"
ENDLESS = "2 events, then `upstream_event_too_long`"
NOTHING = "–"

FAILED_OVER = (UNREACHABLE, ANSWER, UNREACHABLE, STREAM)
TIMED_OUT = (TIMEOUT, ANSWER, TIMEOUT, STREAM)
HARMLESS = (ANSWER, ANSWER, STREAM, STREAM)
CUT_STREAM = (NOTHING, NOTHING, INTERRUPTED, INTERRUPTED)

LARGE_BYTES = 100 * 1024 * 1024


@dataclass(frozen=True)
class Fault:
    """`plain`, `stream`: a script for each connection, the last one for all that follow; empty if
    nobody listens, None if there is no such fault. `served`: requests that go well before.
    `timeout_s`: the faulty instance's `timeout_seconds`. `https`: the service expects TLS."""

    name: str
    plain: tuple[Script, ...] | None
    stream: tuple[Script, ...] | None
    expected: tuple[str, str, str, str]
    timeout_s: float = 10.0
    served: int = 0
    https: bool = False


def without_chunks(body: bytes, head: str = "", version: str = "HTTP/1.1") -> bytes:
    """An answer in the form of an event stream whose length is told by `head` or not at all."""
    return f"{version} 200 OK\r\ncontent-type: text/event-stream\r\n{head}\r\n".encode() + body


def in_chunks(*pieces: bytes) -> bytes:
    head = (
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
    )
    return head + b"".join(map(chunk, pieces))


def large(head: bytes) -> Script:
    """`head` and LARGE_BYTES, as fast as they are taken."""

    async def script(wire: Wire) -> None:
        await wire.read_request()
        await wire.send(head)
        for _ in range(LARGE_BYTES // len(MIB)):
            await wire.send(MIB)
        await wire.wait_closed()

    return script


def speaking(first: bytes) -> Script:
    """`first` without having been asked, and silence."""

    async def script(wire: Wire) -> None:
        await wire.send(first)
        await wire.wait_closed()

    return script


def with_length(status: str, length: int) -> bytes:
    return (
        f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n"
    ).encode()


MIB = b"x" * (1 << 20)
SSH = b"SSH-2.0-OpenSSH_9.6\r\n"
ROLE = b'data: {"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]}\n\n'
START = head_of_stream() + chunk(ROLE)
TWO = START + chunk(event("0")) + chunk(event("1"))
EVENTS = event("0") + event("1")
DONE = b"data: [DONE]\n\n"
BUSY = (
    b"event: error\ndata: "
    + json.dumps(
        {"type": "error", "error": {"type": "too_many_requests", "code": "no_capacity"}}
    ).encode()
    + b"\n\n"
)
WEB_PAGE = answer(b"<html>Please sign in</html>").replace(b"application/json", b"text/html")
BAD_EVENT = chunk(b"data: {]\n\n")
LONG = f"content-length: {len(EVENTS + DONE) + 10}\r\n"
SHORT = f"content-length: {len(EVENTS) + 20}\r\n"
LARGE_HEAD = answer(headers=f"x-large: {'x' * 1_000_000}\r\n")
LARGE_EVENT = head_of_stream() + chunk(event("0")) + chunk(event("1")) + b"%x\r\ndata: " % (1 << 40)
HTTP_1_0 = answer().replace(b"HTTP/1.1", b"HTTP/1.0", 1)
NO_LENGTH = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


FAULTS = (
    Fault("connection refused", (), (), FAILED_OVER),
    Fault("no TLS at an https address", (speaking(SSH),), (speaking(SSH),), FAILED_OVER,
          https=True),
    Fault("silence instead of a TLS handshake", (speaking(b""),), (speaking(b""),), TIMED_OUT,
          timeout_s=0.3, https=True),
    Fault("reset before the head", (then_reset(),), (then_reset(),), FAILED_OVER),
    Fault("closed before the head", (then_close(b""),), (then_close(b""),), FAILED_OVER),
    Fault("reset in the head", (then_reset(answer()[:20]),), (then_reset(START[:20]),),
          FAILED_OVER),
    Fault("reset in the body, of a stream before its first output",
          (then_reset(answer()[:-10]),), (then_reset(START),), FAILED_OVER),
    Fault("reset after two events", None, (then_reset(TWO),), CUT_STREAM),
    Fault("closed in the body, of a stream before its first output",
          (then_close(answer()[:-10]),), (then_close(START),), FAILED_OVER),
    Fault("closed after two events", None, (then_close(TWO),), CUT_STREAM),
    Fault("no answer at all", (then_hang(),), (then_hang(),), TIMED_OUT, timeout_s=0.3),
    Fault("silence in the body, of a stream before its first output",
          (then_hang(answer()[:-10]),), (then_hang(START),), TIMED_OUT, timeout_s=0.3),
    Fault("silence after two events", None, (then_hang(TWO),), CUT_STREAM, timeout_s=0.3),
    Fault("one byte per packet", (trickling(answer()),), (trickling(stream()),), HARMLESS),
    Fault("`content-length` larger than the body",
          (then_close(with_length("200 OK", len(CHAT) + 10) + CHAT),),
          (then_close(without_chunks(EVENTS + DONE, LONG)),),
          (UNREACHABLE, ANSWER, STREAM, STREAM)),
    Fault("`content-length` smaller than the body",
          (serving(with_length("200 OK", len(CHAT) - 10) + CHAT),),
          (serving(without_chunks(EVENTS + event("2") + DONE, SHORT)),),
          (UNREACHABLE, ANSWER, INTERRUPTED, INTERRUPTED)),
    Fault("closed in a chunk, of a stream after two events",
          (then_close(in_chunks(CHAT)[:-9]),), (then_close(TWO + chunk(event("2"))[:-9]),),
          (UNREACHABLE, ANSWER, INTERRUPTED, INTERRUPTED)),
    Fault("malformed chunk, of a stream after two events",
          (then_close(in_chunks(CHAT[:20]) + b"zz\r\n"),), (then_close(TWO + b"zz\r\n"),),
          (UNREACHABLE, ANSWER, INTERRUPTED, INTERRUPTED)),
    Fault("header of 1 MB", (then_close(LARGE_HEAD),), (then_close(LARGE_HEAD),), FAILED_OVER),
    Fault("body of 100 MB, of a stream one event after two others",
          (large(with_length("200 OK", LARGE_BYTES)),),
          (large(LARGE_EVENT),),
          (ANSWER, ANSWER, ENDLESS, ENDLESS)),
    Fault("error answer of 100 MB",
          (large(with_length("500 Internal Server Error", LARGE_BYTES)),),
          (large(with_length("500 Internal Server Error", LARGE_BYTES)),),
          ("500 with the first MiB", ANSWER, "500 with the first MiB", STREAM)),
    Fault("answer or first event that is no JSON",
          (serving(answer(b'{"id": ')),), (serving(head_of_stream() + BAD_EVENT),),
          FAILED_OVER),
    Fault("web page instead of an answer", (serving(WEB_PAGE),), (serving(WEB_PAGE),), FAILED_OVER),
    Fault("event that is no JSON after two others", None, (then_hang(TWO + BAD_EVENT),),
          (NOTHING, NOTHING, MALFORMED, MALFORMED)),
    Fault("error event before the first output", None, (then_hang(START + chunk(BUSY)),),
          (NOTHING, NOTHING, "429 `rate_limit_exceeded`", STREAM)),
    Fault("error event after two events", None, (then_hang(TWO + chunk(BUSY)),),
          (NOTHING, NOTHING, "2 events, then `no_capacity`", "2 events, then `no_capacity`")),
    Fault("kept connection that was closed meanwhile",
          (closing_on_second(answer()), serving()),
          (closing_on_second(stream()), serving(stream())), HARMLESS, served=1),
    Fault("100 Continue", (serving(CONTINUE + answer()),), (serving(CONTINUE + stream()),),
          HARMLESS),
    Fault("HTTP/1.0", (then_close(HTTP_1_0),),
          (then_close(without_chunks(EVENTS + DONE, version="HTTP/1.0")),), HARMLESS),
    Fault("no length, ended by closing", (then_close(NO_LENGTH + CHAT),),
          (then_close(without_chunks(EVENTS + DONE)),), HARMLESS),
    Fault("no length, closed too early", (then_close(NO_LENGTH + CHAT[:-10]),),
          (then_close(without_chunks(EVENTS)),),
          (UNREACHABLE, ANSWER, INTERRUPTED, INTERRUPTED)),
    Fault("no HTTP", (then_close(SSH),), (then_close(SSH),), FAILED_OVER),
)  # fmt: skip
