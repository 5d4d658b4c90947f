"""The whole service over real sockets, in front of simulated resources, on the real clock."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from served import Listener, configure, served
from simulated_service import CLIENT_KEY, Running, Start, simulated_instances


@pytest.fixture(params=["engine", "hypercorn"])
def listener(request: pytest.FixtureRequest) -> Listener:
    """Both ways in: the engine on the public port, and Hypercorn with the application."""
    listener: Listener = request.param
    return listener


@pytest.fixture
def start(tmp_path: Path, listener: Listener) -> Start:
    """Starts the service in front of `tpm` simulated resources each of which is an instance."""

    @asynccontextmanager
    async def started(*tpm: int, **fields: Any) -> AsyncIterator[Running]:
        async with trio.open_nursery() as nursery:
            resources, configs = await simulated_instances(nursery, *tpm, **fields)
            configure(tmp_path, configs)
            async with served(tmp_path, {"PROXY_API_KEYS": CLIENT_KEY}, listener) as (_, url):
                urls = {name: config["api_base"] for name, config in configs.items()}
                yield Running(url, resources, urls)
            nursery.cancel_scope.cancel()

    return started
