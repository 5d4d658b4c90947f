"""The way to a server, as the environment has it: `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY`,
`NO_PROXY`.

There is no standard for these; this follows what curl documents ("Environment"), lower case
before upper case. Address ranges in `NO_PROXY`, and that this machine itself is always reached
directly, are as most Go programs have it (golang.org/x/net/http/httpproxy).
"""

from __future__ import annotations

import os
from dataclasses import replace
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, Final

from actors.address import InvalidAddress
from proxy.exchange.ports import UpstreamFailure
from proxy.upstream.origin import Origin, Proxy

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_VARIABLES: Final = ("https_proxy", "http_proxy", "all_proxy")


def proxy_for(
    scheme: str, host: str, port: int, environ: Mapping[str, str] = os.environ
) -> Proxy | None:
    """The proxy through which `host` is to be reached, None for directly.

    Errors: `InvalidAddress` when the variable holds no address of an HTTP proxy.
    """
    url = _variable(environ, f"{scheme}_proxy") or _variable(environ, "all_proxy")
    if not url or _is_loopback(host) or _exempt(host, port, _variable(environ, "no_proxy")):
        return None
    return Proxy.parse(url)


def origin_of(
    url: str, environ: Mapping[str, str] = os.environ, proxy_url: str | None = None
) -> Origin:
    """Where `url` leads, and the way there: through the proxy at `proxy_url`, through none if that
    is empty, or as the environment says if there is none.

    Errors: `UpstreamFailure` when an address is none.
    """
    try:
        direct = Origin.parse(url)
        if proxy_url is None:
            proxy = proxy_for(direct.scheme, direct.host, direct.port, environ)
        else:
            proxy = Proxy.parse(proxy_url) if proxy_url else None
    except InvalidAddress as error:
        raise UpstreamFailure("connect", "other", f"address or proxy: {error}") from error
    return replace(direct, proxy=proxy)


def unusable_variables(environ: Mapping[str, str] = os.environ) -> Iterator[str]:
    """A sentence for each variable that names no HTTP proxy; not what it says, which may hold a
    password."""
    for name in _VARIABLES:
        try:
            if url := _variable(environ, name):
                Proxy.parse(url)
        except InvalidAddress as error:
            yield f"{name.upper()} can't be used as an HTTP proxy: {error}"


def _variable(environ: Mapping[str, str], name: str) -> str:
    return (environ.get(name) or environ.get(name.upper()) or "").strip()


def _is_loopback(host: str) -> bool:
    if host.rstrip(".") == "localhost":
        return True
    return _in_network(host, "127.0.0.0/8") or _in_network(host, "::1/128")


def _exempt(host: str, port: int, no_proxy: str) -> bool:
    host = host.lower().rstrip(".")
    return any(_matches(entry, host, port) for entry in no_proxy.lower().replace(",", " ").split())


def _matches(entry: str, host: str, port: int) -> bool:
    if entry == "*":
        return True
    if _in_network(host, entry.strip("[]")):
        return True
    name, colon, entry_port = entry.rpartition(":")
    if colon and entry_port.isdigit():
        if int(entry_port) != port:
            return False
        entry = name.strip("[]")
    domain = entry.removeprefix("*").strip(".")
    return bool(domain) and (host == domain or host.endswith(f".{domain}"))


def _in_network(host: str, entry: str) -> bool:
    """Whether both are IP addresses (the entry perhaps a range) and the one is in the other."""
    try:
        return ip_address(host) in ip_network(entry, strict=False)
    except ValueError:
        return False
