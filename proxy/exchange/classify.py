"""What an upstream's outcome means: whose fault, who is hurt, whether another may do better.

The one place where statuses, bodies and I/O failures become an `Outcome`, by the rows of
`failure_table`.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from pydantic_core import from_json

from actors.messages import Outcome
from proxy.exchange.error_answer import ErrorAnswer
from proxy.exchange.failure_table import (
    CUT,
    KEYLESS,
    QUOTA,
    STREAM_ERROR_STATUS,
    Rule,
    rule_of_answer,
    rule_of_failure,
)
from proxy.exchange.hints import limit_hit, retry_after_s

if TYPE_CHECKING:
    from proxy.exchange.ports import Headers, UpstreamFailure

MAX_REASON: Final = 300
"""Characters of an upstream's error message that are shown to operators."""
MAX_TOLD_HEADERS: Final = 50
_JSON: Final = ((b"content-type", b"application/json"),)
_NAME: Final = re.compile(r"[\w.\[\]-]{1,100}", re.ASCII)
"""Codes, and the paths of fields."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What to remember of an attempt, and the row of the failure table that says what to do."""

    outcome: Outcome
    rule: Rule

    @property
    def elsewhere(self) -> bool:
        """Another instance may do better."""
        return self.rule.elsewhere

    @property
    def exclude(self) -> bool:
        """This instance must not be tried again for this request. A rate limit is no reason: its
        bench already says until when."""
        return self.rule.elsewhere and self.rule.kind != "rate_limited"


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
    rule = rule_of_answer(status, code, message)
    told = [*headers, *_told_headers(error)]
    bench_s = None
    if rule.kind in ("rate_limited", "instance_error"):
        bench_s = retry_after_s(told, body, wall_now) or rule.hintless_s
    outcome = Outcome(
        rule.kind,
        status=status,
        reason=_reason(status, error, rule, secret),
        bench_s=bench_s,
        reached=True,
        latency_s=latency_s,
        limit=limit_hit(told, body) if rule is QUOTA else None,
    )
    return Verdict(outcome, rule)


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
    return Verdict(outcome, rule_of_failure(error))


def cut(reason: str, *, latency_s: float) -> Verdict:
    """Judges an answer that broke after the client had got some of it."""
    outcome = Outcome("instance_error", reason=reason, reached=True, latency_s=latency_s)
    return Verdict(outcome, CUT)


def keyless(reason: str) -> Verdict:
    """Judges an attempt that could not be made because the instance's key is not there."""
    outcome = Outcome("credential_error", reason=reason[:MAX_REASON], reached=False)
    return Verdict(outcome, KEYLESS)


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


def _reason(status: int, error: dict[str, Any], rule: Rule, secret: bytes) -> str:
    """What an upstream says of a request that is wrong may quote it: of that only names are kept,
    the code's and the field's."""
    code, said = _text(error.get("code")), _text(error.get("message"))
    if rule.kind == "client_error":
        code, said = _name(code), _name(_text(error.get("param")))
    text = " ".join(part for part in (str(status), code) if part)
    if said:
        text = f"{text}: {said}"
    if secret:
        text = text.replace(secret.decode("latin-1"), "***")
    return text[:MAX_REASON]


def _name(text: str) -> str:
    return text if _NAME.fullmatch(text) else ""


def stream_error(error: dict[str, Any]) -> ErrorAnswer:
    """What an error event would have been as a plain answer, not masked; 500 if unknown.

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
    return ErrorAnswer(status, [*_JSON], json.dumps({"error": error}).encode())
