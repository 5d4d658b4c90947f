"""Opens links: name look-up, TCP, the way through a proxy, TLS."""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import trio

from proxy.exchange.ports import UpstreamFailure
from proxy.upstream.answer import Answer
from proxy.upstream.failure import failure
from proxy.upstream.link import SocketLink
from proxy.upstream.origin import bracketed
from proxy.upstream.tls import TlsLink, client_context, prepare

if TYPE_CHECKING:
    import ssl

    from proxy.upstream.link import Link
    from proxy.upstream.origin import Origin, Proxy

SESSIONS_LIMIT: Final = 4096
KEEPALIVE_S: Final = 60
"""After so much silence the kernel asks whether the peer is still there, which also keeps
load balancers and NAT from forgetting a connection on which a model thinks for minutes."""


class SocketDialer:
    """Dials over the network. One for all pools: it keeps the TLS sessions of all origins, so
    that a new connection to a known one needs no full handshake."""

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        """`context`: instead of one that trusts the system's certificates."""
        if context is not None:
            prepare(context)
        self._context = context
        self._loading = trio.Lock()
        self._sessions: dict[Origin | Proxy, ssl.SSLSession] = {}

    async def dial(self, origin: Origin) -> Link:
        """Errors: `UpstreamFailure`. Cancellation leaves nothing open."""
        try:
            return await self._dial(origin)
        except (OSError, trio.ClosedResourceError) as error:
            raise failure("connect", error) from error

    async def _dial(self, origin: Origin) -> Link:
        proxy = origin.proxy
        hop = proxy or origin
        link: Link = await connect(hop.host, hop.port)
        try:
            if proxy is not None and proxy.scheme == "https":
                link = await self._secure(link, proxy)
            if origin.scheme == "https":
                if proxy is not None:
                    await tunnel(link, proxy, f"{bracketed(origin.host)}:{origin.port}")
                link = await self._secure(link, origin)
        except BaseException:
            link.close()
            raise
        return link

    async def _secure(self, link: Link, peer: Origin | Proxy) -> TlsLink:
        def keep(session: ssl.SSLSession) -> None:
            if len(self._sessions) >= SESSIONS_LIMIT:
                self._sessions.clear()
            self._sessions[peer] = session

        secured = TlsLink(link, await self._tls(), peer.host, self._sessions.get(peer), keep)
        await secured.handshake()
        return secured

    async def _tls(self) -> ssl.SSLContext:
        async with self._loading:
            if self._context is None:
                self._context = await trio.to_thread.run_sync(client_context)
            return self._context


async def connect(host: str, port: int) -> SocketLink:
    """A TCP connection to whichever address of `host` answers first (RFC 8305).

    Errors: `OSError`. trio's stream sets TCP_NODELAY.
    """
    stream = await trio.open_tcp_stream(host, port)
    with suppress(OSError):  # Without these it works as well, only less long.
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option in ("TCP_KEEPIDLE", "TCP_KEEPINTVL"):
            if hasattr(socket, option):
                stream.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), KEEPALIVE_S)
    return SocketLink(socket.socket(fileno=stream.socket.detach()))


async def tunnel(link: Link, proxy: Proxy, authority: str) -> None:
    """Makes the proxy at the other end pass everything on to `authority` from now on (RFC 9110
    section 9.3.6). Errors: `UpstreamFailure`, and those of `link`."""
    head = f"CONNECT {authority} HTTP/1.1\r\nhost: {authority}\r\n".encode()
    if proxy.authorization is not None:
        head += b"proxy-authorization: " + proxy.authorization + b"\r\n"
    if not link.write(head + b"\r\n"):
        await link.drain()
    answer = Answer()
    answer.expect("CONNECT")
    while not answer.head_complete and answer.failed is None:
        if data := await link.receive():
            answer.feed(data)
        else:
            answer.end()
    answer.discard()
    if answer.failed is not None:
        raise UpstreamFailure("connect", answer.failed[0], f"proxy: {answer.failed[1]}")
    if not 200 <= answer.status < 300:
        raise UpstreamFailure("connect", "other", f"the proxy answered {answer.status}")
