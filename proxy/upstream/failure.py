"""I/O exceptions as `UpstreamFailure`, in words that name no key and no content."""

from __future__ import annotations

import socket
import ssl
from typing import TYPE_CHECKING

from proxy.exchange.ports import UpstreamFailure

if TYPE_CHECKING:
    from collections.abc import Iterator

    from proxy.exchange.ports import FailureKind, Phase


def failure(phase: Phase, error: Exception, *, answered: bool = False) -> UpstreamFailure:
    """`error` came from a link or from connecting one; the result is to be raised from it."""
    for cause in _causes(error):
        kind = _kind(phase, cause)
        if kind != "other":
            return UpstreamFailure(phase, kind, _words(cause), answered=answered)
    return UpstreamFailure(phase, "other", _words(error), answered=answered)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and what led to it: trio reports several failed addresses as one."""
    yield error
    if isinstance(error, BaseExceptionGroup):
        for member in error.exceptions:
            yield from _causes(member)
    elif error.__cause__ is not None:
        yield from _causes(error.__cause__)


def _kind(phase: Phase, error: BaseException) -> FailureKind:
    match error:
        case ConnectionRefusedError():
            return "refused"
        case socket.gaierror():
            return "dns"
        case ssl.SSLEOFError() if phase != "connect":
            return "reset"
        case ssl.SSLError():
            return "tls"
        case TimeoutError():
            return "timeout"
        case ConnectionError():
            return "reset"
        case _:
            return "other"


def _words(error: BaseException) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return type(error).__name__
