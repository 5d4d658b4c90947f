"""Which headers cross the proxy, in both directions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

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
    b"authorization",
    b"api-key",
    b"accept-encoding",
    # The client's business with us, or with whoever stands before us
    b"cookie",
    b"origin",
    b"referer",
    b"forwarded",
    b"via",
    b"x-real-ip",
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

NOT_RETURNED: Final = HOP_BY_HOP | {b"set-cookie", b"set-cookie2", b"content-length"}
UPSTREAM_REQUEST_ID: Final = b"x-upstream-request-id"


def forwarded(headers: Headers) -> Headers:
    """The client's headers that go to the upstream, with an `accept-encoding` of our own.

    We ask for plain answers: usage has to be read from them, and on the way to the client
    nothing is gained inside a data centre by compressing a few kilobytes.
    """
    named = connection_options(headers)
    kept: Headers = []
    custom = 0
    for header in headers:
        name = header[0]
        if name in NOT_FORWARDED or name.startswith(NOT_FORWARDED_PREFIXES) or name in named:
            continue
        if name not in STANDARD:
            custom += 1
            if custom > MAX_CUSTOM:
                continue
        kept.append(header)
    kept.append((b"accept-encoding", b"identity"))
    return kept


def returned(headers: Headers, instance: bytes, request_id: bytes) -> Headers:
    """The upstream's headers that go to the client, and the two that say who answered.

    `content-length` is left to whoever knows that the body is unchanged. The upstream's own
    `x-request-id` makes room for ours and keeps a name.
    """
    named = connection_options(headers)
    kept = [
        (UPSTREAM_REQUEST_ID if name == b"x-request-id" else name, value)
        for name, value in headers
        if name not in NOT_RETURNED and name not in named
    ]
    kept.append((b"x-proxy-instance", instance))
    kept.append((b"x-request-id", request_id))
    return kept


def connection_options(headers: Headers) -> Iterable[bytes]:
    """Header names that `Connection` lists: they end at this hop (RFC 9110 section 7.6.1)."""
    for name, value in headers:
        if name == b"connection" and value.lower() not in (b"keep-alive", b"close"):
            return {option.strip() for option in value.lower().split(b",")}
    return ()


def header(headers: Headers, name: bytes) -> bytes | None:
    """The first value of `name`, or None."""
    for key, value in headers:
        if key == name:
            return value
    return None
