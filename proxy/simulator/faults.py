"""Faults that can be switched on: which call meets one, and what it does to the answer."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, TypeAlias

from pydantic import ConfigDict, Field, TypeAdapter

from proxy.simulator import catalogue
from proxy.simulator.call import Answer, Piece
from proxy.simulator.refusals import FailureShape, failure_events

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator

FaultKind: TypeAlias = Literal[
    "refuse",
    "hang",
    "status",
    "unauthorized",
    "model_missing",
    "hang_in_body",
    "cut",
    "malformed",
    "error_in_stream",
    "trickle",
]
"""Refuse the connection; never answer; answer with `status`; 401; 404 for the deployment; stop in
the middle of the body; cut the connection there; send a line there that is no JSON; report an
error there after HTTP 200; send the body a few bytes at a time."""

_BEFORE = frozenset({"refuse", "hang", "status", "unauthorized", "model_missing"})
_MOST_FAULTS = 1000


@dataclass(frozen=True, kw_only=True, slots=True)
class Fault:
    """One fault and when it strikes.

    `deployment`: None for all. `probability`: of striking a call that it could. `calls`: after so
    many it is over, None for never. `from_s`, `until_s`: seconds since the resource began.
    `after_events`: whole events of a stream that still go out (of a plain body: half of it).
    `shape`: of an error in a Responses stream: an error event, `response.failed`, or one after
    the other. `piece_bytes`, `every_s`: of a trickle.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", strict=True)

    kind: FaultKind
    deployment: str | None = None
    probability: Annotated[float, Field(ge=0, le=1)] = 1.0
    calls: Annotated[int, Field(ge=1)] | None = None
    from_s: Annotated[float, Field(ge=0)] = 0.0
    until_s: float = math.inf
    status: Annotated[int, Field(ge=400, le=599)] = 500
    after_events: Annotated[int, Field(ge=0)] = 2
    error_type: str = "server_error"
    error_code: str = "server_error"
    shape: FailureShape = "error"
    piece_bytes: Annotated[int, Field(ge=1)] = 16
    every_s: Annotated[float, Field(ge=0)] = 1.0

    def shown(self) -> dict[str, object]:
        """As JSON has it; a fault without an end has `until_s` null."""
        fields: dict[str, object] = _FAULT.dump_python(self, mode="json")
        return fields


_FAULT = TypeAdapter(Fault)


def parse_fault(document: bytes) -> Fault:
    """A fault from JSON. Errors: `pydantic.ValidationError` that names the field."""
    return _FAULT.validate_json(document)


class Faults:
    """The faults of one resource that are switched on now, oldest first."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._next_id = 1
        self._active: dict[int, tuple[Fault, int | None]] = {}

    def inject(self, fault: Fault) -> int:
        """Switches a fault on; its number is for `clear`. Errors: ValueError when too many are."""
        if len(self._active) >= _MOST_FAULTS:
            raise ValueError(f"at most {_MOST_FAULTS} faults at a time")
        number = self._next_id
        self._next_id += 1
        self._active[number] = (fault, fault.calls)
        return number

    def clear(self, number: int | None = None) -> None:
        """Switches one fault off, or all of them; one that is off already is no error."""
        if number is None:
            self._active.clear()
        else:
            self._active.pop(number, None)

    def active(self) -> dict[int, tuple[Fault, int | None]]:
        """By number: the fault and for how many more calls, None for no end."""
        return dict(self._active)

    def strike(self, deployment: str | None, elapsed_s: float) -> Fault | None:
        """The fault that a call to `deployment` meets, counted as met. Never blocks."""
        for number, (fault, left) in self._active.items():
            if fault.deployment is not None and fault.deployment != deployment:
                continue
            if not fault.from_s <= elapsed_s < fault.until_s:
                continue
            if fault.probability < 1 and self._rng.random() >= fault.probability:
                continue
            if left == 1:
                del self._active[number]
            elif left is not None:
                self._active[number] = (fault, left - 1)
            return fault
        return None


def instead(fault: Fault) -> Answer | None:
    """What is answered instead of doing the work; None if the fault lies in the body.

    Errors: `ApiError` where an error answer is what the fault is.
    """
    match fault.kind:
        case "refuse":
            return Answer(0, [], refused=True)
        case "hang":
            return Answer(0, [], after_s=math.inf)
        case "status":
            raise catalogue.service_failure(fault.status)
        case "unauthorized":
            raise catalogue.bad_key()
        case "model_missing":
            raise catalogue.deployment_not_found()
        case _:
            return None


def distort(answer: Answer, fault: Fault) -> Answer:
    """The answer as the fault leaves it. An error answer stays as it is."""
    if fault.kind in _BEFORE or answer.status != 200:
        return answer
    if fault.kind == "error_in_stream" and answer.run is not None:
        answer.run.failed = True
    if isinstance(answer.body, bytes):
        return _distort_whole(answer, answer.body, fault)
    if fault.kind == "trickle":
        answer.body = _trickle(answer.body, fault)
    else:
        answer.body = _broken_off(answer.body, fault, fault.after_events)
    return answer


def _distort_whole(answer: Answer, body: bytes, fault: Fault) -> Answer:
    if fault.kind == "error_in_stream":
        if answer.run is not None:
            answer.run.ended(answer.run.now, 0)
        raise catalogue.service_failure(fault.status)
    half = len(body) // 2
    if fault.kind == "malformed":
        answer.body = body[:half]
        return answer
    answer.headers.append((b"content-length", b"%d" % len(body)))
    pieces = iter((Piece(0.0, body[:half]), Piece(0.0, body[half:])))
    if fault.kind == "trickle":
        answer.body = _trickle(pieces, fault)
    else:
        answer.body = _broken_off(pieces, fault, 1)
    return answer


def _broken_off(pieces: Iterator[Piece], fault: Fault, keep: int) -> Iterator[Piece]:
    yield from islice(pieces, keep)
    match fault.kind:
        case "hang_in_body":
            yield Piece(math.inf, None)
        case "cut":
            yield Piece(0.0, None)
        case "malformed":
            yield Piece(0.0, b'data: {"choices":[{"delta":\n\n')
            yield from pieces
        case "error_in_stream":
            message = "The server had an error while processing your request. Sorry about that!"
            events = failure_events(fault.shape, fault.error_type, fault.error_code, message, keep)
            yield Piece(0.0, events)


def _trickle(pieces: Iterator[Piece], fault: Fault) -> Iterator[Piece]:
    for piece in pieces:
        assert piece.body is not None, "one fault at a time"
        tokens, after_s = piece.tokens, piece.after_s
        for first in range(0, len(piece.body), fault.piece_bytes):
            part = piece.body[first : first + fault.piece_bytes]
            yield Piece(after_s + fault.every_s, part, tokens)
            tokens, after_s = 0, 0.0
