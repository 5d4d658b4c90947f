"""Which headers cross the proxy, in both directions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from proxy.exchange.ports import Headers

HOP_BY_HOP: Final = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
"""RFC 9110 section 7.6.1, with the older `Keep-Alive` and `Proxy-Connection`."""

NOT_FORWARDED: Final = HOP_BY_HOP | {
    # Ours to set for the upstream
    b"host",
    b"content-length",
    b"expect",
    b"accept-encoding",
    # Credentials: the upstream gets the instance's own and no other
    b"authorization",
    b"api-key",
    b"x-api-key",
    b"ocp-apim-subscription-key",
    b"x-admin-api-key",
    b"cookie",
    b"cookie2",
    # They go with the client's account; with ours the upstream would answer 401
    b"openai-organization",
    b"openai-project",
    # The client's business with us, or with whoever stands before us
    b"origin",
    b"referer",
    b"forwarded",
    b"via",
    b"x-real-ip",
    b"true-client-ip",
    b"x-request-id",
    b"x-max-wait-ms",
    b"x-priority",
}
NOT_FORWARDED_PREFIXES: Final = (b"x-forwarded-", b"x-stainless-", b"x-proxy-", b"sec-", b"cf-")

STANDARD: Final = frozenset(
    {b"accept", b"accept-language", b"content-type", b"user-agent", b"content-encoding"}
)
MAX_CUSTOM: Final = 10
"""Azure answers 431 to more custom request headers than this (learn.microsoft.com, "Troubleshoot
errors", 2026)."""

NOT_RETURNED: Final = HOP_BY_HOP | {
    b"set-cookie",
    b"set-cookie2",
    b"content-length",
    # About the upstream's own address, not ours (RFC 7838 section 2.1)
    b"alt-svc",
    # An upstream may be a proxy like this one: these are ours to say
    b"x-proxy-instance",
    b"x-proxy-attempts",
    b"x-request-id",
}
UPSTREAM_REQUEST_ID: Final = b"x-upstream-request-id"
_PLAIN_OPTIONS: Final = frozenset({b"keep-alive", b"Keep-Alive", b"close"})
"""Values of `Connection` that name no header."""


def forwarded(headers: Headers) -> Headers:
    """The client's headers that go to the upstream, with an `accept-encoding` of our own.

    We ask for plain answers: usage has to be read from them, and on the way to the client
    nothing is gained inside a data centre by compressing a few kilobytes. Of the custom headers
    the first `MAX_CUSTOM` go on.
    """
    kept: Headers = []
    custom = 0
    for pair in headers:
        name = pair[0]
        if name in NOT_FORWARDED:
            if name == b"connection" and pair[1] not in _PLAIN_OPTIONS:
                return forwarded(_without_named(headers))
        elif name in STANDARD:
            kept.append(pair)
        elif custom < MAX_CUSTOM and not name.startswith(NOT_FORWARDED_PREFIXES):
            custom += 1
            kept.append(pair)
    kept.append((b"accept-encoding", b"identity"))
    return kept


def returned(headers: Headers, instance: bytes, request_id: bytes) -> Headers:
    """The upstream's headers that go to the client, and the two that say who answered.

    `content-length` is left to whoever knows that the body is unchanged. The upstream's own
    `x-request-id` makes room for ours and keeps a name.
    """
    kept: Headers = []
    for pair in headers:
        name = pair[0]
        if name not in NOT_RETURNED:
            kept.append(pair)
        elif name == b"x-request-id":
            kept.append((UPSTREAM_REQUEST_ID, pair[1]))
        elif name == b"connection" and pair[1] not in _PLAIN_OPTIONS:
            return returned(_without_named(headers), instance, request_id)
    kept.append((b"x-proxy-instance", instance))
    kept.append((b"x-request-id", request_id))
    return kept


def _without_named(headers: Headers) -> Headers:
    """Without `Connection` and what it lists: those end at this hop (RFC 9110 section 7.6.1)."""
    named = {b"connection"}
    for name, value in headers:
        if name == b"connection":
            named.update(option.strip() for option in value.lower().split(b","))
    return [pair for pair in headers if pair[0] not in named]


def header(headers: Headers, name: bytes) -> bytes | None:
    """The first value of `name`, or None."""
    for key, value in headers:
        if key == name:
            return value
    return None


def is_event_stream(headers: Headers) -> bool:
    """Whether the body is a stream of server-sent events."""
    content_type = header(headers, b"content-type")
    if content_type is None or content_type[:5].lower() != b"text/":
        return False
    return content_type.partition(b";")[0].strip().lower() == b"text/event-stream"
