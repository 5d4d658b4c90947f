"""What an upstream's outcome means: whose fault, who is hurt, whether another may do better.

The one place where statuses, bodies and I/O failures become an `Outcome`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from pydantic_core import from_json

from actors.messages import Outcome, OutcomeKind
from proxy.exchange.hints import retry_after_s

if TYPE_CHECKING:
    from proxy.exchange.ports import Headers, UpstreamFailure

MAX_REASON: Final = 300
"""Characters of an upstream's error message that are shown to operators."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """`elsewhere`: another instance may do better. `exclude`: this one must not be tried again
    for this request; a rate limit is not a reason, its bench already says until when."""

    outcome: Outcome
    elsewhere: bool
    exclude: bool = False


def answer(
    status: int, headers: Headers, body: bytes, *, wall_now: float, latency_s: float
) -> Verdict:
    """Judges a complete error answer (status 400 or more)."""
    error = error_object(body)
    code = str(error.get("code") or "")
    kind, elsewhere = _kind(status, code)
    bench_s = retry_after_s(headers, body, wall_now) if kind == "rate_limited" else None
    outcome = Outcome(
        kind,
        status=status,
        reason=_reason(status, code, error.get("message")),
        bench_s=bench_s,
        reached=True,
        latency_s=latency_s,
    )
    return Verdict(outcome, elsewhere, exclude=elsewhere and kind != "rate_limited")


def _kind(status: int, code: str) -> tuple[OutcomeKind, bool]:
    """(kind, whether to try elsewhere) by status and, where that is ambiguous, body code."""
    if status == 429:
        return "rate_limited", True
    if status in (401, 403):
        return "credential_error", True
    if status == 404 and code == "DeploymentNotFound":
        return "model_error", True
    if status in (408, 409) or status >= 500:
        return "instance_error", True
    return "client_error", False


def failure(error: UpstreamFailure, *, latency_s: float) -> Verdict:
    """Judges an exchange that broke before it was complete."""
    reached = error.phase in ("head", "body") or error.answered
    outcome = Outcome(
        "instance_error",
        reason=f"{error.phase}: {error.detail}"[:MAX_REASON],
        reached=reached,
        latency_s=latency_s,
    )
    return Verdict(outcome, elsewhere=True, exclude=True)


def error_object(body: bytes) -> dict[str, Any]:
    """The `error` object of an answer; empty when there is none. Never raises."""
    try:
        document = from_json(body)
    except ValueError:
        return {}
    error = document.get("error") if isinstance(document, dict) else None
    return error if isinstance(error, dict) else {}


def _reason(status: int, code: str, message: object) -> str:
    text = f"{status} {code}".strip()
    if isinstance(message, str) and message:
        text = f"{text}: {message}"
    return text[:MAX_REASON]


STREAM_ERROR_STATUS: Final = {
    "server_error": 500,
    "too_many_requests": 429,
    "forbidden": 403,
    "user_error": 400,
    "invalid_request_error": 400,
    "rate_limit_exceeded": 429,
    "no_capacity": 429,
    "rate_limit_reached": 429,
}
"""`type` or `code` of an in-stream error → the status that it would have had (Azure documents the
first four: learn.microsoft.com, "Troubleshoot errors", 2026)."""


def stream_error(error: dict[str, Any]) -> tuple[int, bytes]:
    """(status, body) that an error event would have been as a plain answer; 500 if unknown."""
    status = 500
    for key in (error.get("code"), error.get("type")):
        if isinstance(key, str) and key in STREAM_ERROR_STATUS:
            status = STREAM_ERROR_STATUS[key]
            break
    return status, json.dumps({"error": error}).encode()
