"""The traffic spec: what is asked when, and how the resources count. A JSON file, or a trace.

Everything that is wrong with it is said in a line each: the field, its value, what would be right.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Final, Self, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from actors.models import ModelName  # noqa: TC001 - pydantic reads it
from actors.problems import problems
from proxy.planning.arrivals import drawn
from proxy.planning.lengths import KINDS, Length, NoLimit, OutputLimit
from proxy.planning.resources import ResourceSpecs
from proxy.planning.trace import TraceError, read_trace

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from proxy.planning.arrivals import Ask

MOST_BYTES: Final = 1024 * 1024
TRACE_SUFFIX: Final = ".jsonl"

_TAG: Final = re.compile(rf"\.(?:{'|'.join(KINDS)})(?=\.|\Z)")

Positive = Annotated[float, Field(gt=0, le=1e7, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, le=1e7, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Points: TypeAlias = tuple[tuple[NotNegative, NotNegative], ...]
"""(second, value), on a straight line in between."""


class TrafficError(Exception):
    """The spec or its trace can't be used. One line for each problem, naming the file."""


class _Fields(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Burst(_Fields):
    """The rate is `times` as high for the first `lasts_s` out of every `every_s`, from `from_s`."""

    every_s: Positive
    lasts_s: Positive
    times: NotNegative
    from_s: NotNegative = 0.0


class RequestKind(_Fields):
    """One of the kinds of requests in the traffic; `share` is relative to the others."""

    model: ModelName
    share: Positive = 1.0
    input_tokens: Length
    output_tokens: Length
    max_tokens: OutputLimit = NoLimit()
    stream_share: Share = 0.0


def _points(value: object) -> object:
    """A number stands for a rate that never changes."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return ((0.0, float(value)),)
    if isinstance(value, list):
        return tuple(tuple(point) if isinstance(point, list) else point for point in value)
    return value


class TrafficSpec(_Fields):
    """See docs/capacity.md. Kinds of requests and their rate, or the name of a trace."""

    duration_s: Annotated[float, Field(gt=0, le=604_800, allow_inf_nan=False)] | None = None
    """None: an hour, or as long as the trace."""
    requests_per_minute: Annotated[Points, BeforeValidator(_points)] = ()
    bursts: tuple[Burst, ...] = ()
    requests: tuple[RequestKind, ...] = ()
    trace: str | None = None
    returning_share: Share = 0.0
    """Of the clients that are refused: they come back once, at the time they were told."""
    resources: ResourceSpecs = ResourceSpecs()

    @model_validator(mode="after")
    def _complete(self) -> Self:
        times = [at_s for at_s, _ in self.requests_per_minute]
        if times != sorted(set(times)):
            raise ValueError("requests_per_minute needs points of ascending times; sort them")
        described = bool(self.requests_per_minute and self.requests)
        if self.trace is None and not described:
            raise ValueError("there is no traffic: give requests_per_minute and requests, or trace")
        if self.trace is not None and (self.requests_per_minute or self.requests or self.bursts):
            raise ValueError(
                "a trace says itself what comes when: remove it, or requests_per_minute, bursts "
                "and requests"
            )
        return self


@dataclass(frozen=True)
class Traffic:
    """A spec with what its trace holds. `recorded` None: there is no trace."""

    spec: TrafficSpec
    recorded: tuple[Ask, ...] | None = None

    @property
    def duration_s(self) -> float:
        if self.spec.duration_s is not None:
            return self.spec.duration_s
        return 3600.0 if self.recorded is None else self.recorded[-1].at_s + 1

    @property
    def models(self) -> tuple[str, ...]:
        """Every model that is asked for, each once."""
        asked = self.spec.requests if self.recorded is None else self.recorded
        return tuple(dict.fromkeys(ask.model for ask in asked))

    def asks(self, seed: int) -> Iterator[Ask]:
        """The requests in the order of time; those of a trace are the same for every seed."""
        if self.recorded is None:
            return drawn(self.spec, self.duration_s, seed)
        return (ask for ask in self.recorded if ask.at_s < self.duration_s)


def read_traffic(path: Path) -> Traffic:
    """The traffic that the file describes: a spec, or a trace if its name ends in `.jsonl`.

    Errors: `TrafficError`; `OSError` when there is no such file.
    """
    if path.suffix == TRACE_SUFFIX:
        return Traffic(TrafficSpec(trace=path.name), _recorded(path))
    content = path.read_bytes()
    if len(content) > MOST_BYTES:
        raise TrafficError(
            f"{path}: is larger than {MOST_BYTES} bytes; is it a trace? Then name "
            f"it {path.stem}{TRACE_SUFFIX}"
        )
    try:
        spec = TrafficSpec.model_validate_json(content, strict=True)
    except ValidationError as error:
        raise TrafficError("\n".join(f"{path}: {line}" for line in _lines(error))) from None
    return Traffic(spec, None if spec.trace is None else _recorded(path.parent / spec.trace))


def _recorded(path: Path) -> tuple[Ask, ...]:
    try:
        return read_trace(path)
    except TraceError as error:
        raise TrafficError(f"{path}: {error}") from None


def _lines(error: ValidationError) -> Iterator[str]:
    for details in error.errors(include_url=False):
        if not details["loc"]:
            yield details["msg"].removeprefix("Value error, ")
            return
    for place, sentence in problems(error):
        if sentence.startswith("Extra inputs"):
            sentence = "is not a known field; remove it (docs/capacity.md has the list)"
        yield f"{_TAG.sub('', place)}: {sentence}"
