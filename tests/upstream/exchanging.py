"""Pools that run for the length of a block, and the shortest way to use them."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import trio
from harness import instance_config
from memory_link import MemoryDialer

from proxy.exchange.ports import UpstreamRequest
from proxy.upstream.instances import InstancePools
from proxy.upstream.pool import PoolLimits, PoolStatistics
from proxy.upstream.watch import Watch

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from actors.models import InstanceConfig
    from proxy.upstream.pool import Dialer
    from proxy.upstream.response import Response

CONFIG = instance_config("one", api_base="http://one.example")


@asynccontextmanager
async def pools(
    dialer: Dialer, limits: PoolLimits = PoolLimits(), environ: dict[str, str] | None = None
) -> AsyncIterator[InstancePools]:
    """Without proxies from the environment in which the tests run. No connection may be in use
    at the end."""
    watch = Watch()
    async with trio.open_nursery() as nursery:
        await nursery.start(watch.run)
        made = InstancePools(dialer, watch, limits, environ or {})
        yield made
        assert all(each.in_use == 0 for each in made.statistics().values())
        made.close()
        if isinstance(dialer, MemoryDialer):
            assert dialer.open_links == 0
        nursery.cancel_scope.cancel()


def request(config: InstanceConfig = CONFIG, body: Any = b"{}", **fields: Any) -> UpstreamRequest:
    made = UpstreamRequest(
        config=config,
        method="POST",
        url=f"{config.api_base}/v1/chat/completions",
        headers=[(b"content-type", b"application/json")],
        body=body,
        timeout_s=30.0,
        silence_s=10.0,
    )
    return replace(made, **fields)


def request_to(
    url: str, body: bytes = b"{}", *, patience_s: float = 5.0, **fields: Any
) -> UpstreamRequest:
    """A request to an instance named `one` at `url`. `patience_s`: for the head and for each
    piece; `fields`: of the configuration."""
    config = instance_config("one", api_base=url, **fields)
    return request(config, body, timeout_s=patience_s, silence_s=patience_s)


async def read(response: Response) -> bytes:
    """The whole body; the response is closed afterwards."""
    pieces = []
    try:
        while data := await response.read_chunk():
            pieces.append(data)
    finally:
        await response.aclose()
    return b"".join(pieces)


async def exchange(upstream: InstancePools, made: UpstreamRequest | None = None) -> bytes:
    return await read(await upstream.send(made or request()))


def counts(upstream: InstancePools, name: str = "one") -> PoolStatistics:
    return upstream.statistics().get(name, PoolStatistics())
