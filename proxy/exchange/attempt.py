"""One attempt under a lease: the request as this instance wants it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from proxy.exchange.ports import UpstreamRequest
from proxy.exchange.rewrite import with_fields
from proxy.upstream.address import dated_surface

if TYPE_CHECKING:
    from collections.abc import Container

    from actors.lease import Lease
    from actors.models import InstanceConfig
    from proxy.exchange.call import Call
    from proxy.exchange.ports import Headers
    from proxy.exchange.upload import Upload
    from proxy.upstream.address import AddressBook

UsageLearned: TypeAlias = Literal["from the answer", "by asking", "by counting"]
Surface: TypeAlias = "tuple[str, str]"
"""What decides which fields an upstream knows: address and version."""

USAGE_SINCE: Final = "2024-09-01"
"""First dated API that takes `stream_options` (learn.microsoft.com, "API lifecycle"); earlier ones
answer 400 (openai/openai-python#1469)."""


def upstream_request(
    call: Call,
    lease: Lease,
    headers: Headers,
    query: bytes,
    *,
    ask_usage: bool,
    addresses: AddressBook,
) -> UpstreamRequest:
    """The request for the lease's instance. `headers`: the client's, already filtered.

    `ask_usage`: put `stream_options.include_usage` into it. Errors: `NotFound` for a deployment
    that no path can name, `UnresolvedReference` for a key that is not set, `BadRequest` for a
    body that can't be rewritten.
    """
    config = lease.config
    operation = call.operation
    return UpstreamRequest(
        config=config,
        method="POST",
        url=addresses.endpoint(
            config,
            operation.path,
            lease.deployment if operation.deployment_scoped else None,
            query,
        ),
        headers=[*headers, addresses.auth_header(config)],
        body=_body(call, lease.deployment, config, ask_usage=ask_usage),
        timeout_s=config.timeout_seconds,
        silence_s=config.timeout_seconds,
        whole_s=config.timeout_seconds,
    )


def _body(
    call: Call, deployment: str, config: InstanceConfig, *, ask_usage: bool
) -> bytes | Upload:
    named_by_path = path_names_model(call, config)
    body = call.body
    if not isinstance(body, bytes):
        field = call.form_model
        if field is not None:
            body.replace(field, field.value if named_by_path else deployment)
        body.rewind()
        return body
    document = call.document
    fields: dict[str, Any] = {}
    if not named_by_path and document.get("model") != deployment:
        fields["model"] = deployment
    if ask_usage:
        options = document.get("stream_options")
        kept = options if isinstance(options, dict) else {}
        fields["stream_options"] = {**kept, "include_usage": True}
    return with_fields(body, document, fields) if fields else body


def path_names_model(call: Call, config: InstanceConfig) -> bool:
    """Whether the upstream takes the model from the path and ignores the body's."""
    return call.operation.deployment_scoped and dated_surface(config)


def usage_learned(call: Call, config: InstanceConfig, refusing: Container[Surface]) -> UsageLearned:
    """How the usage of an answer becomes known. `refusing`: surfaces that turned out not to take
    `stream_options`; there each event of a stream is taken for a token."""
    if not (call.stream and call.operation.stream_usage) or call.asks_usage:
        return "from the answer"
    if takes_stream_options(config) and surface(config) not in refusing:
        return "by asking"
    return "by counting"


def surface(config: InstanceConfig) -> Surface:
    return config.api_base, config.api_version


def takes_stream_options(config: InstanceConfig) -> bool:
    """Whether this upstream's API version knows `stream_options`, as far as can be told from it."""
    return not dated_surface(config) or config.api_version[: len(USAGE_SINCE)] >= USAGE_SINCE
