"""Where a connection leads: scheme, host, port, and the proxy in between if there is one."""

from __future__ import annotations

from base64 import b64encode
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import unquote

from actors.address import DEFAULT_PORTS, parse_address, parse_proxy_address

if TYPE_CHECKING:
    from actors.address import Scheme


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

        Errors: `InvalidAddress` (`actors.address`).
        """
        scheme, host, port, user, password = parse_proxy_address(url)
        authorization = None
        if user is not None:
            credentials = f"{unquote(user)}:{unquote(password or '')}"
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
        address = parse_address(url)
        return cls(address.scheme, address.host, address.port, proxy)

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
