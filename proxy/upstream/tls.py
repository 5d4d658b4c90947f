"""TLS over any link.

Not `trio.SSLStream`, for the reason given in `link`, and because a pool must be able to close a
connection without waiting and to see whether something has arrived on an idle one.
"""

from __future__ import annotations

import ssl
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from proxy.upstream.link import RECEIVE_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable

    from proxy.upstream.link import Link

PIECE_BYTES: Final = 262_144
"""How much is encrypted in one go: about 0.2 ms of the event loop."""


def client_context() -> ssl.SSLContext:
    """A context that verifies the peer's chain and name. Reads the system's certificates, which
    takes some 10 to 100 ms: not for the event loop."""
    context = ssl.create_default_context()
    prepare(context)
    return context


def prepare(context: ssl.SSLContext) -> None:
    """Makes `context` fit for `TlsLink`: HTTP/1.1 and no renegotiation.

    A renegotiation (TLS 1.2) would need `receive` to send.
    """
    context.set_alpn_protocols(["http/1.1"])
    context.options |= ssl.OP_NO_RENEGOTIATION


class TlsLink:
    """A link that encrypts what goes through the inner one, which it owns from now on.

    `handshake` comes before anything else. What TLS itself has to say after the handshake (the
    answer to a key update) leaves with the next data, as RFC 8446 section 4.6.3 allows, so that
    only the writer ever sends.

    An end that the peer did not announce (no close_notify) is an error, `ssl.SSLEOFError`: it
    may be an attacker's cut (RFC 9112 section 9.8).
    """

    __slots__ = ("_incoming", "_inner", "_new_session", "_outgoing", "_tls", "_unencrypted")

    def __init__(
        self,
        inner: Link,
        context: ssl.SSLContext,
        host: str,
        session: ssl.SSLSession | None,
        new_session: Callable[[ssl.SSLSession], None],
    ) -> None:
        """`session`: one to resume. `new_session` is called once there is one to keep."""
        self._inner = inner
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(
            self._incoming, self._outgoing, server_hostname=host, session=session
        )
        self._new_session: Callable[[ssl.SSLSession], None] | None = new_session
        self._unencrypted = memoryview(b"")

    async def handshake(self) -> None:
        """The peer is who it should be. Errors: as all of `Link`'s."""
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                await self._flush()
                self._take(await self._inner.receive())
            except ssl.SSLError:
                with suppress(OSError):  # The alert that tells the peer why; it need not arrive.
                    self._inner.write(self._outgoing.read())
                raise
            else:
                return await self._flush()

    @property
    def resumed(self) -> bool:
        """Whether the handshake was a short one."""
        return bool(self._tls.session_reused)

    def write(self, data: bytes) -> bool:
        if self._unencrypted:
            self._unencrypted = memoryview(bytes(self._unencrypted) + data)
            return False
        self._unencrypted = memoryview(data)
        return self._encrypt_piece()

    def _encrypt_piece(self) -> bool:
        piece, self._unencrypted = (
            self._unencrypted[:PIECE_BYTES],
            self._unencrypted[PIECE_BYTES:],
        )
        while piece:
            piece = piece[self._tls.write(piece) :]
        return self._inner.write(self._outgoing.read()) and not self._unencrypted

    async def drain(self) -> None:
        await self._inner.drain()
        while self._unencrypted:
            if not self._encrypt_piece():
                await self._inner.drain()

    async def receive(self) -> bytes:
        while True:
            data = self._decrypt()
            if data is not None:
                if self._new_session is not None:
                    self._keep_session(self._new_session)
                return data
            self._take(await self._inner.receive())

    def _decrypt(self) -> bytes | None:
        """All that can be decrypted now, b"" at the announced end, None if there is nothing."""
        pieces = []
        try:
            while piece := self._tls.read(RECEIVE_BYTES):
                pieces.append(piece)
                if not self._incoming.pending and not self._tls.pending():
                    break
        except ssl.SSLWantReadError:
            if not pieces:
                return None
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _take(self, received: bytes) -> None:
        if received:
            self._incoming.write(received)
        else:
            self._incoming.write_eof()

    async def _flush(self) -> None:
        if not self._inner.write(self._outgoing.read()):
            await self._inner.drain()

    def _keep_session(self, new_session: Callable[[ssl.SSLSession], None]) -> None:
        # With TLS 1.3 the ticket comes after the handshake, as a rule before the first data.
        self._new_session = None
        session = self._tls.session
        if session is not None:
            new_session(session)

    def readable(self) -> bool:
        return bool(self._incoming.pending or self._tls.pending()) or self._inner.readable()

    def close(self) -> None:
        """Without close_notify: every message that matters here has its own end."""
        self._inner.close()
