"""The failure table: every known way in which an upstream does not serve, and what follows.

`docs/failures.md` shows these rows; a test keeps the two alike. Nothing else decides whose fault
an outcome is. Bodies: Azure's, as seen in the wild and in learn.microsoft.com, "Troubleshoot
errors" (2026); OpenAI's own; and what other servers are known to send.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping

    from actors.messages import OutcomeKind
    from proxy.exchange.ports import UpstreamFailure

Fault: TypeAlias = Literal["nobody", "client", "upstream", "operator"]
Domain: TypeAlias = Literal["request", "model on instance", "instance"]
Told: TypeAlias = Literal["as it came", "limit", "credentials", "redirected", "unreachable", "cut"]
"""What the client gets if this is the last word: the upstream's own answer, one of ours, or the
explicit end of an answer that has begun."""
PASSED_ON: Final[frozenset[Told]] = frozenset({"as it came", "limit"})


class Rule(NamedTuple):
    """One row. `phase`, `seen` and `bench` are for people; the rest is what the code goes by.

    `elsewhere`: whether another instance may do better. `hintless_s`: how long the model is left
    alone if the upstream does not say; None for the default of `actors.policy.benches`.
    `telling`: of several failures the client is told the one with the most, the last of equals.
    """

    phase: str
    seen: str
    kind: OutcomeKind
    bench: str
    elsewhere: bool = True
    told: Told = "as it came"
    telling: int = 0
    hintless_s: float | None = None

    @property
    def perhaps_done(self) -> bool:
        """Whether the upstream may have done what was asked all the same."""
        return self.kind == "instance_error" and self.phase != "connect"


MEANING: Final[Mapping[OutcomeKind, tuple[Fault, Domain]]] = {
    "success": ("nobody", "request"),
    "cancelled": ("nobody", "request"),
    "client_error": ("client", "request"),
    "unsupported": ("operator", "request"),
    "rate_limited": ("nobody", "model on instance"),
    "model_error": ("operator", "model on instance"),
    "credential_error": ("operator", "instance"),
    "instance_error": ("upstream", "instance"),
}

_BREAKER: Final = "the breaker decides"
_NOT: Final = "not benched"

UNREACHED: Final = Rule(
    "connect", "refused, no such name, no TLS, no connection in 10 s", "instance_error",
    _BREAKER, told="unreachable",
)  # fmt: skip
UNSENT: Final = Rule(
    "send", "reset, or not taken within `timeout_seconds`", "instance_error",
    _BREAKER, told="unreachable",
)  # fmt: skip
UNANSWERED: Final = Rule(
    "head", "reset, closed, no HTTP, a head above 64 KiB, nothing within `timeout_seconds`",
    "instance_error", _BREAKER, told="unreachable",
)  # fmt: skip
BROKEN: Final = Rule(
    "body", "before the client has got anything: cut, stalled, not in its framing or coding, a "
    "JSON answer or an event that is no JSON",
    "instance_error", _BREAKER, told="unreachable",
)  # fmt: skip
CUT: Final = Rule(
    "body", "after the client has got something: cut, stalled for `timeout_seconds`, an event "
    "that is no JSON or has no end within 8 MiB",
    "instance_error", _BREAKER, elsewhere=False, told="cut",
)  # fmt: skip
KEYLESS: Final = Rule(
    "connect", "the variable that `api_key` refers to is not set", "credential_error",
    "instance, 60 s", told="credentials", telling=1,
)  # fmt: skip

NO_CAPACITY: Final = Rule(
    "status", "429 `no_capacity`, `NoCapacity`", "rate_limited",
    "model, until the hint; without one 2 s", told="limit", telling=4, hintless_s=2.0,
)  # fmt: skip
"""No quota is used up: the region is busy, and large requests are refused first. So the others
need not stay away for long."""
PROVISIONED_FULL: Final = Rule(
    "status", "429 `rate_limit_reached`, or a message that names a provisioned deployment",
    "rate_limited", "model, until the hint; without one 1 s", told="limit", telling=4,
    hintless_s=1.0,
)  # fmt: skip
"""Utilisation drains all the time, and Azure says to the millisecond when it is below 100 %."""
QUOTA: Final = Rule(
    "status", "429, all others; wording and `x-ratelimit-remaining-*` say whether of tokens or "
    "of calls",
    "rate_limited", "model, until the hint; without one 10 s", told="limit", telling=4,
)  # fmt: skip
CREDENTIAL: Final = Rule(
    "status", "401, 402, 403", "credential_error", "instance, 60 s", told="credentials", telling=1
)
NO_MODEL: Final = Rule(
    "status", "404 `DeploymentNotFound`, `model_not_found`", "model_error", "model, 60 s",
    telling=2,
)  # fmt: skip
OLD_VERSION: Final = Rule(
    "status", "400 \"API version not supported\"", "model_error", "model, 60 s", telling=2
)  # fmt: skip
"""The version is the instance's own, not the client's."""
NOT_HERE: Final = Rule(
    "status", "404 `404`, \"Resource not found\"", "unsupported",
    "for this operation it comes last, 60 s", telling=2,
)  # fmt: skip
"""Address and version are the instance's own. But it may be one operation only that they do not
have, so the others are not kept away (see `missing_operations`)."""
FAILED: Final = Rule("status", "408, 409, 5xx", "instance_error", _BREAKER, telling=3)
REDIRECTED: Final = Rule("status", "3xx", "instance_error", _BREAKER, told="redirected", telling=1)
"""`api_base` is not where the service is. Where it is, is not the client's business."""
FILTERED: Final = Rule("status", "400 `content_filter`", "client_error", _NOT, elsewhere=False)
"""The same prompt is refused everywhere, and every refusal is counted."""
CLIENTS: Final = Rule(
    "status", "all other 4xx", "client_error", _NOT, elsewhere=False
)  # fmt: skip

RULES: Final = (
    UNREACHED, KEYLESS, UNSENT, UNANSWERED, NO_CAPACITY, PROVISIONED_FULL, QUOTA, CREDENTIAL,
    NO_MODEL, OLD_VERSION, NOT_HERE, FAILED, REDIRECTED, FILTERED, CLIENTS, BROKEN, CUT,
)  # fmt: skip

_OF_PHASE: Final = {"connect": UNREACHED, "send": UNSENT, "head": UNANSWERED, "body": BROKEN}
_NO_CAPACITY_CODES: Final = frozenset({"no_capacity", "NoCapacity"})
_MODEL_CODES: Final = frozenset({"DeploymentNotFound", "model_not_found"})


def rule_of_answer(status: int, code: str, message: str) -> Rule:
    """The row of an answer that is no success. What is not known is taken for the client's fault
    below 500 and for the instance's from there on."""
    if status >= 500 or status in (408, 409):
        return FAILED
    match status:
        case 429:
            return _rule_of_limit(code, message)
        case 401 | 402 | 403:
            return CREDENTIAL
        case 404 if code in _MODEL_CODES:
            return NO_MODEL
        case 404 if code == "404" or message == "Resource not found":
            return NOT_HERE
        case 400 if code == "content_filter":
            return FILTERED
        case 400 if "API version not supported" in message:
            return OLD_VERSION
        case _:
            return REDIRECTED if status < 400 else CLIENTS


def _rule_of_limit(code: str, message: str) -> Rule:
    if code in _NO_CAPACITY_CODES:
        return NO_CAPACITY
    if code == "rate_limit_reached" or "Provisioned-Managed" in message:
        return PROVISIONED_FULL
    return QUOTA


def rule_of_failure(failure: UpstreamFailure) -> Rule:
    """The row of an exchange that broke before the client got anything."""
    return _OF_PHASE[failure.phase]


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
