"""A recorded trace: JSON lines of time, model, input tokens and output tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from actors.models import ModelName  # noqa: TC001 - pydantic reads it
from actors.problems import problems
from proxy.planning.arrivals import Ask
from proxy.planning.lengths import MOST_TOKENS

if TYPE_CHECKING:
    from pathlib import Path

MOST_LINES: Final = 2_000_000
"""About half a gigabyte in memory."""


class TraceError(Exception):
    """What is wrong in which line."""


class TraceLine(BaseModel):
    """`time`: seconds from any origin, such as the epoch. Fields that are not known are ignored:
    traces are written by others."""

    model_config = ConfigDict(frozen=True)

    time: Annotated[float, Field(ge=0, le=1e11, allow_inf_nan=False)]
    model: ModelName
    input_tokens: Annotated[int, Field(ge=0, le=MOST_TOKENS)]
    output_tokens: Annotated[int, Field(ge=0, le=MOST_TOKENS)]
    max_tokens: Annotated[int, Field(ge=1, le=MOST_TOKENS)] | None = None
    stream: bool = False


def read_trace(path: Path) -> tuple[Ask, ...]:
    """Its requests in the order of time, the first at 0; there is at least one.

    Errors: `TraceError`, naming the line; `OSError`.
    """
    lines: list[TraceLine] = []
    with path.open("rb") as file:
        for number, text in enumerate(file, 1):
            if not text.strip():
                continue
            if len(lines) == MOST_LINES:
                raise TraceError(f"line {number}: the trace has more than {MOST_LINES}; split it")
            try:
                lines.append(TraceLine.model_validate_json(text, strict=True))
            except ValidationError as error:
                raise TraceError(f"line {number}: {_first(error)}") from None
    if not lines:
        raise TraceError(
            "holds no request; a line is such as "
            '{"time": 0.5, "model": "gpt-4o", "input_tokens": 80, "output_tokens": 20}'
        )
    lines.sort(key=lambda line: line.time)
    begin = lines[0].time
    return tuple(
        Ask(
            line.time - begin,
            line.model,
            line.input_tokens,
            line.output_tokens,
            line.max_tokens,
            line.stream,
        )
        for line in lines
    )


def _first(error: ValidationError) -> str:
    details = error.errors(include_url=False)[0]
    if not details["loc"]:
        return details["msg"]
    place, sentence = problems(error)[0]
    return f"{place}: {sentence}"
