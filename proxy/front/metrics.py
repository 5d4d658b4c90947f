"""`GET /metrics`, for Prometheus. Takes the admin key, or a key that is good for this page only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from quart import request
from quart_trio.wrappers import TrioResponse as Response

from proxy.front.admin import KEY_HEADER, AdminKey

if TYPE_CHECKING:
    from quart_trio import QuartTrio

PATH = "/metrics"
_BEARER = "bearer "


class Metrics(Protocol):
    """Implemented by `proxy.metrics.exposition.Exposition`."""

    async def text(self) -> bytes: ...


class MetricsPage:
    """The view. Prometheus sends its key as `Authorization: Bearer`; people and scripts may use
    the admin API's header."""

    def __init__(self, metrics: Metrics, keys: tuple[AdminKey, ...]) -> None:
        self._metrics = metrics
        self._keys = keys

    def add_to(self, app: QuartTrio) -> None:
        app.add_url_rule(PATH, "metrics", self.show, methods=["GET"])

    async def show(self) -> Response:
        if not self._admitted():
            challenge = {"WWW-Authenticate": 'Bearer realm="metrics"'}
            return Response("The metrics take a key.\n", 401, challenge, mimetype="text/plain")
        text = await self._metrics.text()
        return Response(text, content_type="text/plain; version=0.0.4; charset=utf-8")

    def _admitted(self) -> bool:
        given = [request.headers.get(KEY_HEADER)]
        authorization = request.headers.get("Authorization", "")
        if authorization.lower().startswith(_BEARER):
            given.append(authorization[len(_BEARER) :].strip())
        return any(key.admits(one) for key in self._keys for one in given)
