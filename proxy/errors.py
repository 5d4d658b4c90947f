"""Errors of our own, in OpenAI's shape: `{"error": {"message", "type", "param", "code"}}`.

What an upstream said is never turned into one of these; it passes through as it came.
"""

from __future__ import annotations

import json
import math


class ProxyError(Exception):
    """An answer that this proxy gives itself.

    `status`, `type`, `code` and `param` follow the OpenAI API reference ("Error codes").
    `retry_after_s`: when the same request could succeed; goes out as both `retry-after-ms` and
    `retry-after`. `should_retry=False` tells the official SDKs not to try again.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        type: str,  # noqa: A002 - OpenAI's name for it
        code: str | None = None,
        param: str | None = None,
        retry_after_s: float | None = None,
        should_retry: bool | None = None,
        close: bool = False,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.type = type
        self.code = code
        self.param = param
        self.retry_after_s = retry_after_s
        self.should_retry = should_retry
        self.close = close
        """The connection can't be used for another request after this answer."""

    def body(self) -> bytes:
        error = {
            "message": self.message,
            "type": self.type,
            "param": self.param,
            "code": self.code,
        }
        return json.dumps({"error": error}).encode()

    def headers(self) -> list[tuple[bytes, bytes]]:
        """`content-type` and whatever helps the client decide when to come back."""
        headers = [(b"content-type", b"application/json")]
        if self.retry_after_s is not None:
            milliseconds = max(1, math.ceil(self.retry_after_s * 1000))
            headers.append((b"retry-after-ms", b"%d" % milliseconds))
            headers.append((b"retry-after", b"%d" % math.ceil(milliseconds / 1000)))
        if self.should_retry is not None:
            headers.append((b"x-should-retry", b"true" if self.should_retry else b"false"))
        if self.close:
            headers.append((b"connection", b"close"))
        return headers


class BadRequest(ProxyError):
    """The client's request is wrong in itself."""

    def __init__(
        self, message: str, *, param: str | None = None, code: str | None = None, status: int = 400
    ) -> None:
        super().__init__(status, message, type="invalid_request_error", code=code, param=param)


class BodyTooLarge(ProxyError):
    def __init__(self, limit_bytes: int) -> None:
        super().__init__(
            413,
            f"The request body is larger than {limit_bytes} bytes, the most that this proxy "
            "accepts (MAX_REQUEST_BYTES).",
            type="invalid_request_error",
            code="request_too_large",
            close=True,
        )


class RequestTimeout(ProxyError):
    def __init__(self, seconds: float) -> None:
        super().__init__(
            408,
            f"The request was not complete within {seconds:g} seconds (REQUEST_TIMEOUT_SECONDS).",
            type="invalid_request_error",
            code="request_timeout",
            close=True,
        )


class Unauthorized(ProxyError):
    def __init__(self, message: str) -> None:
        super().__init__(
            401, message, type="invalid_request_error", code="invalid_api_key", should_retry=False
        )


class NotFound(ProxyError):
    def __init__(self, message: str, *, code: str | None = None, param: str | None = None) -> None:
        super().__init__(404, message, type="invalid_request_error", code=code, param=param)


class MethodNotAllowed(ProxyError):
    """Says which methods would be (RFC 9110, section 15.5.6)."""

    def __init__(self, method: str, allowed: tuple[str, ...]) -> None:
        super().__init__(
            405,
            f"{method} is not allowed here; use {allowed[0]}.",
            type="invalid_request_error",
            code="method_not_allowed",
        )
        self.allowed = allowed

    def headers(self) -> list[tuple[bytes, bytes]]:
        return [*super().headers(), (b"allow", ", ".join(self.allowed).encode())]
