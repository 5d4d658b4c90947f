"""Short ways to call a simulated resource and to read what it answers, without any clock."""

from __future__ import annotations

import json
from typing import Any

from proxy.simulator.call import Answer, Call
from proxy.simulator.deployment import INSTANT, Deployment
from proxy.simulator.limiter import Limits
from proxy.simulator.resource import DEFAULT_KEY, Resource

VERSION = b"api-version=2024-10-21"
CHAT = "/openai/deployments/gpt-4o/chat/completions"
PLENTY = Limits(tpm=10_000_000, rpm=0)
HELLO = {"messages": [{"role": "user", "content": "hello"}]}


def deployment(name: str = "gpt-4o", **changes: Any) -> Deployment:
    """One without noticeable limits and latency unless `changes` say so."""
    return Deployment(
        **{"name": name, "model": name, "limits": PLENTY, "latency": INSTANT, **changes}
    )


def resource(*deployments: Deployment, name: str = "sim", **changes: Any) -> Resource:
    return Resource(name, deployments or (deployment(),), **changes)


def post(
    to: Resource,
    path: str,
    body: Any,
    *,
    query: bytes = VERSION,
    now: float = 0.0,
    method: str = "POST",
    headers: tuple[tuple[bytes, bytes], ...] = ((b"api-key", DEFAULT_KEY.encode()),),
    content_type: bytes = b"application/json",
) -> Answer:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    every = [*headers, (b"content-type", content_type)]
    return to.answer(Call(method, path, query, every, content), now)


def chat(to: Resource, *, now: float = 0.0, path: str = CHAT, **body: Any) -> Answer:
    return post(to, path, {**HELLO, **body}, now=now)


def get(to: Resource, path: str, *, query: bytes = VERSION, now: float = 0.0) -> Answer:
    return post(to, path, b"", query=query, now=now, method="GET")


def v1(to: Resource, path: str, body: Any = b"", *, method: str = "POST", now: float = 0) -> Answer:
    return post(to, f"/openai/v1/{path}", body, query=b"", method=method, now=now)


def document(answer: Answer) -> Any:
    assert isinstance(answer.body, bytes)
    return json.loads(answer.body)


def error(answer: Answer) -> Any:
    return document(answer)["error"]


def headers_of(answer: Answer) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in answer.headers}


def whole_body(answer: Answer) -> bytes:
    """All of a body, whatever its timing."""
    if isinstance(answer.body, bytes):
        return answer.body
    return b"".join(piece.body or b"" for piece in answer.body)


def sse_events(stream: bytes) -> list[tuple[str | None, Any]]:
    """(event name, parsed data) of each event; data that is no JSON stays text."""
    events = []
    for block in stream.decode().split("\n\n")[:-1]:
        lines = dict(line.split(": ", 1) for line in block.split("\n"))
        data = lines["data"]
        parsed = data if data == "[DONE]" else json.loads(data)
        events.append((lines.get("event"), parsed))
    return events


def finish(answer: Answer, now: float, tokens: int) -> None:
    """Tells the limiter that an answer has ended, as `Playback` does."""
    assert answer.run is not None
    answer.run.ended(now, tokens)
