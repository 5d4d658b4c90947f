"""The whole service over real sockets, in front of simulated resources, on the real clock."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import hypercorn.trio
import pytest
import trio
from hypercorn.config import Config
from simulated_service import ADMIN_KEY, CLIENT_KEY, MODELS, Listener, Running, Start

from proxy.server.limits import Limits
from proxy.server.run import serve
from proxy.service import assembled
from proxy.settings import load_settings
from proxy.simulator.demo import simulated_resource
from proxy.simulator.deployment import INSTANT
from proxy.simulator.resource import DEFAULT_KEY
from proxy.simulator.serving import serve_resource


@pytest.fixture(params=["engine", "hypercorn"])
def listener(request: pytest.FixtureRequest) -> Listener:
    """Both ways in: the engine on the public port, and Hypercorn with the application."""
    listener: Listener = request.param
    return listener


@pytest.fixture
def start(tmp_path: Path, listener: Listener) -> Start:
    """Starts the service in front of `tpm` simulated resources each of which is an instance."""

    @asynccontextmanager
    async def started(
        *tpm: int, settings: dict[str, str] | None = None, **fields: Any
    ) -> AsyncIterator[Running]:
        resources = [
            simulated_resource(f"r{number}", MODELS, tpm=limit, latency=INSTANT, seed=number)
            for number, limit in enumerate(tpm)
        ]
        environ = {
            "INSTANCE_CONFIG_FILE": str(tmp_path / "configs.json"),
            "INSTANCE_STATE_FILE": str(tmp_path / "states.json"),
            "ADMIN_API_KEY": ADMIN_KEY,
            "PROXY_API_KEYS": CLIENT_KEY,
            **(settings or {}),
        }
        async with trio.open_nursery() as nursery:
            urls = {
                resource.name: await nursery.start(serve_resource, resource, "127.0.0.1", 0)
                for resource in resources
            }
            configs = {
                resource.name: {
                    "api_key": DEFAULT_KEY,
                    "api_base": urls[resource.name],
                    "api_version": "2025-04-01-preview",
                    "priority": number,
                    "max_tpm": tpm[number],
                    "supported_models": list(MODELS),
                    **fields,
                }
                for number, resource in enumerate(resources)
            }
            (tmp_path / "configs.json").write_text(json.dumps(configs))
            async with (
                assembled(load_settings(environ)) as service,
                trio.open_nursery() as serving,
            ):
                url = await serving.start(listen, listener, service)
                yield Running(url, resources, urls)
                serving.cancel_scope.cancel()
            nursery.cancel_scope.cancel()

    return started


async def listen(listener: Listener, service: Any, *, task_status: trio.TaskStatus[str]) -> None:
    async with trio.open_nursery() as nursery:
        if listener == "engine":
            urls = await nursery.start(
                partial(
                    serve,
                    service.exchange,
                    service.load_app,
                    host="127.0.0.1",
                    port=0,
                    limits=Limits(),
                )
            )
        else:
            config = Config()
            config.bind = ["127.0.0.1:0"]
            urls = await nursery.start(
                partial(
                    hypercorn.trio.serve,
                    service.load_app(),
                    config,
                    shutdown_trigger=trio.sleep_forever,
                )
            )
        task_status.started(urls[0])
