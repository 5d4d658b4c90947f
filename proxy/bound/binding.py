"""What ties a request to the instance that made what it names, and what is said when that can't
serve it. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from proxy.bound.ids import told
from proxy.errors import BadRequest, NotFound, ProxyError
from proxy.exchange.refusals import (
    RETRY_WORTHWHILE_S,
    SATURATED_RETRY_S,
    UNAVAILABLE_RETRY_S,
    refusal_error,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from actors.messages import Refused
    from actors.models import InstanceConfig
    from proxy.exchange.ports import UpstreamFailure
    from proxy.exchange.resources import Key

MAX_TOLD: Final = 5
"""Instances that a message names; of more it gives the number."""


@dataclass(frozen=True, slots=True)
class Binding:
    """`key` was made by `owner`. `instances`: those that have what it has, all at one upstream."""

    key: Key
    owner: str
    instances: frozenset[str]

    def refused(self, refused: Refused, model: str, now: float) -> ProxyError:
        """No lease on these instances. `now`: trio time."""
        match refused.reason:
            case "unknown_model" if model:
                return NotFound(
                    f"{self._begin()}, which does not serve the model `{model}`. Use a model that "
                    f"it serves, or go on without {told(self.key)}.",
                    code="model_not_found",
                    param="model",
                )
            case "input_too_long" | "too_large":
                return refusal_error(refused, model, now)
        wait_s = None if refused.retry_at is None else max(0.001, refused.retry_at - now)
        if refused.reason in ("unavailable", "unknown_model"):
            wait_s = wait_s or UNAVAILABLE_RETRY_S
            return ProxyError(
                503,
                f"{self._begin()}, which can't be used now: it failed lately, or refused the "
                f"proxy's key. Please retry, or go on without {told(self.key)}.",
                type="server_error",
                code="instance_unavailable",
                retry_after_s=wait_s,
                should_retry=wait_s <= RETRY_WORTHWHILE_S,
            )
        wait_s = wait_s or SATURATED_RETRY_S
        return ProxyError(
            429,
            f"{self._begin()}, which is at its rate limit. Please retry after {wait_s:.3f} "
            "seconds.",
            type="tokens",
            code="rate_limit_exceeded",
            retry_after_s=wait_s,
            should_retry=wait_s <= RETRY_WORTHWHILE_S,
        )

    def unreachable(self, failure: UpstreamFailure | None) -> ProxyError:
        late = failure is not None and failure.kind == "timeout"
        what = "did not answer in time" if late else "could not be reached, or broke off"
        return ProxyError(
            504 if late else 502,
            f"{self._begin()}, which {what}. Please retry, or go on without {told(self.key)}.",
            type="server_error",
            code="upstream_timeout" if late else "upstream_unreachable",
        )

    def _begin(self) -> str:
        return _made_by(self.key, self.owner)


def removed(key: Key, owner: str) -> ProxyError:
    return NotFound(
        f"{_made_by(key, owner)}, which is not configured any more. Configure it again under that "
        f"name, or go on without {told(key)}.",
        code="instance_removed",
    )


def disabled(key: Key, owner: str) -> ProxyError:
    return ProxyError(
        503,
        f"{_made_by(key, owner)}, which is disabled. Enable it, or go on without {told(key)}.",
        type="server_error",
        code="instance_disabled",
        should_retry=False,
    )


def apart(key: Key, owner: str, other_key: Key, other_owner: str) -> ProxyError:
    """A request can only go to one upstream."""
    return BadRequest(
        f"The request names what lives on different instances: {told(key)} on `{owner}`, "
        f"{told(other_key)} on `{other_owner}`. Use what was made on one of them; a file can be "
        "uploaded again together with what it is used with.",
        code="ids_on_different_instances",
    )


def not_found_yet(key: Key, unasked: Iterable[str]) -> ProxyError:
    """Nobody who answered has it."""
    return ProxyError(
        503,
        f"No instance that could be asked has {told(key)}, and {_listed(unasked)} could not be "
        "asked. "
        "Please retry later.",
        type="server_error",
        code="instance_unavailable",
        retry_after_s=UNAVAILABLE_RETRY_S,
    )


def nobody_answered(names: Iterable[str]) -> ProxyError:
    """To a question that all of these could have answered."""
    return ProxyError(
        503,
        f"Of the instances that were asked ({_listed(names)}) none has answered. Please retry "
        "later.",
        type="server_error",
        code="instance_unavailable",
        retry_after_s=UNAVAILABLE_RETRY_S,
    )


def too_many_lists() -> ProxyError:
    return ProxyError(
        503,
        "Too many lists of several instances are in progress. Please retry in a moment.",
        type="server_error",
        code="too_many_requests_in_progress",
        retry_after_s=1.0,
    )


def nobody(refused: Refused, now: float) -> ProxyError:
    """No lease on any instance for a request that names none and needs no model."""
    wait_s = UNAVAILABLE_RETRY_S
    if refused.retry_at is not None:
        wait_s = max(0.001, refused.retry_at - now)
    return ProxyError(
        503,
        "No instance is available now.",
        type="server_error",
        code="no_instance_available",
        retry_after_s=wait_s,
        should_retry=wait_s <= RETRY_WORTHWHILE_S,
    )


def upstream_of(config: InstanceConfig) -> tuple[str, ...]:
    """Equal for instances that have the same things: an Azure resource whatever the key, other
    servers by address and key, because there a key may stand for a project of its own."""
    base = config.api_base.lower()
    if config.provider_type == "azure":
        return ("azure", base.removesuffix("/v1").removesuffix("/openai"))
    return ("generic", base, config.api_key)


def _listed(names: Iterable[str]) -> str:
    ordered = sorted(names)
    listed = ", ".join(f"`{name}`" for name in ordered[:MAX_TOLD])
    more = len(ordered) - MAX_TOLD
    return f"{listed} and {more} more" if more > 0 else listed


def _made_by(key: Key, owner: str) -> str:
    made = told(key)
    return f"{made[0].upper()}{made[1:]} was made by the instance `{owner}`"
