"""A simulated resource as a Quart-Trio application."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio
from quart import Response, request
from quart_trio import QuartTrio

from proxy.simulator.call import Answer, Call
from proxy.simulator.control import add_controls
from proxy.simulator.playback import Broken, Playback

if TYPE_CHECKING:
    from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable, Scope

    from proxy.simulator.resource import Resource

MOST_BODY_BYTES = 64 * 1024 * 1024
_METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE"]


class SimulatorApp(QuartTrio):
    """Quart-Trio, but an answer that breaks off leaves the connection closed, and no traceback."""

    async def asgi_app(
        self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable
    ) -> None:
        try:
            await super().asgi_app(scope, receive, send)
        except* Broken:
            pass


def create_app(resource: Resource, *, control_key: str | None = None) -> SimulatorApp:
    """The application. `/simulator/…` needs `control_key`; without one, a loopback client."""
    app = SimulatorApp("proxy.simulator")
    app.config["MAX_CONTENT_LENGTH"] = MOST_BODY_BYTES
    app.url_map.merge_slashes = False

    async def answer(path: str = "") -> Response:
        # The playback's own clock starts when the whole request is there, as the service's does.
        body = await request.get_data(False, False, False)
        headers = [
            (name.lower().encode("latin-1"), value.encode("latin-1"))
            for name, value in request.headers.items()
        ]
        call = Call(request.method, f"/{path}", request.query_string, headers, body)
        return await _begin(resource.answer(call, trio.current_time()))

    app.add_url_rule("/", "root", answer, methods=_METHODS)
    app.add_url_rule("/<path:path>", "any", answer, methods=_METHODS)
    add_controls(app, resource, control_key)
    return app


class _Body:
    """What remains of an answer, for Quart to iterate over and to close."""

    def __init__(self, playback: Playback) -> None:
        self._playback = playback

    def __aiter__(self) -> _Body:
        return self

    async def __anext__(self) -> bytes:
        chunk = await self._playback.read_chunk()
        if not chunk:
            raise StopAsyncIteration
        return chunk

    async def aclose(self) -> None:
        self._playback.close()


class _Nothing(_Body):
    """No answer at all: it breaks before its first byte."""

    async def __anext__(self) -> bytes:
        raise Broken("refused")


async def _begin(answer: Answer) -> Response:
    """Waits for the head; the body follows chunk by chunk as it is due."""
    playback = Playback(answer)
    try:
        await playback.head()
    except Broken:
        # Hypercorn can only close a connection after a head. An interim one, which clients skip,
        # comes closest to turning the connection away.
        response = Response(_Nothing(playback), status=100)
    else:
        response = Response(_Body(playback), status=answer.status)
    response.timeout = None
    response.headers.clear()
    for name, value in answer.headers:
        response.headers.add(name.decode("latin-1"), value.decode("latin-1"))
    return response
