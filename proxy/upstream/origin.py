"""Where a connection leads: scheme, host, port, and the proxy in between if there is one."""

from __future__ import annotations

from base64 import b64encode
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias
from urllib.parse import SplitResult, unquote, urlsplit

Scheme: TypeAlias = Literal["http", "https"]
DEFAULT_PORTS: Final = {"http": 80, "https": 443}


class InvalidAddress(ValueError):
    """The text is no `http://` or `https://` address. Says why without repeating it: it may hold
    a password."""


@dataclass(frozen=True, slots=True)
class Proxy:
    """An HTTP proxy on the way. `authorization`: the value for `proxy-authorization`."""

    scheme: Scheme
    host: str
    port: int
    authorization: bytes | None = field(default=None, repr=False)

    @classmethod
    def parse(cls, url: str) -> Proxy:
        """Reads `http://user:password@host:port`; without a scheme `http` is meant.

        Errors: `InvalidAddress`.
        """
        parts = _split(url if "://" in url else f"http://{url}")
        scheme, host, port = _address(parts)
        authorization = None
        if parts.username is not None:
            credentials = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            authorization = b"Basic " + b64encode(credentials.encode())
        return cls(scheme, host, port, authorization)


@dataclass(frozen=True, slots=True)
class Origin:
    """One server, and how it is reached. Connections are shared by whatever has an equal one."""

    scheme: Scheme
    host: str
    port: int
    proxy: Proxy | None = None

    @classmethod
    def parse(cls, url: str, proxy: Proxy | None = None) -> Origin:
        """The origin of an absolute URL. Errors: `InvalidAddress`."""
        scheme, host, port = _address(_split(url))
        return cls(scheme, host, port, proxy)

    @property
    def authority(self) -> str:
        """`host`, or `host:port` where the port is not the scheme's own."""
        if self.port == DEFAULT_PORTS[self.scheme]:
            return bracketed(self.host)
        return f"{bracketed(self.host)}:{self.port}"


def bracketed(host: str) -> str:
    """`host` as it is written before a port: an IPv6 address needs brackets."""
    return f"[{host}]" if ":" in host else host


def target_of(url: str) -> str:
    """What of an absolute URL follows the authority: path and query, at least `/`."""
    rest = url.partition("://")[2]
    slash, question = rest.find("/"), rest.find("?")
    if slash >= 0 and (question < 0 or slash < question):
        return rest[slash:]
    return f"/{rest[question:]}" if question >= 0 else "/"


def _split(url: str) -> SplitResult:
    try:
        return urlsplit(url)
    except ValueError as error:
        raise InvalidAddress("the address is malformed") from error


def _address(parts: SplitResult) -> tuple[Scheme, str, int]:
    scheme: Scheme
    if parts.scheme == "https":
        scheme = "https"
    elif parts.scheme == "http":
        scheme = "http"
    else:
        raise InvalidAddress("the scheme must be http or https")
    try:
        port = parts.port
    except ValueError as error:
        raise InvalidAddress("the port must be a number from 1 to 65535") from error
    if port == 0:
        raise InvalidAddress("the port must be a number from 1 to 65535")
    if not parts.hostname:
        raise InvalidAddress("the host is missing")
    return scheme, parts.hostname, port or DEFAULT_PORTS[scheme]
