"""What an `http://` or `https://` address says of where a server is."""

from __future__ import annotations

from typing import Final, Literal, NamedTuple, TypeAlias
from urllib.parse import urlsplit

Scheme: TypeAlias = Literal["http", "https"]
DEFAULT_PORTS: Final = {"http": 80, "https": 443}


class InvalidAddress(ValueError):
    """The text is no `http://` or `https://` address. Says why without repeating it: it may hold
    a password."""


class Address(NamedTuple):
    """`host`: in lower case, an IPv6 address without brackets. `user`, `password`: as written."""

    scheme: Scheme
    host: str
    port: int
    user: str | None
    password: str | None


def parse_address(url: str) -> Address:
    """The server of an absolute URL. Errors: `InvalidAddress`."""
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise InvalidAddress("the address is malformed") from error
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
    return Address(
        scheme, parts.hostname, port or DEFAULT_PORTS[scheme], parts.username, parts.password
    )


def parse_proxy_address(url: str) -> Address:
    """The proxy that `url` names; without a scheme `http` is meant. Errors: `InvalidAddress`."""
    return parse_address(url if "://" in url else f"http://{url}")
