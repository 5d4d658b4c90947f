"""What an upstream's outcome means: whose fault, who is hurt, whether another may do better.

The one place where statuses, bodies and I/O failures become an `Outcome`. What is not known is
taken for the client's fault below 500 and for the instance's from there on.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from pydantic_core import from_json

from actors.messages import Outcome, OutcomeKind
from proxy.exchange.hints import limit_hit, retry_after_s

if TYPE_CHECKING:
    from proxy.exchange.ports import Headers, UpstreamFailure

MAX_REASON: Final = 300
"""Characters of an upstream's error message that are shown to operators."""
MODEL_MISSING: Final = frozenset({"DeploymentNotFound", "model_not_found"})
"""Codes of a 404 that speaks of the model: Azure's, and OpenAI's own."""
MAX_TOLD_HEADERS: Final = 50


@dataclass(frozen=True, slots=True)
class Verdict:
    """`elsewhere`: another instance may do better. `exclude`: this one must not be tried again
    for this request; a rate limit is not a reason, its bench already says until when."""

    outcome: Outcome
    elsewhere: bool
    exclude: bool = False


def answer(
    status: int,
    headers: Headers,
    body: bytes,
    *,
    wall_now: float,
    latency_s: float,
    secret: bytes = b"",
) -> Verdict:
    """Judges a complete answer that is no success: its status is 300 or more.

    `secret`: the instance's key, which some upstreams quote when they refuse it.
    """
    error = error_object(body)
    code = _text(error.get("code"))
    message = _text(error.get("message"))
    kind, elsewhere = _kind(status, code, message)
    told = [*headers, *_told_headers(error)]
    bench_s = None
    if kind in ("rate_limited", "instance_error"):
        bench_s = retry_after_s(told, body, wall_now)
    outcome = Outcome(
        kind,
        status=status,
        reason=_reason(status, code, message, secret),
        bench_s=bench_s,
        reached=True,
        latency_s=latency_s,
        limit=limit_hit(told, body) if kind == "rate_limited" else None,
    )
    return Verdict(outcome, elsewhere, exclude=elsewhere and kind != "rate_limited")


def _kind(status: int, code: str, message: str) -> tuple[OutcomeKind, bool]:
    """(kind, whether to try elsewhere) by status and, where that is ambiguous, by the body."""
    if status == 429:
        return "rate_limited", True
    if status in (401, 402, 403):
        return "credential_error", True
    if status == 404 and code in MODEL_MISSING:
        return "model_error", True
    if status == 400 and "API version not supported" in message:
        return "model_error", True  # The version is the instance's own, not the client's.
    if status in (408, 409) or status >= 500:
        return "instance_error", True
    if status < 400:
        return "instance_error", True  # A redirect: `api_base` is not where the service is.
    return "client_error", False


def failure(error: UpstreamFailure, *, latency_s: float) -> Verdict:
    """Judges an exchange that broke before it was complete.

    Unless connecting failed, the upstream may have counted the request.
    """
    outcome = Outcome(
        "instance_error",
        reason=f"{error.phase}: {error.detail}"[:MAX_REASON],
        reached=error.phase != "connect" or error.answered,
        latency_s=latency_s,
    )
    return Verdict(outcome, elsewhere=True, exclude=True)


def keyless(reason: str) -> Verdict:
    """Judges an attempt that could not be made because the instance's key is not there."""
    outcome = Outcome("credential_error", reason=reason[:MAX_REASON], reached=False)
    return Verdict(outcome, elsewhere=True, exclude=True)


def rejects_stream_options(status: int, body: bytes) -> bool:
    """Whether the upstream refused the request because it does not know `stream_options`
    (Azure before 2024-09-01, and servers that validate strictly)."""
    return status in (400, 422) and b"stream_options" in body


def cannot_decrypt(status: int, body: bytes) -> bool:
    """Whether the upstream refused encrypted reasoning that another one has made
    (BerriAI/litellm#27702)."""
    return status == 400 and b"invalid_encrypted_content" in body


def error_object(body: bytes) -> dict[str, Any]:
    """The error in an answer, in whichever of the usual shapes; empty when there is none.

    `{"error": {…}}`, `{"error": "text"}`, and the bare object that gateways send. Never raises.
    """
    try:
        document = from_json(body)
    except ValueError:
        return {}
    if not isinstance(document, dict):
        return {}
    error = document.get("error", document)
    if isinstance(error, str):
        return {"message": error}
    return error if isinstance(error, dict) else {}


def _told_headers(error: dict[str, Any]) -> Headers:
    """The headers that Azure puts into an error event, because its real ones have gone out."""
    told = error.get("headers")
    if not isinstance(told, dict):
        return []
    return [
        (name.lower().encode(), str(value).encode())
        for name, value in list(told.items())[:MAX_TOLD_HEADERS]
        if isinstance(value, str | int | float)
    ]


def _text(value: object) -> str:
    """Codes are numbers at some upstreams."""
    return str(value) if isinstance(value, str | int) else ""


def _reason(status: int, code: str, message: str, secret: bytes) -> str:
    text = " ".join(part for part in (str(status), code) if part)
    if message:
        text = f"{text}: {message}"
    if secret:
        text = text.replace(secret.decode("latin-1"), "***")
    return text[:MAX_REASON]


STREAM_ERROR_STATUS: Final = {
    "server_error": 500,
    "too_many_requests": 429,
    "forbidden": 403,
    "user_error": 400,
    "invalid_request_error": 400,
    "rate_limit_exceeded": 429,
    "no_capacity": 429,
    "NoCapacity": 429,
    "rate_limit_reached": 429,
    "vector_store_timeout": 500,
    **dict.fromkeys(
        (
            "content_filter",
            "context_length_exceeded",
            "invalid_prompt",
            "bio_policy",
            "misalignment_policy_violation",
            "data_residency_mismatch",
            "invalid_image",
            "invalid_image_format",
            "invalid_base64_image",
            "invalid_image_url",
            "image_too_large",
            "image_too_small",
            "image_parse_error",
            "image_content_policy_violation",
            "invalid_image_mode",
            "image_file_too_large",
            "unsupported_image_media_type",
            "empty_image_file",
            "failed_to_download_image",
            "image_file_not_found",
        ),
        400,
    ),
}
"""`type` or `code` of an in-stream error → the status that it would have had. Azure documents the
first four types (learn.microsoft.com, "Troubleshoot errors", 2026); the codes below are those of
`response.failed` (openai-python, `types/responses/response_error.py`)."""


def stream_error(error: dict[str, Any]) -> tuple[int, bytes]:
    """(status, body) that an error event would have been as a plain answer; 500 if unknown.

    Servers other than Azure put the status itself into `code`.
    """
    status = 500
    for key in (error.get("code"), error.get("type")):
        text = _text(key)
        if text in STREAM_ERROR_STATUS:
            status = STREAM_ERROR_STATUS[text]
            break
        if text.isdecimal() and len(text) == 3 and 400 <= int(text) < 600:
            status = int(text)
            break
    return status, json.dumps({"error": error}).encode()
