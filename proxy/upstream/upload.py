"""The part of a request that does not leave at once, sent while the answer may already come."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

import trio

from proxy.exchange.ports import UpstreamFailure

if TYPE_CHECKING:
    from proxy.exchange.ports import UploadBody
    from proxy.upstream.link import Link


class Clock(Protocol):
    """What bounds the time that the upstream may take."""

    def suspend(self) -> None:
        """From now on it is the client that is waited for. Never blocks."""
        ...

    def resume(self) -> None:
        """The upstream's time goes on where it was suspended. Never blocks."""
        ...


class Upload:
    """After `run` has ended, `complete` says whether everything was sent; `body_error` is what
    went wrong with the body itself. Neither holds when the connection broke or the upload was
    cancelled. `under_way` is cancelled when `run` ends.
    """

    __slots__ = ("_body", "_clock", "_link", "body_error", "complete", "under_way")

    def __init__(self, link: Link, body: UploadBody | None, clock: Clock) -> None:
        """`body`: what follows what has been written to `link` already, if anything."""
        self._link = link
        self._body = body
        self._clock = clock
        self.complete = False
        self.body_error: Exception | None = None
        self.under_way = trio.CancelScope()

    async def run(self, exchange: trio.CancelScope) -> None:
        """Sends everything, at the pace of both sides. Cancels `exchange` on a `body_error`:
        then no answer is of interest any more."""
        # If the connection breaks, its reader will say so, or find a last word from upstream.
        with suppress(OSError, trio.ClosedResourceError):
            try:
                await self._link.drain()
                if self._body is not None:
                    await self._send(self._body)
                self.complete = True
            except _BodyFailed as failed:
                self.body_error = failed.error
                exchange.cancel()
        self.under_way.cancel()

    async def _send(self, body: UploadBody) -> None:
        left = body.length
        while piece := await self._read(body):
            if left is None:
                piece = b"%x\r\n%b\r\n" % (len(piece), piece)
            else:
                left -= len(piece)
                if left < 0:
                    break
            await self._write(piece)
            self.complete = left == 0
        if left is None:
            await self._write(b"0\r\n\r\n")
        elif left != 0:
            raise _BodyFailed(UpstreamFailure("send", "other", "the body has not its length"))

    async def _read(self, body: UploadBody) -> bytes:
        self._clock.suspend()
        try:
            return await body.read_chunk()
        except Exception as error:
            raise _BodyFailed(error) from error
        finally:
            self._clock.resume()

    async def _write(self, data: bytes) -> None:
        if not self._link.write(data):
            await self._link.drain()


class _BodyFailed(Exception):
    """Keeps an exception that has to do with the body apart from those of the connection."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error
