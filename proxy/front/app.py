"""The Quart-Trio application: admin API, health, API description, and a page for people.

The data plane sits in front of it as ASGI middleware (`proxy.front.asgi`), so that its requests
never pass through Quart.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import werkzeug.exceptions
from quart import g, has_request_context, request
from quart.json.provider import DefaultJSONProvider
from quart_trio import QuartTrio
from quart_trio.wrappers import TrioResponse as Response
from werkzeug.exceptions import HTTPException

from proxy.errors import NotFound, ProxyError
from proxy.exchange.request_id import request_id
from proxy.front import admin, log_level, old_addresses
from proxy.front.asgi import DataPlane
from proxy.front.metrics import MetricsPage
from proxy.front.migration import MigrationApi
from proxy.front.openapi import document
from proxy.front.reload import ReloadApi

if TYPE_CHECKING:
    from collections.abc import Callable

    from quart import Blueprint
    from quart.typing import ResponseReturnValue

    from actors.store import EarlierData
    from proxy.front.admin import Administration, AdminKey
    from proxy.front.asgi import Exchange
    from proxy.front.explain import RouteExplanations
    from proxy.front.metrics import Metrics

logger = logging.getLogger("proxy.front")

DEFAULT_MAX_REQUEST_BYTES = 32 * 1024 * 1024
DEFAULT_BODY_TIMEOUT_S = 120.0
"""Of waiting for a client's body; what has come extends it."""

SEND_TIMEOUT_S = 30

_SAFE_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_READING = frozenset({"GET", "HEAD", "OPTIONS"})
_LINKS = ("/healthz", "/readyz", "/openapi.json", "/v1/models")


def create_app(
    *,
    administration: Administration,
    exchange: Exchange,
    ready: Callable[[], bool],
    earlier_data: EarlierData,
    explanations: RouteExplanations,
    metrics: Metrics,
    admin_key: str,
    metrics_key: str | None = None,
    leaving: Callable[[], bool] = bool,
    max_request_bytes: int = DEFAULT_MAX_REQUEST_BYTES,
    body_timeout_s: float = DEFAULT_BODY_TIMEOUT_S,
) -> QuartTrio:
    """An application that serves everything; it starts nothing and reads no environment.

    `ready`: whether some instance can serve now; must not block. `leaving`: whether the service
    has begun to stop; must not block, and by default it has not. `earlier_data`: what a migration
    reads. `metrics_key`: reads the metrics only. `max_request_bytes`: of the
    data plane's. `body_timeout_s`: see `BodyReader.read_chunk`; admin requests, whose bodies are
    small, get it without an extension. Errors: `ValueError` for an empty key.
    """
    app = QuartTrio("proxy", static_folder=None)
    app.config.update(
        MAX_CONTENT_LENGTH=admin.MAX_BODY_BYTES,
        BODY_TIMEOUT=body_timeout_s,
        RESPONSE_TIMEOUT=SEND_TIMEOUT_S,
        PROPAGATE_EXCEPTIONS=False,
    )
    app.json = _JsonInOrder(app)
    app.url_map.merge_slashes = False  # `//admin` is not `/admin`, and nothing redirects
    app.register_blueprint(_admin_api(administration, earlier_data, explanations))
    _add_pages(app, ready, leaving)
    keys = [admin.AdminKey(key) for key in (admin_key, metrics_key) if key is not None]
    MetricsPage(metrics, tuple(keys)).add_to(app)
    _guard(app, keys[0])
    app.asgi_app = DataPlane(  # type: ignore[method-assign]
        app.asgi_app,
        exchange,
        max_request_bytes=max_request_bytes,
        body_timeout_s=body_timeout_s,
    )
    return app


def _admin_api(
    administration: Administration, earlier_data: EarlierData, explanations: RouteExplanations
) -> Blueprint:
    api = admin.AdminApi(administration).blueprint()
    MigrationApi(administration, earlier_data).add_to(api)
    ReloadApi(administration).add_to(api)
    explanations.add_to(api)
    log_level.add_to(api)
    old_addresses.add_to(api)
    return api


class _JsonInOrder(DefaultJSONProvider):
    """Instances are shown in the order of the configuration file."""

    sort_keys = False


def _add_pages(app: QuartTrio, ready: Callable[[], bool], leaving: Callable[[], bool]) -> None:
    description = document()

    @app.get("/")
    async def index() -> Response:
        return Response(_page("ready" if ready() else "not ready"), mimetype="text/html")

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        return {"status": "alive"}

    @app.get("/readyz")
    async def readyz() -> tuple[dict[str, str], int]:
        if leaving():
            return {"status": "draining", "message": "the service is shutting down"}, 503
        if ready():
            return {"status": "ready"}, 200
        return {"status": "unavailable", "message": "no instance can serve requests now"}, 503

    @app.get("/openapi.json")
    async def openapi() -> dict[str, Any]:
        return description


def _guard(app: QuartTrio, key: AdminKey) -> None:
    """The checks before and the headers after every answer, and the answers to what goes wrong."""

    @app.before_request
    async def admit() -> admin.Answer | None:
        g.request_id = _request_id()
        guarded = admin.owns(request.path) or "admin" in request.blueprints
        if guarded and not key.admits(request.headers.get(admin.KEY_HEADER)):
            return admin.unauthorized()
        return None

    @app.after_request
    async def add_headers(response: Response) -> Response:
        response.headers.update(_SAFE_HEADERS)
        response.headers["X-Request-Id"] = g.request_id
        if admin.owns(request.path) and request.method not in _READING:
            _log_change(response.status_code)
        return response

    @app.errorhandler(HTTPException)
    async def http_error(error: HTTPException) -> ResponseReturnValue | HTTPException:
        # A WebSocket handshake that finds no route comes here too, with no request to ask.
        return _http_error(error) if has_request_context() else error

    @app.errorhandler(Exception)
    async def unexpected(error: Exception) -> ResponseReturnValue:
        logger.error(
            "request %s: %s %s failed", g.request_id, request.method, request.path, exc_info=error
        )
        message = f"The proxy failed on this request; its log says why ({g.request_id})."
        return _failure(ProxyError(500, message, type="server_error", code="internal_error"))


def _log_change(status: int) -> None:
    """Who operates the service sees later what was asked of it when; never with what content."""
    fields = {
        "method": request.method,
        "path": request.path[:200],
        "status": status,
        "request_id": g.request_id,
    }
    logger.info("admin request", extra=fields)


def _http_error(error: HTTPException) -> ResponseReturnValue:
    if isinstance(error, werkzeug.exceptions.NotFound):
        return _failure(NotFound(f"Invalid URL ({request.method} {request.path[:200]})"))
    status, message = error.code or 500, error.description or error.name
    allowed = {name: value for name, value in error.get_headers() if name == "Allow"}
    return _failure(ProxyError(status, message, type="invalid_request_error"), allowed)


def _failure(error: ProxyError, headers: dict[str, str] | None = None) -> ResponseReturnValue:
    """In the shape that users of this address know: the admin API's, or OpenAI's."""
    if admin.owns(request.path):
        return admin.failure(error.message), error.status, headers or {}
    return Response(error.body(), error.status, headers, mimetype="application/json")


def _request_id() -> str:
    given = request.headers.get("X-Request-Id")
    return request_id(None if given is None else given.encode("latin-1", "replace")).decode()


def _page(state: str) -> str:
    links = "\n".join(f'<li><a href="{link}">{link}</a></li>' for link in _LINKS)
    return f"""<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>Azure OpenAI proxy</title></head>
<body>
<h1>Azure OpenAI proxy</h1>
<p>This service is {state}. Point an OpenAI client at <code>/v1</code>.</p>
<ul>
{links}
</ul>
</body>
</html>
"""
