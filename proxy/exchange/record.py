"""What is remembered of one request: the line in the log. No content, no keys."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class RequestRecord:
    """Filled in while the request lives; durations in seconds on the trio clock.

    `status`: what the client got; 499 if it went away first. `wait_s`: spent waiting for leases.
    `first_byte_s`: from the start to the first byte of the answer.
    """

    id: str
    started_at: float
    operation: str = ""
    model: str = ""
    stream: bool = False
    instance: str = ""
    attempts: int = 0
    status: int = 499
    code: str = ""
    wait_s: float = 0.0
    first_byte_s: float | None = None
    duration_s: float = 0.0
    input_tokens: int | None = None
    output_tokens: int | None = None
