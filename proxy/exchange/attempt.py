"""One attempt under a lease: the request as this instance wants it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from proxy.exchange.call import with_model, with_usage_asked
from proxy.exchange.ports import UpstreamRequest
from proxy.upstream.address import auth_header, endpoint

if TYPE_CHECKING:
    from actors.lease import Lease
    from actors.models import InstanceConfig
    from proxy.exchange.call import Call
    from proxy.exchange.ports import Headers
    from proxy.exchange.upload import Upload

USAGE_SINCE: Final = "2024-09-01"
"""First dated API that takes `stream_options` (learn.microsoft.com, "API lifecycle"); earlier ones
answer 400 (openai/openai-python#1469)."""
_DATED: Final = re.compile(r"\d{4}-\d{2}-\d{2}")


def upstream_request(
    call: Call, lease: Lease, headers: Headers, query: bytes, *, ask_usage: bool
) -> UpstreamRequest:
    """The request for the lease's instance. `headers`: the client's, already filtered.

    `ask_usage`: put `stream_options.include_usage` into it.
    """
    config = lease.config
    operation = call.operation
    return UpstreamRequest(
        config=config,
        method="POST",
        url=endpoint(
            config,
            operation.path,
            deployment=lease.deployment if operation.deployment_scoped else None,
            query=query,
        ),
        headers=[*headers, auth_header(config)],
        body=_body(call, lease.deployment, config, ask_usage=ask_usage),
        timeout_s=config.timeout_seconds,
        silence_s=config.timeout_seconds,
    )


def _body(
    call: Call, deployment: str, config: InstanceConfig, *, ask_usage: bool
) -> bytes | Upload:
    body = call.body
    if not isinstance(body, bytes):
        if call.form_model is not None and not path_names_model(call, config):
            body.replace(call.form_model, deployment)
        body.rewind()
        return body
    document = call.document
    if document.get("model") != deployment and not path_names_model(call, config):
        body = with_model(body, document, deployment)
    if ask_usage:
        body = with_usage_asked(body, document)
    return body


def path_names_model(call: Call, config: InstanceConfig) -> bool:
    """Whether the upstream takes the model from the path and ignores the body's."""
    return (
        config.provider_type == "azure"
        and call.operation.deployment_scoped
        and _DATED.match(config.api_version) is not None
    )


def takes_stream_options(config: InstanceConfig) -> bool:
    """Whether this upstream's API version knows `stream_options`."""
    if config.provider_type != "azure" or _DATED.match(config.api_version) is None:
        return True
    return config.api_version[: len(USAGE_SINCE)] >= USAGE_SINCE
