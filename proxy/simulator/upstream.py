"""The `Upstream` port straight onto simulated resources: no sockets, any clock."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import trio

from proxy.exchange.ports import Headers, UploadBody, UpstreamFailure, UpstreamRequest
from proxy.simulator.call import EVENT_STREAM, Call
from proxy.simulator.playback import Broken, Playback

if TYPE_CHECKING:
    from collections.abc import Mapping

    from proxy.simulator.resource import Resource

MOST_UPLOAD_BYTES = 64 * 1024 * 1024


class SimulatedResponse:
    """An answer of a simulated resource; see `proxy.exchange.ports.UpstreamResponse`."""

    __slots__ = ("_ends_at", "_playback", "_silence_s", "headers", "status")

    def __init__(self, playback: Playback, silence_s: float, ends_at: float) -> None:
        """`ends_at`: when the body must be complete, unless it is an event stream."""
        self.status: int = playback.answer.status
        self.headers: Headers = playback.answer.headers
        self._playback = playback
        self._silence_s = silence_s
        self._ends_at = math.inf if EVENT_STREAM in self.headers else ends_at

    async def read_chunk(self) -> bytes:
        within_s = min(self._silence_s, self._ends_at - trio.current_time())
        try:
            return await self._playback.read_chunk(within_s)
        except Broken:
            raise UpstreamFailure(
                "body", "reset", "the connection was cut", answered=True
            ) from None
        except trio.TooSlowError:
            raise UpstreamFailure(
                "body", "timeout", f"nothing more within {within_s:g} s", answered=True
            ) from None

    async def aclose(self) -> None:
        self._playback.close()


class SimulatedUpstream:
    """Connections to simulated resources by host (with the port, where the URL has one)."""

    def __init__(self, resources: Mapping[str, Resource]) -> None:
        self._resources = resources

    async def send(self, request: UpstreamRequest) -> SimulatedResponse:
        """See `proxy.exchange.ports.Upstream`.

        The resource counts the call from the moment at which all of its body is there, whether
        the caller waits for the answer or not.
        """
        host, path, query = _split(request.url)
        resource = self._resources.get(host)
        if resource is None:
            await trio.lowlevel.checkpoint()
            raise UpstreamFailure("connect", "dns", "no such host")
        ends_at = trio.current_time() + (math.inf if request.whole_s is None else request.whole_s)
        body = request.body
        if not isinstance(body, bytes):
            body = await _read(body, request.timeout_s)
        call = Call(request.method, path, query, request.headers, body)
        playback = Playback(resource.answer(call, trio.current_time()))
        try:
            await playback.head(request.timeout_s)
        except Broken:
            raise UpstreamFailure("connect", "refused", "the connection was refused") from None
        except trio.TooSlowError:
            raise UpstreamFailure(
                "head", "timeout", f"no answer within {request.timeout_s:g} s"
            ) from None
        return SimulatedResponse(playback, request.silence_s, ends_at)

    async def forget(self, instance: str) -> None:
        """There are no connections to close."""


@lru_cache(maxsize=4096)
def _split(url: str) -> tuple[str, str, bytes]:
    """Host, decoded path, query."""
    parts = urlsplit(url)
    return parts.netloc.lower(), unquote(parts.path), parts.query.encode("ascii")


async def _read(body: UploadBody, timeout_s: float) -> bytes:
    """The whole of an upload. Errors: `UpstreamFailure`, and whatever its reader raises."""
    body.rewind()
    content = bytearray()
    with trio.move_on_after(timeout_s) as scope:
        while chunk := await body.read_chunk():
            content += chunk
            if len(content) > MOST_UPLOAD_BYTES:
                raise UpstreamFailure("send", "reset", "the body is too large")
    if scope.cancelled_caught:
        raise UpstreamFailure("send", "timeout", f"not sent within {timeout_s:g} s")
    return bytes(content)
