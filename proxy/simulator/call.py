"""A call to a simulated resource and the answer that it will give, both free of any transport."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic_core import to_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from proxy.exchange.ports import Headers
    from proxy.simulator.run import Run

JSON = (b"content-type", b"application/json")
EVENT_STREAM = (b"content-type", b"text/event-stream; charset=utf-8")


@dataclass(frozen=True, slots=True)
class Call:
    """One request. `path` is percent-decoded, `query` has no `?`, header names are lower-case."""

    method: str
    path: str
    query: bytes
    headers: Headers
    body: bytes


class Event(NamedTuple):
    """One event of a stream before it has a time.

    `tokens`: generated for it. `steps`: how many tokens' time comes before it; fewer than
    `tokens` where several answers grow side by side.
    """

    body: bytes
    tokens: int = 0
    steps: int = 0


class Piece(NamedTuple):
    """A part of a body and when it comes, in seconds after the part before it.

    `body` None: the connection breaks instead.
    """

    after_s: float
    body: bytes | None
    tokens: int = 0


@dataclass(slots=True)
class Answer:
    """What a resource will answer, and when.

    `after_s`: from the call to the head of the answer; infinite for one that never comes.
    `body`: all at once with the head, or in pieces. `tokens`: generated for a body that comes all
    at once. `refused`: there is no answer, the connection is turned away. `run`: what has to be
    told when the answer was given or given up.
    """

    status: int
    headers: Headers
    body: bytes | Iterator[Piece] = b""
    after_s: float = 0.0
    tokens: int = 0
    refused: bool = False
    run: Run | None = None


def json_answer(value: Mapping[str, Any]) -> Answer:
    """HTTP 200 with a JSON body."""
    return Answer(200, [JSON], to_json(value))


def sse(value: Mapping[str, Any], name: str | None = None) -> bytes:
    """One server-sent event with a JSON document as its data."""
    head = b"event: " + name.encode() + b"\n" if name else b""
    return head + b"data: " + to_json(value) + b"\n\n"


class ApiError(Exception):
    """An error answer in OpenAI's shape; raised where it is found, answered by the resource."""

    def __init__(
        self, status: int, error: dict[str, Any], headers: Iterable[tuple[bytes, bytes]] = ()
    ) -> None:
        super().__init__(f"{status} {error.get('code')}")
        self.status = status
        self.error = error
        self.headers: Headers = list(headers)

    def answer(self) -> Answer:
        return Answer(self.status, [JSON, *self.headers], to_json({"error": self.error}))
