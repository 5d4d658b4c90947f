"""The head of a request as it goes over the wire."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from proxy.exchange.ports import UpstreamFailure

if TYPE_CHECKING:
    from proxy.exchange.ports import Headers, UploadBody
    from proxy.upstream.origin import Origin

_TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_TARGET: Final = re.compile(r'[!"$-~]+')
"""Printable ASCII but `#`, which is nobody's business on the wire."""
_BODILESS: Final = frozenset({"GET", "HEAD", "DELETE", "OPTIONS", "CONNECT", "TRACE"})
"""Methods for which an absent body is not worth a `content-length: 0` (RFC 9110 section 8.6)."""


def opening(origin: Origin, method: str, target: str) -> bytes:
    """Everything before the caller's headers; the same for every request to this target.

    A plain-http request through a proxy names the whole address and brings the credentials for
    the proxy (RFC 9112 section 3.2.2). Errors: `UpstreamFailure` for a method or target that is
    none.
    """
    if not _TOKEN.fullmatch(method) or not _TARGET.fullmatch(target):
        raise UpstreamFailure("send", "other", "the method or the address is malformed")
    proxy = origin.proxy if origin.scheme == "http" else None
    if proxy is not None:
        target = f"http://{origin.authority}{target}"
    lines = f"{method} {target} HTTP/1.1\r\nhost: {origin.authority}\r\n".encode()
    if proxy is not None and proxy.authorization is not None:
        lines += b"proxy-authorization: " + proxy.authorization + b"\r\n"
    return lines


def head(opening: bytes, method: str, headers: Headers, body: bytes | UploadBody) -> bytes:
    """The complete head. Errors: `UpstreamFailure` if a header would break out of its line."""
    block = b"\r\n".join([*map(b": ".join, headers), b""])
    if not block.count(b"\n") == block.count(b"\r") == len(headers) or b"\0" in block:
        raise UpstreamFailure("send", "other", "a header holds a line break")
    return b"%b%b%b\r\n" % (opening, block, _framing(method, body))


def _framing(method: str, body: bytes | UploadBody) -> bytes:
    length = len(body) if isinstance(body, bytes) else body.length
    if length is None:
        return b"transfer-encoding: chunked\r\n"
    if length == 0 and method in _BODILESS:
        return b""
    return b"content-length: %d\r\n" % length
