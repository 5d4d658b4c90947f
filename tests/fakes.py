"""A request, a writer and an upstream without sockets, for tests of the exchange."""

from __future__ import annotations

import json
import math
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import trio

from proxy.errors import BodyTooLarge
from proxy.exchange.headers import is_event_stream
from proxy.exchange.ports import Headers, UpstreamFailure, UpstreamRequest
from proxy.exchange.terms import Terms

REFUSED = UpstreamFailure("connect", "refused", "connection refused")
RESET = UpstreamFailure("body", "reset", "connection reset", answered=True)


@dataclass
class FakeRequest:
    """A complete request whose body arrives in `pieces`."""

    path: str = "/v1/chat/completions"
    pieces: list[bytes] = field(default_factory=list)
    method: str = "POST"
    query: bytes = b""
    headers: Headers = field(default_factory=lambda: [(b"content-type", b"application/json")])
    limit: int = 32 * 1024 * 1024
    terms: Terms | None = None

    def __post_init__(self) -> None:
        self._left = list(self.pieces)
        self._read = 0

    async def read_chunk(self) -> bytes:
        await trio.lowlevel.checkpoint()
        piece = self._left.pop(0) if self._left else b""
        self._read += len(piece)
        if self._read > self.limit:
            raise BodyTooLarge(self.limit)
        return piece


def chat(model: str = "gpt-4", path: str = "/v1/chat/completions", **fields: Any) -> FakeRequest:
    body = {"model": model, "messages": [{"role": "user", "content": "hi"}], **fields}
    return FakeRequest(path, [json.dumps(body).encode()])


class FakeWriter:
    """Records what the client would get. `on_write` runs at each write."""

    def __init__(self, on_write: Callable[[bytes], Awaitable[None]] | None = None) -> None:
        self.started = False
        self.finished = False
        self.aborted = False
        self.status = 0
        self.headers: Headers = []
        self.writes: list[bytes] = []
        self._on_write = on_write

    async def respond(self, status: int, headers: Headers, body: bytes) -> None:
        await self.start(status, headers)
        await self.write(body)
        await self.finish()

    async def start(self, status: int, headers: Headers) -> None:
        assert not self.started, "one head per answer"
        self.started = True
        self.status, self.headers = status, headers
        await trio.lowlevel.checkpoint()

    async def write(self, data: bytes) -> None:
        assert self.started
        assert not self.finished
        assert not self.aborted
        self.writes.append(data)
        await trio.lowlevel.checkpoint()
        if self._on_write is not None:
            await self._on_write(data)

    async def finish(self) -> None:
        assert not self.finished
        self.finished = True

    def abort(self) -> None:
        self.aborted = True

    @property
    def body(self) -> bytes:
        return b"".join(self.writes)

    def header(self, name: bytes) -> bytes | None:
        return dict(self.headers).get(name)

    def error(self) -> dict[str, Any]:
        error: dict[str, Any] = json.loads(self.body)["error"]
        return error


@dataclass
class FakeAnswer:
    """What the fake upstream says: pieces of a body, each after a delay in seconds, then an end.

    `failure`: raised instead of the end of the body.
    """

    status: int = 200
    headers: Headers = field(default_factory=lambda: [(b"content-type", b"application/json")])
    pieces: Iterable[bytes | tuple[float, bytes]] = ()
    failure: UpstreamFailure | None = None
    closed: bool = False
    deadline: float = math.inf
    """Trio time; `FakeUpstream` sets it."""
    _due: float = math.inf

    async def read_chunk(self) -> bytes:
        if not hasattr(self, "_left"):
            self._left = list(self.pieces)
        await trio.lowlevel.checkpoint()
        if self._left:
            piece = self._left[0]
            if isinstance(piece, bytes):
                del self._left[0]
                return piece
            if math.isinf(self._due):  # a read that was cancelled is taken up again
                self._due = trio.current_time() + piece[0]
            with trio.move_on_at(self.deadline):
                await trio.sleep_until(self._due)
                self._due = math.inf
                del self._left[0]
                return piece[1]
            raise UpstreamFailure("body", "timeout", "not complete in time", answered=True)
        if self.failure is not None:
            raise self.failure
        return b""

    async def aclose(self) -> None:
        self.closed = True


def completion(input_tokens: int = 9, output_tokens: int = 3) -> FakeAnswer:
    usage = {
        "prompt_tokens": input_tokens,
        "completion_tokens": output_tokens,
        "total_tokens": input_tokens + output_tokens,
    }
    choice = {"index": 0, "message": {"role": "assistant", "content": "hello"}}
    body = {"object": "chat.completion", "choices": [choice], "usage": usage}
    return FakeAnswer(pieces=[json.dumps(body).encode()])


def error_answer(
    status: int, code: str | None = None, message: str = "no", headers: Headers | None = None
) -> FakeAnswer:
    body = json.dumps({"error": {"code": code, "message": message}}).encode()
    return FakeAnswer(
        status, [(b"content-type", b"application/json"), *(headers or [])], pieces=[body]
    )


def event_stream(*events: Any, failure: UpstreamFailure | None = None) -> FakeAnswer:
    """Events as dicts (sent as data), or bytes (sent as they are)."""
    pieces = [
        event if isinstance(event, bytes) else b"data: " + json.dumps(event).encode() + b"\n\n"
        for event in events
    ]
    return FakeAnswer(200, [(b"content-type", b"text/event-stream")], pieces, failure)


Answering = FakeAnswer | UpstreamFailure | Callable[[UpstreamRequest], Awaitable[FakeAnswer]]


class FakeUpstream:
    """Answers by instance name: the next of its list, the last one for ever. `answers`: those that
    were given, each a copy."""

    def __init__(self, **answers: Answering | list[Answering]) -> None:
        self._answers = {
            name: list(given) if isinstance(given, list) else [given]
            for name, given in answers.items()
        }
        self.requests: list[UpstreamRequest] = []
        self.answers: list[FakeAnswer] = []

    async def send(self, request: UpstreamRequest) -> FakeAnswer:
        self.requests.append(request)
        started = trio.current_time()
        await trio.lowlevel.checkpoint()
        left = self._answers[request.config.name]
        answer = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(answer, UpstreamFailure):
            raise answer
        if not isinstance(answer, FakeAnswer):
            answer = await answer(request)
        answer = replace(answer)  # several may be under way at the same time
        if request.whole_s is not None and not is_event_stream(answer.headers):
            answer.deadline = started + request.whole_s
        self.answers.append(answer)
        return answer

    async def forget(self, instance: str) -> None:
        pass
