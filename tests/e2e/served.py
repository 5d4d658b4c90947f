"""The whole service in this process, over real sockets."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Literal

import hypercorn.trio
import trio
from hypercorn.config import Config

from proxy.server.limits import Limits
from proxy.server.run import serve
from proxy.service import Service, assembled, listener_limits
from proxy.settings import load_settings

Listener = Literal["engine", "hypercorn"]
ADMIN_KEY = "admin-key-for-tests"


def configure(folder: Path, instances: Mapping[str, Mapping[str, Any]]) -> None:
    """The configurations by name of the service that will run in `folder`."""
    (folder / "configs.json").write_text(json.dumps(instances))


@asynccontextmanager
async def served(
    folder: Path, settings: Mapping[str, str] | None = None, listener: Listener = "engine"
) -> AsyncIterator[tuple[Service, str]]:
    """The service and its URL. Its files are in `folder`."""
    environ = {
        "INSTANCE_CONFIG_FILE": str(folder / "configs.json"),
        "INSTANCE_STATE_FILE": str(folder / "states.json"),
        "ADMIN_API_KEY": ADMIN_KEY,
        **(settings or {}),
    }
    loaded = load_settings(environ)
    async with assembled(loaded) as service, trio.open_nursery() as nursery:
        listen = _hypercorn if listener == "hypercorn" else _engine
        (url,) = await nursery.start(listen(service, listener_limits(loaded)))
        yield service, url
        nursery.cancel_scope.cancel()


def _engine(service: Service, limits: Limits) -> Any:
    return partial(
        serve,
        service.exchange,
        service.load_app,
        host="127.0.0.1",
        port=0,
        limits=limits,
        on_start=service.listening.start,
    )


def _hypercorn(service: Service, limits: Limits) -> Any:
    """The application as any other server would run it; `limits` are the engine's."""
    config = Config()
    config.bind = ["127.0.0.1:0"]
    return partial(
        hypercorn.trio.serve, service.load_app(), config, shutdown_trigger=trio.sleep_forever
    )
