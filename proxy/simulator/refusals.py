"""Rate limits as a client sees them: the headers of every answer, and the 429s.

Sources: learn.microsoft.com, "Manage Azure OpenAI quota", read 2026-11, and public reports of
headers and bodies. The plain dialect follows OpenAI's rate-limit guide.
"""

from __future__ import annotations

import math
from email.utils import formatdate
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from proxy.simulator.call import ApiError, sse

if TYPE_CHECKING:
    from proxy.exchange.ports import Headers
    from proxy.simulator.deployment import Deployment, HeaderMode
    from proxy.simulator.limiter import Level, Refused, Standing, Tripped
    from proxy.simulator.surface import Address

FailureShape: TypeAlias = Literal["error", "failed", "both"]
"""An error event, `response.failed` with the reason in it, or one after the other."""

_DAY_S = 86_400

_GATEWAY = {
    "code": "RateLimitReached",
    "message": "Your requests to {model} for {deployment} in {region} have exceeded the {what} "
    "rate limit for your current AIServices S0 pricing tier. This request was for {title} under "
    "Azure OpenAI API version {version}. {retry}To increase your default rate limit, visit: "
    "https://aka.ms/oai/quotaincrease.",
}
_BODIES: dict[str, dict[str, str]] = {
    "classic": {
        "code": "429",
        "message": "Requests to the {title} Operation under Azure OpenAI API version {version} "
        "have exceeded {what} rate limit of your current OpenAI S0 pricing tier. {retry}Please go "
        "here: https://aka.ms/oai/quotaincrease if you would like to further increase the "
        "default rate limit.",
    },
    "gateway": _GATEWAY,
    "capacity": {
        "type": "too_many_requests",
        "code": "no_capacity",
        "message": "The system is currently experiencing high demand and cannot process your "
        "request. Your request exceeds the maximum usage size allowed during peak load. {retry}For "
        "improved capacity reliability, consider switching to Provisioned Throughput.",
    },
    "provisioned": {
        "code": "rate_limit_reached",
        "message": "Requests have exceeded the throughput limit on your Provisioned-Managed "
        "deployment. {retry}",
    },
    "stream": _GATEWAY,
}
"""Bodies of a 429 by style; "stream" is for calls that are not streamed."""


def add_limit_headers(
    headers: Headers, deployment: Deployment, standing: Standing, *, plain: bool
) -> None:
    """Adds the rate-limit headers of a deployment to an answer's; what is there already stays."""
    if deployment.kind == "provisioned" and not plain:
        percent = b"%.1f%%" % (100 * standing.utilisation)
        headers.append((b"azure-openai-deployment-utilization", percent))
        return
    present = {name for name, _ in headers}
    mode = deployment.headers
    rows = _rows(mode, b"tokens", standing.tokens, plain=plain)
    if standing.requests is not None:
        rows += _rows(mode, b"requests", standing.requests, plain=plain)
    headers += [row for row in rows if row[0] not in present]


def _rows(mode: HeaderMode, what: bytes, level: Level, *, plain: bool) -> Headers:
    limit, remaining = b"x-ratelimit-limit-" + what, b"x-ratelimit-remaining-" + what
    reset = b"x-ratelimit-reset-" + what
    match mode:
        case "full":
            rows = [(limit, b"%d" % level.limit), (remaining, b"%d" % level.remaining)]
            return [*rows, (reset, _duration(level.clears_s))] if plain else rows
        case "remaining":
            return [(remaining, b"%d" % level.remaining)]
        case "unknown":
            return [(limit, b"-1"), (remaining, b"-1"), (reset, b"0")]
        case "none":
            return []


def _duration(seconds: float) -> bytes:
    """As OpenAI writes it: `850ms`, `1.2s`, `6m0s`."""
    if seconds < 1:
        return b"%dms" % math.ceil(seconds * 1000)
    minutes, rest = divmod(seconds, 60)
    return b"%dm%gs" % (minutes, round(rest, 3)) if minutes else b"%gs" % round(rest, 3)


def refusal(
    deployment: Deployment,
    address: Address,
    title: str,
    region: str,
    refused: Refused,
    epoch: float,
) -> ApiError:
    """The 429 of a call that the limiter has refused. `epoch`: the wall clock's time."""
    wait_s = float(_DAY_S) if deployment.hint == "day" else refused.wait_s
    headers = _hint_headers(deployment, refused.tripped, wait_s, epoch)
    if not address.azure:
        return ApiError(429, _plain_error(deployment, refused.tripped, wait_s), headers)
    told = deployment.hint in ("ms", "s", "date", "body", "day")
    facts = {
        "title": title,
        "version": address.version,
        "what": "token" if refused.tripped == "tokens" else "call",
        "model": deployment.model,
        "deployment": deployment.name,
        "region": region,
        "retry": f"Please retry after {max(1, math.ceil(wait_s))} seconds. " if told else "",
    }
    style = "provisioned" if deployment.kind == "provisioned" else deployment.refusal
    error = {key: form.format_map(facts) for key, form in _BODIES[style].items()}
    return ApiError(429, error, headers)


def _plain_error(deployment: Deployment, tripped: Tripped, wait_s: float) -> dict[str, Any]:
    return {
        "message": f"Rate limit reached for {deployment.model} on {tripped} per min. "
        f"Please try again in {wait_s:.3f}s.",
        "type": tripped,
        "param": None,
        "code": "rate_limit_exceeded",
    }


def _hint_headers(deployment: Deployment, tripped: Tripped, wait_s: float, epoch: float) -> Headers:
    milliseconds = max(1, math.ceil(wait_s * 1000))
    seconds = max(1, math.ceil(wait_s))
    match deployment.hint:
        case "ms":
            return [
                (b"retry-after-ms", b"%d" % milliseconds),
                (b"retry-after", b"%d" % seconds),
            ]
        case "s" | "day":
            return [(b"retry-after", b"%d" % seconds)]
        case "date":
            return [(b"retry-after", formatdate(math.ceil(epoch + wait_s), usegmt=True).encode())]
        case "reset":
            return [(b"x-ratelimit-reset-" + tripped.encode(), b"%d" % seconds)]
        case "odd":
            return [
                (b"x-rate-limit-reset-tokens", b"%d" % seconds),
                (b"policy-id", b"DeploymentRatelimit-Token"),
            ]
        case "body" | "none":
            return []


def failure_events(
    shape: FailureShape, kind: str, code: str, message: str, sequence_number: int
) -> bytes:
    """What reports a failure inside a stream that began with HTTP 200.

    In the shape "both" the first event tells nothing and the second one everything, as Azure has
    been seen to send it (github.com/earendil-works/pi, issue 7983).
    """
    told = b""
    if shape != "error":
        error = {"code": code, "message": message} if shape == "failed" else None
        failed: dict[str, Any] = {
            "status": "failed",
            "error": error,
            "incomplete_details": None,
            "output": [],
        }
        event = {"sequence_number": sequence_number, "response": failed}
        told = sse({"type": "response.failed", **event}, "response.failed")
        sequence_number += 1
    if shape != "failed":
        told += sse(
            {
                "type": "error",
                "error": {
                    "type": kind,
                    "code": code,
                    "headers": {"x-ms-fe-error": "true"},
                    "message": message,
                    "param": None,
                },
                "sequence_number": sequence_number,
            },
            "error",
        )
    return told
