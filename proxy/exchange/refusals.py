"""What the client is told when no instance takes its request, or none could serve it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, assert_never

from proxy.errors import NotFound, ProxyError

if TYPE_CHECKING:
    from actors.messages import Refused
    from proxy.exchange.failure_table import Told
    from proxy.exchange.ports import UpstreamFailure

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


def last_word(told: Told, failure: UpstreamFailure | None) -> ProxyError:
    """The answer to a request whose last failure is not for the client's eyes, or brought no
    answer. What is wrong with our credentials or addresses is not the client's to mend: it must
    not be sent looking for a mistake of its own."""
    if told == "credentials":
        return _bad_gateway(
            "upstream_authentication_failed",
            "The upstream did not accept this proxy's credentials.",
        )
    if told == "redirected":
        return _bad_gateway(
            "upstream_redirected", "The upstream is not at the address that this proxy has for it."
        )
    if failure is not None and failure.kind == "timeout":
        return ProxyError(
            504,
            "The upstream did not answer in time.",
            type="server_error",
            code="upstream_timeout",
        )
    return _bad_gateway(
        "upstream_unreachable", "The upstream could not be reached, or broke off before answering."
    )


def _bad_gateway(code: str, message: str) -> ProxyError:
    return ProxyError(502, message, type="server_error", code=code)
