"""A client's socket as a trio stream that costs one wait per read and none per write."""

from __future__ import annotations

import socket
import struct
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from proxy.server.limits import Limits

RECEIVE_BYTES = 64 * 1024
"""The most that one read returns; also what a connection holds in memory at the most, beside a
head that is not complete."""

UNSENT_BYTES = 16 * 1024
"""How much the kernel takes before a client counts as slow (TCP_NOTSENT_LOWAT): enough to keep a
line busy, little enough that a slow reader slows its upstream soon."""

SENDS_PER_CHECKPOINT = 16
"""Sends that the kernel takes whole return without a checkpoint, which would cost as much as the
send itself; after this many in a row one is made, so that a fast upstream and a fast client
together can't keep everybody else waiting for more than about a millisecond."""

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class ClientSocket(trio.abc.HalfCloseableStream):
    """Owns a connected, non-blocking TCP socket.

    Differs from `trio.SocketStream` where that costs time on every request: reading waits first
    (between requests there is nothing to read yet, and the wait is the checkpoint), and sending
    is no checkpoint while the kernel takes everything (see `SENDS_PER_CHECKPOINT`).
    One task reads, one task sends.
    """

    def __init__(self, sock: socket.socket, limits: Limits) -> None:
        self.socket = sock
        """Hypercorn asks it for the addresses."""
        self._send_stall_s = limits.send_stall_s
        self._linger_s = limits.linger_s
        self._lingering = False
        self._sends = 0
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if hasattr(socket, "TCP_NOTSENT_LOWAT"):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)

    @classmethod
    def adopt(cls, accepted: trio.SocketStream, limits: Limits) -> ClientSocket:
        """Takes the socket out of a stream that trio accepted. Never blocks."""
        sock = socket.socket(fileno=accepted.socket.detach())
        sock.setblocking(False)
        return cls(sock, limits)

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """What has arrived; b"" when the client has closed its side. Always a checkpoint.

        Errors: `trio.BrokenResourceError`, `trio.ClosedResourceError`.
        """
        sock = self.socket
        try:
            while True:
                await trio.lowlevel.wait_readable(sock)
                try:
                    return sock.recv(max_bytes or RECEIVE_BYTES)
                except BlockingIOError:
                    continue
        except trio.BusyResourceError:
            raise trio.ClosedResourceError("this connection is being closed") from None
        except (OSError, ValueError) as error:
            raise self._failure(error) from error

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Hands all of `data` to the kernel. A checkpoint only now and then, and when it waits.

        Errors: `trio.BrokenResourceError`, also when the client takes nothing for the time that
        it may stall; `trio.ClosedResourceError`.
        """
        try:
            sent = self.socket.send(data)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            raise self._failure(error) from error
        if sent == len(data):
            self._sends += 1
            if self._sends >= SENDS_PER_CHECKPOINT:
                self._sends = 0
                await trio.lowlevel.checkpoint()
            return
        with memoryview(data) as view:
            await self._send_rest(view[sent:])

    async def _send_rest(self, view: memoryview) -> None:
        while view:
            await self.wait_send_all_might_not_block()
            try:
                view = view[self.socket.send(view) :]
            except BlockingIOError:
                continue
            except OSError as error:
                raise self._failure(error) from error

    async def wait_send_all_might_not_block(self) -> None:
        """Waits until the kernel takes more. Errors: as `send_all`."""
        try:
            with trio.move_on_after(self._send_stall_s) as patience:
                await trio.lowlevel.wait_writable(self.socket)
        except (OSError, ValueError) as error:
            raise self._failure(error) from error
        if patience.cancelled_caught:
            raise trio.BrokenResourceError(f"client took nothing for {self._send_stall_s:g} s")

    async def send_eof(self) -> None:
        """Closes our side; the client may still send."""
        try:
            self.socket.shutdown(socket.SHUT_WR)
        except OSError as error:
            raise self._failure(error) from error
        await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        """Ends our side, reads the client's for a while (`Limits.linger_s`) and throws it away.

        Closing with bytes unread, or still to come, resets the connection, which can destroy what
        the client has not read yet (RFC 9112, section 9.6). Another task that is reading gets
        `trio.ClosedResourceError`. Cancelled, it closes at once; repeated meanwhile, it does not
        wait.
        """
        if self._lingering or self.socket.fileno() < 0:
            return
        self._lingering = True
        trio.lowlevel.notify_closing(self.socket)
        try:
            with trio.move_on_after(self._linger_s):
                await trio.lowlevel.checkpoint()
                await self.send_eof()
                while await self.receive_some():
                    pass
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # The client has gone, and the end is what was wanted.
        finally:
            self.hang_up()

    def hang_up(self, *, reset: bool = False) -> None:
        """Closes the socket at once; whoever waits on it gets `trio.ClosedResourceError`, even in
        a shielded scope. Never blocks; does nothing when repeated.

        `reset`: the client sees an error, not an end, which matters where the end of the
        connection is the end of the body.
        """
        if self.socket.fileno() < 0:
            return
        trio.lowlevel.notify_closing(self.socket)
        if reset:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self.socket.close()

    def _failure(self, error: Exception) -> Exception:
        """The trio exception for one of the socket's (or `ValueError`, for a number below 0)."""
        if self.socket.fileno() < 0:
            return trio.ClosedResourceError("this connection was closed")
        return trio.BrokenResourceError(f"socket: {error}")
