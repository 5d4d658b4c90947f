"""What is configured and what is observed, as two separate models and two file shapes.

Field names, types and defaults are those of the instance files: `docs/new_implementation.md`.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Annotated, Final, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from actors.address import InvalidAddress, parse_address, parse_proxy_address

if TYPE_CHECKING:
    from collections.abc import Mapping

INSTANCE_NAME_PATTERN = r"[A-Za-z0-9._-]{1,64}"
DEFAULT_API_VERSION = "2024-10-21"
"""The last dated GA version of the data plane (learn.microsoft.com, "API lifecycle")."""

PROXY_FIELD: Final = "proxy_url"
"""Of the fields that the model does not declare, the one with a meaning: the HTTP proxy for this
instance, "" for none; without it the environment decides."""

_ENV_REFERENCE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")

InstanceName = Annotated[str, StringConstraints(pattern=rf"^{INSTANCE_NAME_PATTERN}$")]
ModelName = Annotated[str, StringConstraints(min_length=1, max_length=256)]


class InstanceConfig(BaseModel):
    """Static settings of one instance, as an operator wrote them.

    Immutable: a change makes a new object. Unknown fields are kept, so that a file written by a
    newer version survives a round trip; the admin API refuses them before they come here.
    """

    model_config = ConfigDict(frozen=True, extra="allow", hide_input_in_errors=True)

    name: InstanceName
    provider_type: Literal["azure", "generic"] = "azure"
    api_key: Annotated[str, StringConstraints(min_length=1, max_length=4096), Field(repr=False)]
    api_base: Annotated[str, StringConstraints(min_length=1, max_length=2048)]
    api_version: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{1,64}$")] = (
        DEFAULT_API_VERSION
    )
    priority: Annotated[int, Field(ge=0, le=1_000_000, strict=True)] = 100
    weight: Annotated[int, Field(ge=0, le=1_000_000, strict=True)] = 100
    max_tpm: Annotated[int, Field(ge=1, le=10**12, strict=True)] = 240_000
    max_input_tokens: Annotated[int, Field(ge=0, le=10**9, strict=True)] = 0
    supported_models: tuple[ModelName, ...] = ()
    model_deployments: dict[ModelName, ModelName] = Field(default_factory=dict)
    enabled: Annotated[bool, Field(strict=True)] = True
    timeout_seconds: Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)] = 60.0
    retry_count: Annotated[int, Field(ge=0, le=100, strict=True)] = 3

    @field_validator("api_key")
    @classmethod
    def _key_fits_a_header(cls, value: str) -> str:
        if value != value.strip() or not value.isascii() or not value.isprintable():
            raise ValueError("must be printable ASCII without surrounding spaces")
        return value

    @field_validator("api_base")
    @classmethod
    def _base_is_an_http_url(cls, value: str) -> str:
        match = re.fullmatch(r"(https?)://([^/?#@\s]+)(/[^?#\s]*)?", value)
        if match is None or not value.isascii() or not value.isprintable():
            raise ValueError(
                "must be an http:// or https:// URL without user, query or fragment, "
                "such as https://example.openai.azure.com"
            )
        parse_address(value)
        return value.rstrip("/")

    @model_validator(mode="after")
    def _proxy_is_an_http_url(self) -> Self:
        """The error's type names the field: a validator of the whole model gives it no place."""
        url = (self.model_extra or {}).get(PROXY_FIELD)
        if url is None or url == "":
            return self
        if not isinstance(url, str):
            raise PydanticCustomError(PROXY_FIELD, "must be text")
        try:
            parse_proxy_address(url)
        except InvalidAddress as error:
            why = "must be the address of an HTTP proxy, such as http://proxy.example:3128: {error}"
            raise PydanticCustomError(PROXY_FIELD, why, {"error": str(error)}) from error
        return self

    def serves(self, model: str) -> bool:
        """Whether a request for `model` may go here; names match exactly as configured."""
        if self.supported_models:
            return model in self.supported_models
        if self.model_deployments:
            return model in self.model_deployments
        return self.provider_type == "generic"

    def deployment(self, model: str) -> str:
        """The upstream's own name for `model`."""
        return self.model_deployments.get(model, model)

    def models(self) -> tuple[str, ...]:
        """The models named by this configuration; empty for a generic instance that takes any."""
        return self.supported_models or tuple(self.model_deployments)


class UnresolvedReference(ValueError):
    """`api_key` names an environment variable that is not set."""


def resolve_key(api_key: str, environ: Mapping[str, str] = os.environ) -> str:
    """The key itself for a plain `api_key`, or the value of the variable it refers to.

    Errors: `UnresolvedReference` when `${NAME}` is written and NAME is unset or empty.
    """
    match = _ENV_REFERENCE.fullmatch(api_key)
    if match is None:
        return api_key
    value = environ.get(match[1], "").strip()
    if not value:
        raise UnresolvedReference(f"environment variable {match[1]} is not set")
    return value


def is_reference(api_key: str) -> bool:
    """Whether `api_key` is written as `${NAME}`: then it is no secret itself."""
    return _ENV_REFERENCE.fullmatch(api_key) is not None


Status = Literal["healthy", "rate_limited", "error"]
ConnectionStatus = Literal["connected", "disconnected", "unknown"]
HealthStatus = Literal["healthy", "rate_limited", "error", "unknown"]


class InstanceState(BaseModel):
    """What has been observed of one instance. Times are epoch seconds.

    This is the record in the state file and in the admin API; the instance actor keeps the
    facts in its own form and makes one of these when asked.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    name: InstanceName
    status: Status = "healthy"
    error_count: Annotated[int, Field(ge=0, strict=True)] = 0
    last_error: str | None = None
    rate_limited_until: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    current_tpm: Annotated[int, Field(ge=0, strict=True)] = 0
    current_rpm: Annotated[int, Field(ge=0, strict=True)] = 0
    total_requests: Annotated[int, Field(ge=0, strict=True)] = 0
    successful_requests: Annotated[int, Field(ge=0, strict=True)] = 0
    last_used: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    last_error_time: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    avg_latency_ms: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    utilization_percentage: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    connection_status: ConnectionStatus = "unknown"
    health_status: HealthStatus = "unknown"
