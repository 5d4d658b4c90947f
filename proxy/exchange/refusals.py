"""What the client is told when no instance takes its request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, assert_never

from proxy.errors import NotFound, ProxyError

if TYPE_CHECKING:
    from actors.messages import Refused

UNAVAILABLE_RETRY_S: Final = 5.0
"""When nothing says how long an outage lasts."""
SATURATED_RETRY_S: Final = 1.0
"""When nothing says how long the instances are full."""
RETRY_WORTHWHILE_S: Final = 120.0
"""The official SDKs do not wait longer than this for `retry-after` (openai-python 2.52,
`_base_client.py`): then a retry cannot help."""


def refusal_error(refused: Refused, model: str, now: float) -> ProxyError:
    """`now`: trio time."""
    wait_s = None if refused.retry_at is None else max(0.001, refused.retry_at - now)
    match refused.reason:
        case "unknown_model":
            return NotFound(
                f"The model `{model}` does not exist: no enabled instance serves it.",
                code="model_not_found",
                param="model",
            )
        case "input_too_long":
            return ProxyError(
                400,
                f"The input is longer than {refused.limit} tokens, the most that any instance "
                f"for `{model}` accepts. Please shorten it.",
                type="invalid_request_error",
                code="context_length_exceeded",
                param="messages",
            )
        case "too_large":
            return ProxyError(
                429,
                f"The request needs more tokens (input and output limit together) than any "
                f"instance for `{model}` may use in a minute, which is {refused.limit}. Please "
                "lower `max_tokens` or shorten the input.",
                type="tokens",
                code="rate_limit_exceeded",
                should_retry=False,
            )
        case "saturated" | "overloaded":
            wait_s = wait_s or SATURATED_RETRY_S
            return ProxyError(
                429,
                f"All instances for `{model}` are at their rate limits. Please retry after "
                f"{wait_s:.3f} seconds.",
                type="tokens",
                code="rate_limit_exceeded",
                retry_after_s=wait_s,
                should_retry=wait_s <= RETRY_WORTHWHILE_S,
            )
        case "unavailable":
            wait_s = wait_s or UNAVAILABLE_RETRY_S
            return ProxyError(
                503,
                f"No instance for `{model}` is available now.",
                type="server_error",
                code="no_instance_available",
                retry_after_s=wait_s,
                should_retry=wait_s <= RETRY_WORTHWHILE_S,
            )
        case _:
            assert_never(refused.reason)
